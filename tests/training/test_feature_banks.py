"""Training on feature banks, from memory or a stream; what does not fit them is refused."""

import jax
import numpy as np
import pytest

from spa_jax.evaluate import evaluate
from spa_jax.longtail.registry import METHODS
from spa_jax.training.checking import check_run
from spa_jax.training.loop import run
from spa_jax.training.recipes import features
from tests.data.test_features import CLASSES, arrays, write_mapped, write_npz
from tests.parameters import first
from tests.refusals import refusal
from tests.training.feeds.feeding import after_steps
from tests.training.small import assert_close, deferral, small_config, small_program


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """The same bank as archives, and as files that are mapped."""
    folder = tmp_path_factory.mktemp("banks")
    return {"npz": write_npz(folder / "npz"), "mapped": write_mapped(folder / "mapped")}


def bank_config(folder, **changes):
    """Twelve epochs of five steps, from the recipe; `__` stands for a dot."""
    config = features(model=changes.get("model__name", "identity"))
    config.epochs, config.batch_size, config.evaluate_every = 12, 8, 12
    config.optimizer.learning_rate = 0.05
    config.data.folder = str(folder)
    config.logging.every_steps, config.logging.tensorboard, config.logging.plots = 0, False, False
    config.update_from_flattened_dict({key.replace("__", "."): x for key, x in changes.items()})
    return config


def test_a_classifier_learns_and_aligns_with_the_means_of_the_data_set(banks, tmp_path):
    config = bank_config(banks["mapped"], spa__method="proj")
    program = small_program(config)
    whole = arrays("train")
    expected = [
        whole["feature"][whole["label"] == label].astype(np.float64).mean(axis=0)
        for label in range(CLASSES)
    ]
    before = program.init_state(config).class_means
    np.testing.assert_array_equal(before.mean, np.array(expected, np.float32))
    assert before.seen.all()
    state, _ = after_steps(program, 2)
    np.testing.assert_array_equal(state.class_means.mean, before.mean)
    summary = run(config, tmp_path, program, say=lambda line: None)
    assert summary["test_accuracy"]["last"] > 0.9  # chance is 0.25
    assert summary["test_mean_cosine"] > 0.8


def test_an_example_without_finite_logits_is_wrong_and_counts(tmp_path):
    """Features of which the adapter makes infinities; the largest of such logits is the first."""
    folder, broken = tmp_path / "bank", 2
    write_npz(folder)
    test = dict(np.load(folder / "test.npz"))
    rows = np.flatnonzero(test["label"] == 0)[:broken]
    test["feature"] = test["feature"].astype(np.float32)
    test["feature"][rows] = 3e38
    np.savez(folder / "test.npz", **test)
    config = bank_config(folder, model__name="adapter", epochs=1, evaluate_every=1)
    summary = run(config, tmp_path / "run", small_program(config), say=lambda line: None)
    assert summary["test_class_counts"] == np.bincount(test["label"]).tolist()
    assert summary["per_class_accuracy"][0] <= 1 - broken / test["label"].tolist().count(0)
    message = refusal(evaluate, [tmp_path / "run"], out=tmp_path / "evaluated")
    assert f"logits of {broken} of {len(test['label'])} examples of the test part" in message


@pytest.mark.thorough
def test_a_stream_on_eight_devices_trains_and_tests_the_adapter_as_memory_on_one(banks):
    """All in one batch, as the order is another one."""
    changes = {"model__name": "adapter", "batch_size": 40, "eval_batch_size": 8}
    resident, streamed = (
        small_program(bank_config(banks[form], data__feed=feed, parallel=mode, **changes), number)
        for form, feed, mode, number in (
            ("npz", "device", "jit", 1),
            ("mapped", "stream", "shard_map", 8),
        )
    )
    one, eight = after_steps(resident, 3), after_steps(streamed, 3)
    assert np.abs(one[0].params["backbone"]["up"]["kernel"]).max() > 1e-3
    assert_close(one, eight, 1e-5)
    reports = [
        jax.device_get(program.evaluate(program.init_state(program.config)))
        for program in (resident, streamed)
    ]
    assert reports[0]["count"].tolist() == [3] * CLASSES
    assert_close(*reports, 1e-6)
    logits = [
        program.logits(program.init_state(program.config), "test")
        for program in (resident, streamed)
    ]
    assert logits[0].shape == (12, CLASSES)
    assert_close(*logits, 1e-6)


def test_a_program_goes_over_to_another_split_and_trains_as_one_made_for_it(banks):
    changes = {"data__profile": "exponential", "data__imbalance_factor": 2.0, "spa__method": "proj"}
    first, second, smaller = (
        bank_config(banks["npz"], data__validation=True, data__split_seed=seed, **changes | more)
        for seed, more in ((0, {}), (1, {}), (1, {"data__imbalance_factor": 2.5}))
    )
    program = small_program(first)
    before, _ = after_steps(program, 3)
    report = jax.device_get(program.evaluate(before))
    assert not program.adopt(smaller)
    assert program.adopt(second)
    alone = small_program(second)
    assert program.data.split["checksum"] == alone.data.split["checksum"]
    assert_close(after_steps(program, 3), after_steps(alone, 3), 0)
    reports = [jax.device_get(one.evaluate(after_steps(one, 3)[0])) for one in (program, alone)]
    assert_close(*reports, 0)
    assert report["test_mean_cosine"] != reports[0]["test_mean_cosine"]


WRONG = {
    "a crop": ({"augment__crop_padding": 2}, ("config.augment.crop_padding", "has features", "0")),
    "a field of streams": ({"augment__color_jitter": 0.4}, ("config.augment.color_jitter",)),
    "CutMix": ({"augment__mix": "cutmix"}, ("cutmix pastes a part", "mixup")),
    "GLMC": ({"method__name": "glmc"}, ("glmc pastes a part", "config.method.name")),
    "BCL": ({"method__name": "bcl"}, ("two views of an image", "config.method.name")),
    "a fixed classifier": ({"method__name": "etf"}, ("fixed classifier", "adapter")),
    "a frozen network that there is none of": (
        {"optimizer__train_only": "head", "init__run": "runs/first"},
        ("config.optimizer.train_only=head does nothing", "identity", "leave it at all"),
    ),
    "another dtype": ({"model__dtype": "bfloat16"}, ("config.model.dtype=bfloat16", "identity")),
    "the width of an adapter": ({"model__adapter__width": 8}, ("adapter.width", "256")),
    "fixed means of what moves": (
        {"model__name": "adapter", "spa__means_from": "dataset"},
        ("config.spa.means_from=dataset", "adapter", "set it to auto"),
    ),
    "a moving average of fixed means": (
        {"spa__means_from": "dataset", "spa__decay": 0.5},
        ("config.spa.decay=0.5 does nothing", "leave it at 0.9"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_features_have_no_use_for_is_refused(banks, case):
    changes, parts = WRONG[case]
    message = refusal(check_run, bank_config(banks["npz"], **changes))
    for part in parts:
        assert part in message


def test_a_network_for_images_refuses_features(banks):
    config = bank_config(banks["npz"])
    config.model.name = "small"
    message = refusal(check_run, config)
    assert "takes images" in message and "identity or adapter" in message


def test_images_are_refused_by_a_network_for_features_and_have_no_fixed_means():
    plain = {"augment__crop_padding": 0, "augment__flip": False}
    message = refusal(check_run, small_config(model__name="identity", **plain))
    assert "identity takes features" in message
    message = refusal(check_run, small_config(spa__means_from="dataset", **plain))
    assert "config.spa.means_from=dataset" in message


@pytest.mark.parametrize(
    "method", first(4, [name for name in METHODS if name not in ("glmc", "bcl")])
)
def test_a_step_of_every_method_but_two_fits_features(banks, method):
    """Traced alone: what comes out has the form of what goes in."""
    settings = {"model__name": "adapter", "method__name": method, **deferral(method, 5)}
    config = bank_config(banks["npz"], **settings)
    program = small_program(config)
    state = jax.eval_shape(lambda: program.init_state(config))
    inputs = jax.eval_shape(lambda state: next(program.batches(state, 0, 0)), state)
    after, _ = jax.eval_shape(program.train_step, state, program.zero_totals, inputs)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)

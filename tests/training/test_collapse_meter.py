"""What a run records of neural collapse is that of all its images, on any number of devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import unit_rows
from spa_jax.dynamics import collapse
from spa_jax.longtail.registry import METHODS
from spa_jax.training import evaluation as meter
from spa_jax.training.checking import prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.loop import run
from spa_jax.training.metrics import fetch
from tests.training.small import small_config, small_program


def measured(num_devices, **changes):
    """What the meter finds at the first state, and what is needed to find it otherwise."""
    config = small_config(logging__collapse=True, model__small__widths=(12,), **changes)
    program = small_program(config, num_devices)
    state = program.init_state(config)
    return fetch(program.evaluate(state)["collapse"]), program, state


@pytest.fixture(scope="module")
def one_device():
    return measured(1)


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_measures_are_those_of_all_images_at_once(part, one_device):
    """Of their features in evaluation mode, unaugmented."""
    found, program, state = one_device
    examples = getattr(program.data, part)
    model = prepare_run(resolve(program.config), program.data).model
    features, _ = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(
        jax.device_get(state.variables), program.feed.normalize(jnp.asarray(examples.images))
    )
    weights, bias = meter.tested_classifier(state.variables, program.method)
    whole = collapse.NCState.create(10, features.shape[1]).update(features, examples.labels)
    expected = collapse.metrics(whole, weights, bias)
    expected["nc4"] = collapse.nc4(features, whole.mean, weights, bias)
    values = meter.collapse_measures(found)[part]
    assert {*meter.MEASURES, "nc4", "mean_cosine"} == {*values}
    for name in (*meter.MEASURES, "nc4"):
        assert values[name] == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-5), name
    means = meter.collapse_geometry(found)[f"{part}_means"]
    np.testing.assert_allclose(means, whole.mean, atol=1e-5)
    # And so the padding of a batch is not counted.
    assert int(found[part]["state"].counts.sum()) == len(examples)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_eight_devices_measure_what_one_measures(mode, one_device):
    eight, _, _ = measured(8, parallel=mode)
    expected = meter.collapse_measures(one_device[0])
    for part, values in meter.collapse_measures(eight).items():
        assert values == pytest.approx(expected[part], rel=1e-4, abs=1e-5)
    for name, array in meter.collapse_geometry(eight).items():
        np.testing.assert_allclose(array, meter.collapse_geometry(one_device[0])[name], atol=1e-5)


def test_the_cosine_of_the_training_set_is_that_of_its_clean_class_means(one_device):
    found, _, state = one_device
    geometry = meter.collapse_geometry(found)
    kernel = np.asarray(state.params["head"]["kernel"], np.float64).T
    means = np.asarray(geometry["train_means"], np.float64)
    means = means - means.mean(axis=0)
    cosines = (
        (kernel * means).sum(1) / np.linalg.norm(kernel, axis=1) / np.linalg.norm(means, axis=1)
    )
    measures = meter.collapse_measures(found)["train"]
    assert measures["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-4)
    np.testing.assert_allclose(geometry["weights"][0], kernel, rtol=1e-6)


def classifier_of(name, head):
    """The classifier that tests a method whose head has these parameters."""
    entry = METHODS[name]
    variables = jax.tree.map(jnp.asarray, {"params": {"head": head}})
    return meter.tested_classifier(variables, entry.make(entry.options()))


def test_a_class_without_examples_leaves_those_of_the_others():
    """Which are those of a problem that does not have the class."""
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    weights, bias = generator.normal(size=(4, 6)).astype(np.float32), np.zeros(4, np.float32)
    state = collapse.NCState.create(4, 6).update(features, labels)
    part = {"state": jax.device_get(state), "agreeing": np.int32(15), "mean_cosine": np.nan}
    found = {"tested": (weights, bias), "train": part, "test": part}
    without = collapse.NCState.create(3, 6).update(features, labels)
    expected = collapse.metrics(without, weights[:3], bias[:3])
    values = meter.collapse_measures(found)["test"]
    assert {name: values[name] for name in meter.MEASURES} == pytest.approx(
        {name: float(expected[name]) for name in meter.MEASURES}, rel=1e-6
    )
    assert values["nc4"] == 0.5


def kernel(seed):
    return np.random.default_rng(seed).normal(size=(12, 10)).astype(np.float32)


def test_a_cosine_heads_weights_count_as_the_unit_vectors_that_they_act_as():
    weights, bias = classifier_of("ldam_drw", {"kernel": kernel(0)})
    np.testing.assert_allclose(weights, unit_rows(kernel(0).T), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1.0, atol=1e-6)
    assert not np.any(bias)


def test_glmc_is_measured_by_the_classifier_that_tests_it():
    own = {"kernel": kernel(1), "bias": np.arange(10, dtype=np.float32)}
    weights, bias = classifier_of("glmc", {"fc": {"kernel": kernel(0)}, "fc_cb": own})
    np.testing.assert_array_equal(weights, kernel(1).T)
    np.testing.assert_array_equal(bias, own["bias"])


def test_of_several_experts_the_mean_is_measured_as_it_classifies():
    head = {f"expert_{i}": {"kernel": kernel(i)} for i in range(3)}
    weights, bias = classifier_of("ride", head)
    expected = np.mean([unit_rows(kernel(i).T) for i in range(3)], axis=0)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert not np.any(bias)


def test_a_run_records_it_at_each_epoch_and_leaves_the_geometry(one_device, tmp_path):
    _, program, _ = one_device
    run(program.config, tmp_path, program, say=lambda line: None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert set(line["collapse"]) == {"train", "test"}
        for values in line["collapse"].values():
            assert {"nc1", "nc1_over_c", "nc2_etf_means", "nc3", "nc4"} <= set(values)
            assert all(isinstance(value, float) for value in values.values())
        assert -1 <= line["train_mean_cosine"] <= 1
    with np.load(tmp_path / "geometry.npz") as geometry:
        assert geometry["heads"].tolist() == ["head/kernel"]
        assert geometry["weights"].shape == (1, 10, 12)
        assert geometry["train_means"].shape == geometry["test_means"].shape == (10, 12)

"""Runs with a fixed classifier: its frame belongs to the run, wherever that goes on."""

import json

import jax
import numpy as np
import pytest

from spa_jax.training.loop import RunStopped, run
from spa_jax.training.rundir.checkpoints import Checkpoints
from tests.training.small import small_config, small_program

EPOCHS = 6


def etf_config(**changes):
    settings = {
        "epochs": EPOCHS,
        "method__name": "etf",
        "model__small__widths": (12,),
        "optimizer__learning_rate": 0.1,
        "checkpoint__keep": EPOCHS,
    }
    return small_config(**(settings | changes))


def silent(line):
    pass


@pytest.fixture(scope="module")
def program():
    return small_program(etf_config())


@pytest.fixture(scope="module")
def finished(program, tmp_path_factory):
    """The folder and the summary of a whole run."""
    workdir = tmp_path_factory.mktemp("etf")
    return workdir, run(etf_config(), workdir, program, silent)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def restored(workdir, program, **changes):
    """The newest checkpoint, read into a state that another seed may have begun."""
    with Checkpoints(workdir / "checkpoints", EPOCHS, print) as checkpoints:
        state, step = checkpoints.restore_newest(program.init_state(etf_config(**changes)))
    assert step == int(state.step)
    return state


def frame(state):
    return np.asarray(state.constants["head"]["kernel"])


def test_the_frame_is_in_the_checkpoint_and_is_not_made_again_from_a_seed(finished, program):
    first = frame(program.init_state(etf_config()))
    other = frame(program.init_state(etf_config(seed=1)))
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_array_equal(frame(restored(finished[0], program, seed=1)), first)
    gram = first.T @ first
    np.testing.assert_allclose(gram, (np.eye(10) - 1 / 10) / (9 / 10), atol=1e-5)


def test_a_checkpoint_has_the_same_frame_and_logits_on_other_devices(finished, program):
    workdir, summary = finished
    one = restored(workdir, program)
    eight = small_program(etf_config(parallel="pmap"), 8, program.data)
    there = restored(workdir, eight, seed=2, parallel="pmap")
    kernel = there.constants["head"]["kernel"]
    assert len(kernel.devices()) == 8
    np.testing.assert_array_equal(np.asarray(kernel), frame(one))
    report = jax.device_get(eight.evaluate(there))
    assert report["correct"].sum() / report["count"].sum() == summary["test_accuracy"]["last"]
    np.testing.assert_allclose(
        report["test_cosines"][0], summary["per_class_test_cosine"], atol=1e-5
    )


def test_a_stopped_run_goes_on_with_its_frame_as_if_nothing_had_happened(
    finished, program, tmp_path, monkeypatch
):
    """With a program that draws another frame for the seed, as another version of JAX may."""
    workdir, summary = finished
    asked = iter(range(1, EPOCHS))
    with pytest.raises(RunStopped):
        run(etf_config(), tmp_path, program, silent, keep_going=lambda: next(asked) < 3)
    assert len(metrics(tmp_path)) == 3
    begin = program.init_state
    monkeypatch.setattr(
        program,
        "init_state",
        lambda config, resumed: begin(etf_config(seed=3)).replace(rng=begin(config).rng),
    )
    resumed = run(etf_config(), tmp_path, program, silent)
    assert resumed["params_checksum"] == summary["params_checksum"]
    timings = {"seconds", "images_per_second"}
    for line, expected in zip(metrics(tmp_path), metrics(workdir), strict=True):
        assert {k: v for k, v in line.items() if k not in timings} == {
            k: v for k, v in expected.items() if k not in timings
        }


def test_features_turn_to_the_frame_on_images_that_were_not_trained_on(finished):
    workdir, summary = finished
    cosines = [line["test_mean_cosine"] for line in metrics(workdir)]
    assert len(cosines) == EPOCHS
    assert cosines[-1] > cosines[0] + 0.1
    assert cosines[-1] > 0.5
    assert summary["test_accuracy"]["last"] > 0.4  # chance is 0.1


def assert_finite(values, shape):
    array = np.asarray(values, float)
    assert array.shape == shape
    assert np.isfinite(array).all()
    assert (np.abs(array) <= 1 + 1e-6).all()


COSINES = ("mean_cosine", "min_cosine", "test_mean_cosine", "test_min_cosine")


def test_the_summary_of_a_fixed_classifier_has_its_cosines(finished, program):
    workdir, summary = finished
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert_finite([summary[name] for name in COSINES], (4,))
    assert_finite(summary["per_class_cosine"], (10,))
    assert_finite(summary["per_class_test_cosine"], (10,))
    assert summary["heads"] == {"head/kernel": {name: summary[name] for name in COSINES}}
    assert summary["method"] == "etf"
    # The frame is no parameter: a linear head of the same size would have 130 more.
    params = restored(workdir, program).params
    assert "kernel" not in params["head"]
    assert summary["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))

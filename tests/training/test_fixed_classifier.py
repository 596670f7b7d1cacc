"""Runs with a fixed classifier: its frame belongs to the run, wherever that goes on."""

import json
import shutil

import jax
import numpy as np
import pytest

from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import Checkpoints
from tests.refusals import refusal
from tests.training.small import small_config

EPOCHS = 8


def etf_config(**changes):
    settings = {
        "epochs": EPOCHS,
        "method__name": "etf",
        "model__widths": (12,),
        "optimizer__learning_rate": 0.1,
        "checkpoint__keep": EPOCHS,
    }
    return small_config(**(settings | changes))


def silent(line):
    pass


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def program():
    return Program(etf_config(), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def finished(program, tmp_path_factory):
    """The folder and the summary of a whole run."""
    workdir = tmp_path_factory.mktemp("etf")
    return workdir, run(etf_config(), workdir, program, silent)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def restored(workdir, program, seed):
    """The newest checkpoint, read into a state that another seed has begun."""
    with Checkpoints(workdir / "checkpoints", EPOCHS, print) as checkpoints:
        state, step = checkpoints.restore_newest(program.init_state(etf_config(seed=seed)))
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


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_checkpoint_has_the_same_frame_and_logits_on_other_devices(mode, finished, program):
    workdir, summary = finished
    one = restored(workdir, program, seed=0)
    eight = Program(etf_config(parallel=mode), program.data, jax.devices())
    there = restored(workdir, eight, seed=2)
    kernel = there.constants["head"]["kernel"]
    assert len(kernel.devices()) == 8
    np.testing.assert_array_equal(np.asarray(kernel), frame(one))
    report = jax.device_get(eight.evaluate(there))
    assert report["correct"].sum() / report["count"].sum() == summary["test_accuracy"]["last"]
    np.testing.assert_allclose(
        report["test_cosines"][0], summary["per_class_test_cosine"], atol=1e-5
    )


@pytest.mark.parametrize("stops", [(1,), (3, 5)])
def test_a_run_that_is_stopped_and_resumed_ends_as_if_nothing_had_happened(
    stops, finished, program, tmp_path
):
    workdir, summary = finished
    done = 0
    for stop in stops:
        asked = iter(range(done + 1, EPOCHS + 1))
        with pytest.raises(RunStopped):
            run(
                etf_config(),
                tmp_path,
                program,
                silent,
                keep_going=lambda asked=asked, stop=stop: next(asked) < stop,
            )
        done = stop
        assert len(metrics(tmp_path)) == done
    resumed = run(etf_config(), tmp_path, program, silent)
    assert resumed["params_checksum"] == summary["params_checksum"]
    timings = {"seconds", "images_per_second"}
    for line, expected in zip(metrics(tmp_path), metrics(workdir), strict=True):
        assert {k: v for k, v in line.items() if k not in timings} == {
            k: v for k, v in expected.items() if k not in timings
        }


def test_a_run_goes_on_with_the_frame_of_its_checkpoint_and_not_with_its_seeds(
    finished, program, tmp_path
):
    """A program that would draw another frame for the seed, as another version of JAX may."""
    workdir, summary = finished
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    for step in range(5 * 4, 5 * EPOCHS + 1, 5):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    elsewhere = Program(etf_config(), program.data, jax.devices()[:1])
    begin = elsewhere.init_state
    elsewhere.init_state = lambda config: begin(etf_config(seed=3)).replace(rng=begin(config).rng)
    resumed = run(etf_config(), tmp_path / "run", elsewhere, silent)
    assert resumed["params_checksum"] == summary["params_checksum"]


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
    params = restored(workdir, program, seed=0).params
    assert "kernel" not in params["head"]
    assert summary["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_features_too_narrow_for_the_frame_are_refused_with_what_to_widen(program):
    """Ten classes in eight dimensions have no frame."""
    config = etf_config(model__widths=(8,))
    message = refusal(Program, config, program.data, jax.devices()[:1])
    assert "9 or more, got 8" in message
    assert "config.model" in message

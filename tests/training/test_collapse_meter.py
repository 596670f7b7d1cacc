"""What a run records of neural collapse is that of all its images, on any number of devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import unit_rows
from spa_jax.dynamics import collapse
from spa_jax.training import collapse_meter as meter
from spa_jax.training.config_limits import PARALLEL_MODES
from spa_jax.training.loop import run
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from tests.training.small import small_config
from tests.training.test_parallel import assert_close

pytestmark = pytest.mark.usefixtures("quick_compilation")


def measured(devices, **changes):
    """What the meter finds at the first state, and what is needed to find it otherwise."""
    config = small_config(**({"logging__collapse": True, "model__widths": (12,)} | changes))
    program = Program(config, devices=devices)
    state = program.init_state(config)
    return fetch(program.collapse(state)), program, state


@pytest.fixture(scope="module")
def one_device():
    return measured(jax.devices()[:1])


def in_one_go(program, state, examples):
    """Features of all images at once, unaugmented, in evaluation mode, and the measures of them."""
    images = program.feed.normalize(jnp.asarray(examples.images))
    features, _ = jax.jit(lambda v, x: program._model.apply(v, x, train=False))(
        jax.device_get(state.variables), images
    )
    weights, bias = meter.tested_classifier(state.variables, program.method)
    whole = collapse.NCState.create(10, features.shape[1]).update(features, examples.labels)
    found = collapse.metrics(whole, weights, bias)
    found["nc4"] = collapse.nc4(features, whole.mean, weights, bias)
    return found, whole


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_measures_are_those_of_all_images_at_once(part, one_device):
    found, program, state = one_device
    examples = {"train": program.data.train, "test": program.data.test}[part]
    expected, whole = in_one_go(program, state, examples)
    for name, value in found[part].items():
        if name != "mean_cosine":
            assert value == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-5), name
    np.testing.assert_allclose(found["geometry"][f"{part}_means"], whole.mean, atol=1e-5)
    assert int(whole.counts.sum()) == len(examples)  # and so the padding of a batch is not counted


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_eight_devices_measure_what_one_measures(mode, one_device):
    eight, _, _ = measured(jax.devices(), parallel=mode)
    assert_close(one_device[0], eight, 1e-4)


def test_the_cosine_of_the_training_set_is_that_of_its_clean_class_means(one_device):
    found, _, state = one_device
    kernel = np.asarray(state.params["head"]["kernel"], np.float64).T
    means = np.asarray(found["geometry"]["train_means"], np.float64)
    means = means - means.mean(axis=0)
    cosines = (
        (kernel * means).sum(1) / np.linalg.norm(kernel, axis=1) / np.linalg.norm(means, axis=1)
    )
    assert found["train"]["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-4)
    np.testing.assert_allclose(found["geometry"]["weights"][0], kernel, rtol=1e-6)


def test_a_cosine_heads_weights_count_as_the_unit_vectors_that_they_act_as():
    config = small_config(method__name="ldam_drw", method__drw_epoch=1)
    program = Program(config, devices=jax.devices()[:1])
    state = program.init_state(config)
    longer = jax.tree.map(lambda x: x * jnp.arange(1.0, 11.0)[None], state.params["head"])
    changed = state.replace(params=state.params | {"head": longer})
    weights, bias = meter.tested_classifier(changed.variables, program.method)
    kernel = state.params["head"]["kernel"]
    np.testing.assert_allclose(weights, unit_rows(kernel.T), atol=1e-6)
    assert not np.any(bias)


def test_glmc_is_measured_by_the_classifier_that_tests_it():
    config = small_config(method__name="glmc")
    program = Program(config, devices=jax.devices()[:1])
    state = program.init_state(config)
    weights, bias = meter.tested_classifier(state.variables, program.method)
    heads = state.params["head"]
    np.testing.assert_array_equal(weights, heads["fc_cb"]["kernel"].T)
    np.testing.assert_array_equal(bias, heads["fc_cb"]["bias"])


def test_a_run_records_it_at_each_epoch_and_leaves_the_geometry(tmp_path):
    run(small_config(logging__collapse=True), tmp_path, say=lambda line: None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert set(line["collapse"]) == {"train", "test"}
        for values in line["collapse"].values():
            assert {"nc1", "nc1_over_c", "nc2_etf_means", "nc3", "nc4"} <= set(values)
            assert all(isinstance(value, float) for value in values.values())
        assert -1 <= line["train_mean_cosine"] <= 1
    with np.load(tmp_path / "geometry.npz") as geometry:
        assert geometry["heads"].tolist() == ["head/kernel"]
        assert geometry["weights"].shape == (1, 10, 8)
        assert geometry["train_means"].shape == geometry["test_means"].shape == (10, 8)


def test_a_run_that_was_not_asked_to_measure_it_does_not(tmp_path):
    run(small_config(epochs=1), tmp_path, say=lambda line: None)
    assert "collapse" not in (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "geometry.npz").exists()

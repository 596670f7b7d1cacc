"""Heads that a configuration chooses: how they train, align and are measured; and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax import ClassMeans, class_cosines, spa_slerp
from spa_jax.longtail.registry import METHODS
from spa_jax.training import evaluation
from spa_jax.training.checking import prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.metrics import fetch
from tests.data.test_features import write_npz
from tests.parameters import first
from tests.refusals import refusal
from tests.training.small import small_config, small_program, take_steps
from tests.training.test_feature_banks import bank_config

# The variants of SpA that turn a kernel in three ways: by its gradient, by an update, by the loss.
CASES = {"normalised": "proj", "cosine": "slerp", "linear": "reg"}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("bank"))


@pytest.mark.parametrize("head", first(1, ["normalised", "cosine", "linear"]))
def test_every_head_learns_and_is_measured_by_the_weights_that_it_acts_with(bank, head):
    changes = {"model__name": "adapter", "model__head": head, "spa__method": CASES[head]}
    config = bank_config(bank, **changes)
    program = small_program(config)
    states, metrics = take_steps(program, program.init_state(config), 4, at=0, measured=True)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    before, after = (states[i].params["head"] for i in (0, -1))
    assert np.all(np.linalg.norm(after["kernel"] - before["kernel"], axis=0) > 1e-4)
    assert ("scale" in after) == (head != "linear")
    if head != "linear":
        assert after["scale"] != before["scale"]
    state = jax.tree.map(jnp.asarray, states[-1])
    weights, bias = fetch(evaluation.tested_classifier(state.variables, program.method))
    model, images = prepare_run(resolve(config), program.data).model, program.data.test.images
    features = np.asarray(model.apply(state.variables, jnp.asarray(images), train=False)[0])
    if head == "cosine":
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = program.logits(state, "test")
    np.testing.assert_allclose(features @ weights.T + bias, expected, atol=1e-4)
    # The cosines of a report are those of the kernel, whose directions the acting weights have.
    report = fetch(program.evaluate(state))
    found = class_cosines({"head": {"kernel": weights.T}}, state.class_means)
    np.testing.assert_allclose(report["cosines"][0], found, atol=1e-5)


def test_a_rotation_turns_a_weight_that_acts_at_length_one_by_its_angle():
    generator = np.random.default_rng(0)
    kernel, targets = generator.normal(size=(2, 6, 4)).astype(np.float32)
    params = {"head": {"kernel": kernel, "bias": np.ones(4, np.float32), "scale": np.float32(3)}}
    means = ClassMeans.create(4, 6).update(targets.T, np.arange(4))
    turned = spa_slerp(params, means, alpha=0.25, threshold=1.0)
    method = resolve(small_config(model__head="normalised")).longtail
    angles = [np.arccos(np.float64(class_cosines(of, means))) for of in (params, turned)]
    np.testing.assert_allclose(angles[1], 0.75 * angles[0], rtol=1e-4)
    weights, bias = evaluation.tested_classifier(jax.tree.map(jnp.asarray, turned), method)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 3.0, rtol=1e-5)
    acting = {"head": {"kernel": weights.T}}
    np.testing.assert_allclose(np.arccos(class_cosines(acting, means)), angles[1], rtol=1e-4)
    np.testing.assert_array_equal(bias, params["head"]["bias"])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_has_a_head_of_its_own_refuses_another(name):
    method = METHODS[name].make(METHODS[name].options())
    config = small_config(method__name=name, model__head="cosine", epochs=200)
    if method.head == "linear":
        chosen = resolve(config).longtail
        assert (chosen.head, chosen.kernels) == ("cosine", method.kernels)
    else:
        message = refusal(resolve, config)
        for part in (f"method {name} fixes its head", "config.model.head=cosine", "at auto"):
            assert part in message

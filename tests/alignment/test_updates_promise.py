"""What a last link of a chain promises about the step that is added to the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spa_jax

pytestmark = [
    pytest.mark.filterwarnings("ignore:spa_slerp.* turns a bfloat16 kernel"),
    pytest.mark.thorough,  # in `make test-all`, compiled as users compile it
]

COUNTS = np.array([80, 40, 20, 10, 5, 3])
C, D, IN = len(COUNTS), 8, 6
STEPS, BATCH = 100, 32
FLOOR = -1e-6

OPTIMISERS = {
    "sgd": lambda: optax.chain(optax.add_decayed_weights(5e-3), optax.sgd(0.2, momentum=0.9)),
    "adamw": lambda: optax.adamw(0.02, weight_decay=0.1),
    "muon": lambda: optax.contrib.muon(0.02, weight_decay=0.1),
}


@functools.cache
def long_tailed_data():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(C), COUNTS)
    inputs = 1.5 * rng.normal(size=(C, IN))[labels] + rng.normal(size=(len(labels), IN))
    noisy = rng.random(len(labels)) < 0.1
    labels = np.where(noisy, rng.integers(0, C, len(labels)), labels)
    return inputs.astype(np.float32), labels.astype(np.int32)


def initial_params(dtype=jnp.float32):
    rng = np.random.default_rng(1)
    body, head = 0.5 * rng.normal(size=(IN, D)), rng.normal(size=(D, C))
    params = {"body": {"kernel": body}, "head": {"bias": np.zeros(C), "kernel": head}}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def features_of(params, inputs):
    return jax.nn.relu(inputs.astype(params["body"]["kernel"].dtype) @ params["body"]["kernel"])


def loss(params, inputs, labels):
    head = params["head"]
    logits = features_of(params, inputs) @ head["kernel"] + head["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch_of(key):
    inputs, labels = map(jnp.asarray, long_tailed_data())
    chosen = jax.random.choice(key, len(labels), (BATCH,), replace=False)
    return inputs[chosen], labels[chosen]


def directional_derivatives(tx):
    """The derivative of each class's cosine along each of the steps taken, (STEPS, C)."""

    def step(carry, key):
        params, state, means = carry
        inputs, labels = batch_of(key)
        means = means.update(features_of(params, inputs), labels)
        grads = jax.grad(loss)(params, inputs, labels)
        updates, state = tx.update(grads, state, params, class_means=means)
        _, slope = jax.jvp(lambda p: spa_jax.class_cosines(p, means), (params,), (updates,))
        return (optax.apply_updates(params, updates), state, means), slope

    params = initial_params()
    means = spa_jax.ClassMeans.create(num_classes=C, dim=D)
    keys = jax.random.split(jax.random.key(2), STEPS)
    _, slopes = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(
        (params, tx.init(params), means)
    )
    return np.asarray(slopes)


@pytest.mark.parametrize(
    ("optimiser", "radial"),
    [("sgd", "scale"), ("adamw", "keep"), ("muon", "keep")],
)
def test_no_step_turns_a_class_away_from_its_mean_to_first_order(optimiser, radial):
    last = spa_jax.spa_proj(0.0, acts_on="updates", radial=radial)
    slopes = directional_derivatives(optax.chain(OPTIMISERS[optimiser](), last))
    assert slopes.min() >= FLOOR
    assert slopes.max() > 1e-3  # the steps still turn classes towards their means


@pytest.mark.parametrize("optimiser", list(OPTIMISERS))
def test_without_the_last_link_some_step_does(optimiser):
    tx = optax.with_extra_args_support(OPTIMISERS[optimiser]())
    assert directional_derivatives(tx).min() < -1e-3


def test_a_first_link_does_not_make_the_promise():
    tx = optax.chain(spa_jax.spa_proj(0.0), OPTIMISERS["adamw"]())
    assert directional_derivatives(tx).min() < FLOOR


def test_a_share_that_is_kept_breaks_the_promise():
    last = spa_jax.spa_proj(0.5, acts_on="updates")
    slopes = directional_derivatives(optax.chain(OPTIMISERS["sgd"](), last))
    assert slopes.min() < FLOOR


def spacing(values):
    """The distance of neighbouring bf16 numbers at each value."""
    _, exponent = np.frexp(values)
    return np.ldexp(1.0, exponent - 8)


def as_f64(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize(
    ("optimiser", "dtype"),
    [("sgd", jnp.float32), ("adamw", jnp.bfloat16), ("muon", jnp.float32)],
)
def test_the_slerp_link_equals_the_function_after_apply_updates(optimiser, dtype):
    alpha, threshold = 0.1, 0.95
    base = optax.with_extra_args_support(OPTIMISERS[optimiser]())
    last = spa_jax.spa_slerp_transform(alpha, threshold)

    @jax.jit
    def both(params, state, means, key):
        inputs, labels = batch_of(key)
        means = means.update(features_of(params, inputs), labels)
        grads = jax.grad(loss)(params, inputs, labels)
        updates, state = base.update(grads, state, params, class_means=means)
        moved = optax.apply_updates(params, updates)
        expected = spa_jax.spa_slerp(moved, means, alpha, threshold)
        updates, _ = last.update(updates, last.init(params), params, class_means=means)
        return moved, expected, optax.apply_updates(params, updates), state, means

    params = initial_params(dtype)
    state = base.init(params)
    means = spa_jax.ClassMeans.create(num_classes=C, dim=D)
    turned = 0
    for key in jax.random.split(jax.random.key(3), 10):
        before = as_f64(params["head"]["kernel"])
        moved, expected, params, state, means = both(params, state, means, key)
        assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, moved)
        want, got = as_f64(expected["head"]["kernel"]), as_f64(params["head"]["kernel"])
        # An update is itself rounded: one ulp at the larger end of the step.
        larger = np.maximum(np.abs(want), np.abs(before))
        allowed = spacing(larger) if dtype == jnp.bfloat16 else 1e-6
        assert np.all(np.abs(want - got) <= allowed)
        np.testing.assert_array_equal(moved["body"]["kernel"], params["body"]["kernel"])
        turned += np.sum(np.abs(want - as_f64(moved["head"]["kernel"])) > 1e-3)
    assert turned > 10 * C

"""What the tests of feeds share: states, epochs of batches, and a few steps on some devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from spa_jax.training.state import TrainState
from tests.training.small import small_config


def one_device():
    return Layout("jit", jax.devices()[:1])


def feed_of(layout=None, **changes):
    """The feed of a small run, on one device unless a layout says otherwise."""
    return Program(small_config(**changes), layout=layout or one_device()).feed


def state_at(step, seed=0):
    """As much of a state as feeds and inputs look at."""
    return TrainState(jnp.int32(step), {}, {}, {}, {}, {}, jax.random.key(seed), {})


def batches_of(feed, epochs=(0,), seed=0):
    """The host copies of the batches of some epochs on one device, stacked."""
    get, found = jax.jit(feed.batch), []
    for epoch in epochs:
        first = epoch * feed.steps_per_epoch
        for i, inputs in enumerate(feed.batches(state_at(first, seed), seed, epoch)):
            found.append(get(state_at(first + i, seed), inputs))
    feed.close()
    return jax.tree.map(lambda *parts: np.stack(parts), *jax.device_get(found))


def after_steps(program, steps):
    """The host copies of the state and the totals after some steps from the start."""
    state, totals = program.init_state(program.config), program.zero_totals
    epochs = (program.batches(state, program.config.seed, epoch) for epoch in itertools.count())
    for inputs in itertools.islice(itertools.chain.from_iterable(epochs), steps):
        state, totals = program.train_step(state, totals, inputs)
    program.feed.close()
    return jax.device_get((state.replace(rng=jax.random.key_data(state.rng)), totals))


def assert_close(one, other, tolerance):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        scale = max(1.0, np.abs(a).max())
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * scale, err_msg=name)

"""What the tests of feeds share: states, epochs of batches, and a few steps on some devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from spa_jax.training.metrics import fetch
from spa_jax.training.rundir.checkpoints import serializable
from spa_jax.training.state import TrainState
from tests.training.small import small_config, small_program


def feed_of(**changes):
    """The feed of a small run on one device."""
    return small_program(small_config(**changes)).feed


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
    return jax.tree.map(lambda *parts: np.stack(parts), *fetch(found))


def after_steps(program, steps):
    """The host copies of the state and the totals after some steps from the start."""
    state, totals = program.init_state(program.config), program.zero_totals
    epochs = (program.batches(state, program.config.seed, epoch) for epoch in itertools.count())
    for inputs in itertools.islice(itertools.chain.from_iterable(epochs), steps):
        state, totals = program.train_step(state, totals, inputs)
    program.feed.close()
    return fetch((serializable(state), totals))

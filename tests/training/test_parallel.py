"""The three views of a step agree: eight devices give what one gives."""

import jax
import numpy as np
import pytest

from spa_jax.errors import InputError
from spa_jax.longtail.registry import METHODS
from spa_jax.training.devices import PARALLEL_MODES, Layout
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import serializable
from tests.parameters import first
from tests.training.small import assert_close, deferral, small_config, small_program

# What a view could get wrong, and in which views that is looked at.
MECHANISMS = {
    # The gradient of a term that every device has whole; statistics, means and randomness.
    "loss term": ({"spa__method": "reg"}, PARALLEL_MODES),
    # Sums over the batch inside a loss, partners that are in the parts of other devices, and
    # class means of a forward of their own. GLMC's two views are a test of streams.
    "weighted mean": (
        {
            "method__name": "ldam_drw",
            "method__ldam_drw__epoch": 0,
            "augment__mix": "mixup",
            "augment__flip": False,
            "augment__crop_padding": 0,
            "spa__method": "proj",
            "spa__means_from": "clean",
        },
        ("pmap",),
    ),
    # Statistics of micro-batches, each of which is on all devices, and counts of the whole batch.
    "micro-batches": (
        {
            "accumulation_steps": 2,
            "method__name": "arb",
            "augment__mix": "mixup",
            "spa__method": "reg",
        },
        ("jit", "pmap"),
    ),
    # A loss that compares what is on different devices, and two views of each image.
    "contrast": (
        # Wider, since a feature close to zero has a direction that rounding turns.
        {"method__name": "bcl", "spa__method": "slerp", "model__small__widths": (16,)},
        ("shard_map",),
    ),
}


def after_three_steps(num_devices, **changes):
    """The host copy of the state, the totals and the report after three steps."""
    # A small rate, so that the steps do not amplify the rounding of another order of sums; batches
    # of 56 test images, so that the last of 11 is padded by 16.
    config = small_config(optimizer__learning_rate=0.02, eval_batch_size=56, **changes)
    program = small_program(config, num_devices)
    state, totals = program.init_state(config), program.zero_totals
    inputs = next(program.batches(state, config.seed, 0))
    for _ in range(3):
        state, totals = program.train_step(state, totals, inputs)
    totals = program.measure(state, totals)
    return fetch((serializable(state), totals, program.evaluate(state)))


@pytest.mark.parametrize("name", first(1, MECHANISMS))
def test_eight_devices_give_what_one_gives(name):
    """Momentum too, so that gradients do not grow with the number of devices."""
    assert_equal_on_eight_devices(*MECHANISMS[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_equal_on_eight_devices(method):
    variant = "none" if method == "etf" else "proj"
    changes = {"method__name": method, "spa__method": variant, "model__small__widths": (16,)}
    changes |= deferral(method, 0)
    assert_equal_on_eight_devices(changes, PARALLEL_MODES)


def assert_equal_on_eight_devices(changes, modes):
    one = after_three_steps(1, **changes)
    state, totals, report = one
    assert np.abs(state.class_means.mean).max() > 0.1
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(state.opt_state)) > 1e-2
    assert int(totals.steps) == 3
    # Every test image counts once, whatever the padding.
    np.testing.assert_array_equal(report["count"], np.full(10, 60.0))
    for mode in modes:
        assert_close(one, after_three_steps(8, parallel=mode, **changes), 1e-5)


def test_a_batch_that_the_devices_cannot_share_is_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"batch_size=60 .* 8 devices"):
        Program(small_config(batch_size=60))


@pytest.mark.thorough
def test_initial_values_that_are_made_soon_are_those_that_are_made_fast():
    def draw(seed):
        return jax.nn.initializers.he_normal()(jax.random.key(seed), (3, 3, 8, 16))

    soon = Layout("jit", jax.devices()[:1]).compile(draw, called_once=True)
    fast = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 3})
    np.testing.assert_array_equal(soon(np.uint32(7)), fast(np.uint32(7)))

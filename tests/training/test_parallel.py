"""The three views of a step agree, on one device and on eight."""

import jax
import numpy as np
import pytest

from spa_jax.alignment.kernels import path_names
from spa_jax.errors import InputError
from spa_jax.training.config_limits import PARALLEL_MODES
from spa_jax.training.program import Program
from tests.training.small import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


def states_after(steps, devices, **changes):
    """The host copy of the state and the totals after some steps."""
    # A small step, so that five of them do not amplify the rounding of another order of sums.
    config = small_config(**({"optimizer__learning_rate": 0.02} | changes))
    program = Program(config, devices=devices)
    state, totals = program.init_state(config), program.zero_totals
    inputs = next(program.batches(state, config.seed, 0))
    for _ in range(steps):
        state, totals = program.train_step(state, totals, inputs)
    report = program.evaluate(state)
    plain = state.replace(rng=jax.random.key_data(state.rng))
    return jax.device_get((plain, totals, report))


def assert_close(one, other, tolerance):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        scale = max(1.0, np.abs(a).max())
        np.testing.assert_allclose(
            b, a, rtol=0, atol=tolerance * scale, err_msg=path_names(path)[0]
        )


@pytest.fixture(scope="module")
def one_device():
    """What one device gives under `jit`, computed once a method."""
    known = {}

    def get(method):
        if method not in known:
            known[method] = states_after(5, jax.devices()[:1], spa__method=method)
        return known[method]

    return get


@pytest.mark.parametrize("method", ["reg", "slerp", "proj"])
@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_eight_devices_give_what_one_gives(mode, method, one_device):
    state, totals, report = one_device(method)
    eight = states_after(5, jax.devices(), parallel=mode, spa__method=method)
    assert np.abs(state.class_means.mean).max() > 0.1
    assert int(totals.steps) == 5
    assert_close((state, totals, report), eight, 1e-5)


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_one_device_gives_the_same_in_every_view(mode, one_device):
    again = states_after(5, jax.devices()[:1], parallel=mode, spa__method="proj")
    assert_close(one_device("proj"), again, 1e-5)


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_gradients_do_not_grow_with_the_number_of_devices_under_adamw(mode):
    """After one step Adam's first moment is (1 - b1) times the gradient."""
    changes = {"optimizer__name": "adamw", "optimizer__learning_rate": 1e-3}
    one, _, _ = states_after(1, jax.devices()[:1], **changes)
    eight, _, _ = states_after(1, jax.devices(), parallel=mode, **changes)
    moments = [s.opt_state[0][0].mu for s in (one, eight)]
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(moments[0])) > 1e-3
    assert_close(moments[0], moments[1], 1e-5)


def test_a_batch_that_the_devices_cannot_share_is_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"batch_size=60 .* 8 devices"):
        Program(small_config(batch_size=60))


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_every_test_image_counts_once_whatever_the_padding(mode):
    config = small_config(parallel=mode, eval_batch_size=56)  # 600 images: 11 batches, 16 padded
    program = Program(config)
    report = jax.device_get(program.evaluate(program.init_state(config)))
    np.testing.assert_array_equal(report["count"], np.full(10, 60.0))

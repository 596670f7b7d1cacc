"""Where there is an accelerator, it computes what a CPU computes; `make test-device` asks there."""

import jax
import numpy as np
import pytest

from spa_jax.training.devices import Layout
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from tests.training.small import small_config, take_steps

pytestmark = pytest.mark.device


def after_three_steps(device, **changes):
    config = small_config(optimizer__learning_rate=0.02, augment__flip=False, **changes)
    program = Program(config, layout=Layout("jit", [device]))
    state = program.init_state(config)
    assert state.params["head"]["kernel"].devices() == {device}
    states, metrics = take_steps(program, state, 3, measured=True)
    return states[-1].params, metrics[-1], fetch(program.evaluate(program.init_state(config)))


@pytest.mark.thorough
def test_the_default_device_computes_what_a_cpu_does():
    """On a machine without an accelerator, one emulated device what another does."""
    changes = {"spa__method": "proj", "data__n_max": 60, "data__imbalance_factor": 5.0}
    found, expected = (
        after_three_steps(device, **changes)
        for device in (jax.devices()[0], jax.devices("cpu")[-1])
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(1.0, np.abs(b).max())),
        found,
        expected,
    )

"""Members of one program: the numbers of runs of their own, whole members on each device."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.training.devices import OWN, SHARED, CannotTrainTogether, Layout
from spa_jax.training.program import Program
from spa_jax.training.state import STATE_PLACES
from tests.refusals import refusal
from tests.training.small import small_config, small_program

REPOSITORY = Path(__file__).parents[2]


def three_configs():
    """Runs that differ in everything that a program is given."""
    rows = {
        "spa__slerp__alpha_max": (0.1, 0.5, 0.5),
        "spa__slerp__threshold": (0.9, 0.9, 0.3),
        "seed": (0, 7, 7),
        # Small, so that steps do not amplify the rounding of another order of sums.
        "optimizer__learning_rate": (0.03, 0.01, 0.02),
        "optimizer__weight_decay": (0.0, 5e-4, 1e-1),
    }
    return [
        small_config(spa__method="slerp", **dict(zip(rows, values, strict=True)))
        for values in zip(*rows.values(), strict=True)
    ]


def after_three_steps(program, configs):
    """For each run the host copies of its state, its last metrics and its report."""
    state, totals = program.init_state(*configs), program.zero_totals
    inputs = next(iter(program.batches(state, configs[0].seed, 0)))
    for _ in range(3):
        state, totals = program.train_step(state, totals, inputs)
    totals, report = program.measure(state, totals), program.evaluate(state)
    state = state.replace(rng=jax.random.key_data(state.rng))
    state, last, report = jax.device_get((state, totals.last, report))
    unstack = program.layout.unstack
    return list(zip(unstack(state, STATE_PLACES), unstack(last), unstack(report), strict=True))


def test_members_get_the_numbers_of_runs_of_their_own():
    """Five members on two devices, so that one place is filled up."""
    configs = three_configs()
    five = [*configs, configs[0], configs[1]]
    program = Program(configs[0], layout=Layout("vmap", jax.devices()[:2], len(five)))
    members = after_three_steps(program, five)
    assert len(members) == program.layout.size == 6
    single = small_program(configs[0], data=program.data)
    finals = []
    for i, config in enumerate(configs):
        (own,) = after_three_steps(single, [config])
        finals.append(own[0].params["head"]["kernel"])
        leaves = jax.tree_util.tree_leaves_with_path(own)
        for (path, leaf), other in zip(leaves, jax.tree.leaves(members[i]), strict=True):
            scale = max(1.0, np.abs(np.nan_to_num(leaf)).max())
            name = f"member {i}: {jax.tree_util.keystr(path)}"
            np.testing.assert_allclose(other, leaf, rtol=0, atol=1e-5 * scale, err_msg=name)
    # They were different runs, by more than that tolerance.
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(finals[one] - finals[other]).max() > 1e-4
    for copy, original in ((3, 0), (4, 1), (5, 1)):
        jax.tree.map(np.testing.assert_array_equal, members[copy], members[original])


IN_FLOAT64 = """
import jax
import jax.numpy as jnp
import numpy as np
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from tests.training.small import small_config, small_program



def widen(leaf):
    return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf


def params_after_50_steps(program, configs):
    # Everything that a step reads in float64 makes all that it computes float64.
    state = jax.tree.map(widen, program.init_state(*configs))
    totals, steps = jax.tree.map(widen, program.zero_totals), 0
    for epoch in range(10):
        for inputs in program.batches(state, configs[0].seed, epoch):
            state, totals = program.train_step(state, totals, inputs)
            steps += 1
    assert steps == 50
    states = program.layout.unstack(jax.device_get(state.params))
    return states[: len(configs)]


configs = [
    small_config(
        model__small__widths=(4,), epochs=10, spa__method="proj", spa__proj__gamma=gamma, seed=seed
    )
    for gamma, seed in ((0.1, 0), (0.9, 1))
]
program = Program(configs[0], layout=Layout("vmap", members=2))
single = small_program(configs[0], data=program.data)
for config, together in zip(configs, params_after_50_steps(program, configs), strict=True):
    (alone,) = params_after_50_steps(single, [config])
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        assert one.dtype == other.dtype == np.float64
        print(np.abs(one - other).max())
"""


@pytest.mark.thorough
def test_in_float64_fifty_steps_together_are_those_of_single_runs_to_1e_10():
    """What differs in float32 after many steps is rounding that training amplifies."""
    result = subprocess.run(
        [sys.executable, "-c", IN_FLOAT64],
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    differences = [float(line) for line in result.stdout.split()]
    assert len(differences) == 2 * 11  # each of the parameters, for each member
    assert max(differences) <= 1e-10


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 50))
def test_places_are_filled_up_with_the_last_member(num_members, num_devices, fewer):
    layout = Layout("vmap", jax.devices()[:num_devices], num_members)
    assert num_members <= layout.size < num_members + num_devices
    given_members = max(1, num_members - fewer)
    placed = layout.stack([{"a": np.float32(i)} for i in range(given_members)])
    expected = [min(i, given_members - 1) for i in range(layout.size)]
    np.testing.assert_array_equal(placed["a"], expected)
    (on_each,) = {shard.data.shape[0] for shard in placed["a"].addressable_shards}
    assert on_each * layout.mesh.size == layout.size
    fetched = {"a": np.asarray(placed["a"]), "b": 7}
    found = layout.unstack(fetched, {"a": OWN, "b": SHARED})
    assert found == [{"a": i, "b": 7} for i in expected]


def test_a_batch_need_not_be_shared_by_the_devices_that_share_the_members():
    program = Program(small_config(batch_size=60), layout=Layout("vmap", members=8))
    assert program.layout.size == program.layout.mesh.size == 8
    assert program.steps_per_epoch == 6
    assert program.layout.num_devices == 1


def test_runs_that_cannot_be_one_program_are_refused():
    with pytest.raises(CannotTrainTogether, match=r"streamed: .*config.data.feed=device"):
        Program(small_config(data__feed="stream"), layout=Layout("vmap", members=2))
    per_device = small_config(parallel="shard_map", model__batch_norm="per_device")
    with pytest.raises(CannotTrainTogether, match="batch_norm=per_device"):
        Program(per_device, layout=Layout("vmap", members=2))
    best = small_config(data__validation=True, checkpoint__keep_best=True)
    with pytest.raises(CannotTrainTogether, match="keep_best"):
        Program(best, layout=Layout("vmap", members=2))
    program = Program(small_config(), layout=Layout("vmap", members=2))
    assert "epochs" in refusal(program.init_state, small_config(), small_config(epochs=3))

"""A state that is cut over a mesh gives what one device gives, and its checkpoints fit either."""

import itertools

import jax
import numpy as np
import pytest

from spa_jax.errors import InputError
from spa_jax.training.checking import check_run, check_runs
from spa_jax.training.devices import CannotTrainTogether
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.metrics import fetch
from spa_jax.training.rundir.checkpoints import (
    Checkpoints,
    read_arrays,
    serializable,
    tree_checksum,
)
from tests.parameters import first
from tests.training.small import noisy_program, small_config
from tests.training.test_parallel import assert_close

CUT = {"mesh__classes": 4, "mesh__fsdp": True}


def steps(program, state, number=3):
    totals, inputs = program.zero_totals, next(program.batches(state, 0, 0))
    for _ in range(number):
        state, totals = program.train_step(state, totals, inputs)
    return state, totals


def after_three_steps(num_devices, **changes):
    """The host copy of the state, the totals and the report."""
    program = noisy_program(num_devices, optimizer__learning_rate=0.05, **changes)
    state, totals = steps(program, program.init_state(program.config))
    return fetch((serializable(state), program.measure(state, totals), program.evaluate(state)))


@pytest.mark.parametrize(
    "changes",
    first(
        1,
        [
            {
                "spa__method": "slerp",
                "spa__slerp__alpha_max": 0.5,
                "optimizer__ema": 0.9,
                "accumulation_steps": 2,
            },
            {"spa__method": "reg", "augment__mix": "mixup"},
        ],
    ),
    ids=["slerp", "reg"],
)
def test_a_state_that_is_cut_by_class_gives_what_one_device_gives(changes):
    one = after_three_steps(1, **changes)
    assert np.abs(one[0].class_means.mean).max() > 0.1
    assert_close(one, after_three_steps(8, mesh__classes=4, **changes), 1e-5)


@pytest.fixture(scope="module")
def programs():
    """Of one configuration, on one device, on eight, and on eight over which the state is cut."""
    proj = {"spa__method": "proj", "optimizer__learning_rate": 0.05}
    return {
        "one": noisy_program(1, **proj),
        "eight": noisy_program(8, **proj),
        "cut": noisy_program(8, **proj, **CUT),
    }


def test_a_device_holds_its_part_of_the_state_alone(programs):
    program = programs["cut"]
    state, _ = steps(program, program.init_state(program.config), 1)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(serializable(state)))
    device = jax.devices()[0]
    held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(serializable(state))
        for shard in leaf.addressable_shards
        if shard.device == device
    )
    # Of the network and its momentum a half, of the head an eighth, of class means a fourth.
    assert held < 0.5 * whole
    kernel, means = state.params["head"]["kernel"], state.class_means.mean
    assert kernel.addressable_shards[0].data.shape == (6, 64)
    assert means.addressable_shards[0].data.shape == (64, 12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("saved", "goes_on"), list(itertools.permutations(["one", "eight", "cut"], 2))
)
def test_a_checkpoint_goes_on_elsewhere_with_the_same_numbers(saved, goes_on, programs, tmp_path):
    first, second = programs[saved], programs[goes_on]
    state, _ = steps(first, first.init_state(first.config))
    with Checkpoints(tmp_path, 1, say=print) as checkpoints:
        checkpoints.save(state)
    fresh = second.init_state(second.config, resumed=True)
    with Checkpoints(tmp_path, 1, say=print) as checkpoints:
        restored, step = checkpoints.restore_newest(fresh)
    assert step == 3
    assert tree_checksum(serializable(restored)) == tree_checksum(serializable(state))
    for leaf, place in zip(jax.tree.leaves(restored), jax.tree.leaves(fresh), strict=True):
        assert leaf.sharding.is_equivalent_to(place.sharding, leaf.ndim)
    here, there = (steps(p, s, 1) for p, s in ((first, state), (second, restored)))
    one, other = (fetch((serializable(s), t)) for s, t in (here, there))
    assert_close(one, other, 1e-6)


@pytest.mark.thorough
def test_a_run_goes_on_over_another_mesh(programs, tmp_path):
    cut, one = programs["cut"], programs["one"]
    with pytest.raises(RunStopped):
        run(cut.config, tmp_path, cut, say=lambda line: None, keep_going=lambda: False)
    said = []
    summary = run(one.config, tmp_path, one, say=said.append)
    assert any("after epoch 1" in line for line in said)
    assert summary["epochs"] == 2
    assert summary["hardware"]["devices"] == 1
    further = noisy_program(8, init__run=str(tmp_path), **CUT)
    kernel = further.init_state(further.config).params["head"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (6, 64)
    found = read_arrays(tmp_path / "checkpoints" / str(summary["steps"]))["params/head/kernel"]
    np.testing.assert_array_equal(kernel, found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mesh__classes": 2, "parallel": "shard_map"}, "each has all of it: set parallel to jit"),
        ({"mesh__fsdp": True, "parallel": "pmap"}, "set parallel to jit"),
        ({"mesh__classes": 2, "logging__collapse": True}, "collapse compares every two classes"),
        ({"mesh__classes": 4}, "classes=4 cannot share 10 classes evenly"),
        ({"mesh__classes": 3}, r"classes=3 do not share out 8 device\(s\)"),
        (
            {"mesh__fsdp": True, "mesh__classes": 8},
            "classes=8 leaves one part: lower that",
        ),
        ({"mesh__data": 2}, r"data=2 and config.mesh.classes=1 do not share out 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(changes, reason):
    with pytest.raises(InputError, match=reason):
        check_run(small_config(**changes))


def test_runs_over_a_mesh_are_not_trained_together():
    with pytest.raises(CannotTrainTogether, match="one after another"):
        check_runs([small_config(mesh__classes=2)], together=True)

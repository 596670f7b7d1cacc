"""A step that would spoil the state is skipped: nothing of it stays, and it is counted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment.kernels import path_names
from spa_jax.training.checking import check_run
from spa_jax.training.devices import Layout
from spa_jax.training.guard import Guard
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import serializable
from tests.parameters import first
from tests.refusals import refusal
from tests.training.small import small_config, small_program

SKIP = {"guard__action": "skip", "guard__window": 2}


def reference(losses, norms, window, factor):
    """Which steps are taken, from the definition."""
    seen, taken = [], []
    for loss, norm in zip(losses, norms, strict=True):
        full = len(seen) >= window
        median = np.median(seen[-window:]) if full else 0.0
        spike = bool(factor) and median > 0 and norm > factor * median
        taken.append(bool(np.isfinite(loss) and np.isfinite(norm) and not spike))
        seen += [norm] if taken[-1] else []
    return taken


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_spikes_and_what_is_not_finite_are_skipped_and_leave_the_window(factor):
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0.0, 1.2, 200)).astype(np.float32)
    losses = np.ones(200, np.float32)
    norms[[20, 60]], losses[[21, 90]], norms[100:108] = np.inf, np.nan, 0.0

    def see(guard, step):
        guard, taken = guard.see(*step, spike_factor=factor)
        return guard, (taken, guard.skipped, guard.in_a_row)

    _, (taken, skipped, in_a_row) = jax.lax.scan(see, Guard.create(5), (losses, norms))
    expected = reference(losses, norms, 5, factor)
    assert taken.tolist() == expected
    assert 4 <= expected.count(False) < 100
    np.testing.assert_array_equal(skipped, np.cumsum(~np.array(expected)))
    last_taken = np.maximum.accumulate(np.where(expected, np.arange(200), -1))
    np.testing.assert_array_equal(in_a_row, np.arange(200) - last_taken)


def poisoned(program, state, value):
    """The state with a parameter that spoils the next step."""
    head = dict(state.params["head"])
    head["bias"] = head["bias"].at[..., 0].set(value)
    return state.replace(params=state.params | {"head": head})


def assert_same_bits(one, other, but):
    one, other = (fetch(serializable(state)) for state in (one, other))
    leaves = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(leaves, jax.tree.leaves(other), strict=True):
        if not path_names(path)[0].startswith(but):
            assert a.tobytes() == b.tobytes(), path_names(path)[0]


@pytest.mark.parametrize("mode", first(1, ["jit", "shard_map", "pmap"]))
def test_a_skipped_step_changes_the_counters_alone(mode):
    """Whatever it would have changed: statistics, momentum, class means, averages, schedules."""
    slerp = {"spa__method": "slerp", "optimizer__ema": 0.9}
    config = small_config(parallel=mode, **SKIP, **slerp)
    program = small_program(config, num_devices=2)
    state, totals = program.init_state(config), program.zero_totals
    inputs = next(program.batches(state, config.seed, 0))
    state, totals = program.train_step(state, totals, inputs)
    state = poisoned(program, state, jnp.nan)
    before = jax.tree.map(jnp.copy, state)
    state, totals = program.train_step(state, totals, inputs)
    assert_same_bits(before, state, ("step", "guard/skipped", "guard/in_a_row"))
    assert (int(state.step), int(state.guard.skipped), int(state.guard.in_a_row)) == (2, 1, 1)
    assert (int(totals.steps), int(totals.bad_step)) == (1, -1)
    assert np.isfinite(totals.loss) and np.isnan(totals.last["loss"])
    # And one that is taken changes all of them.
    state, totals = program.train_step(poisoned(program, state, 0.0), totals, inputs)
    moved = np.asarray(state.params["head"]["kernel"]) - np.asarray(before.params["head"]["kernel"])
    assert np.abs(moved).max() > 0
    assert (int(state.guard.skipped), int(state.guard.in_a_row), int(totals.steps)) == (1, 0, 2)
    np.testing.assert_array_equal(np.isfinite(state.guard.norms), [True, True])


@pytest.mark.thorough
def test_of_members_each_skips_its_own_steps():
    configs = [small_config(seed=seed, guard__limit=1, **SKIP) for seed in range(3)]
    program = Program(configs[0], None, Layout("vmap", jax.devices()[:1], members=3))
    state, totals = program.init_state(*configs), program.zero_totals
    inputs = next(program.batches(state, 0, 0))
    bias = state.params["head"]["bias"].at[1, 0].set(jnp.inf)
    state = state.replace(params=state.params | {"head": state.params["head"] | {"bias": bias}})
    before = fetch(state.params)
    state, totals = program.train_step(state, totals, inputs)
    for member, changed in enumerate((True, False, True)):
        kernels = (tree["head"]["kernel"][member] for tree in (before, fetch(state.params)))
        assert np.array_equal(*kernels) != changed
    assert state.guard.skipped.tolist() == [0, 1, 0]
    assert totals.bad_step.tolist() == [-1, 1, -1]


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.thorough
def test_skipped_steps_are_counted_over_a_stop_and_too_many_in_a_row_stop_the_run(tmp_path):
    """A factor of 1 makes about every second step a spike."""
    config = small_config(guard__spike_factor=1.0, guard__limit=9, **SKIP)
    program = small_program(config)

    def train(name, keep_going=lambda: True, **changes):
        changed = small_config(guard__spike_factor=1.0, guard__limit=9, **SKIP, **changes)
        return run(changed, tmp_path / name, program, lambda line: None, keep_going=keep_going)

    whole = train("whole")
    with pytest.raises(RunStopped):
        train("broken", keep_going=lambda: False)
    broken = train("broken")
    assert whole["params_checksum"] == broken["params_checksum"]
    counts = [line["skipped_steps"] for line in lines_of(tmp_path / "whole")]
    assert counts == [line["skipped_steps"] for line in lines_of(tmp_path / "broken")]
    assert 0 < counts[0] < counts[1] == whole["skipped_steps"] == broken["skipped_steps"] < 10
    with pytest.raises(FloatingPointError, match=r"in a row as config\.guard\.limit .* step \d+;"):
        train("endless", optimizer__learning_rate=1e20, epochs=2)
    assert not (tmp_path / "endless" / "summary.json").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"guard__limit": 3}, ("config.guard.limit=3", "config.guard.action=skip")),
        (SKIP | {"guard__spike_factor": 0.5}, ("spike_factor=0.5", "choose 1 or more")),
        (
            SKIP | {"guard__spike_factor": 0.0, "guard__window": 8},
            ("config.guard.window=8", "spike_factor=0: leave it out"),
        ),
    ],
)
def test_options_of_skipping_that_do_nothing_or_too_much_are_refused(changes, parts):
    message = refusal(check_run, small_config(**changes))
    assert all(part in message for part in parts)

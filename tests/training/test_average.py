"""Averaged parameters: what they are, that they are evaluated, and that a checkpoint holds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax import class_cosines
from spa_jax.training.checking import prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.devices import Layout
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import array_shapes, read_arrays, read_record
from tests.data.test_features import write_npz
from tests.training.small import assert_close, small_config, small_program, take_steps
from tests.training.test_feature_banks import bank_config

DECAY = 0.35


@pytest.fixture(scope="module")
def program():
    return small_program(small_config(optimizer__ema=DECAY, spa__method="proj"))


@pytest.fixture(scope="module")
def states(program):
    """Before, between and after three steps."""
    return take_steps(program, program.init_state(program.config), 3, at=None)[0]


def averages(states):
    """By the formula, in float64: from the start on, of all that steps change."""
    found = jax.tree.map(np.float64, fetch((states[0].params, states[0].batch_stats)))
    for t, state in enumerate(states[1:], start=1):
        kept = min(DECAY, (1 + t) / (10 + t))
        now = fetch((state.params, state.batch_stats))
        found = jax.tree.map(lambda old, new, d=kept: d * old + (1 - d) * new, found, now)
    return found


def test_an_average_is_that_of_the_formula_and_short_at_first(states):
    params, batch_stats = averages(states)
    assert_close(params, states[-1].average["params"], 1e-6)
    assert_close(batch_stats, states[-1].average["batch_stats"], 1e-6)
    moved = states[-1].params["head"]["kernel"] - params["head"]["kernel"]
    assert np.abs(moved).max() > 1e-3


def test_averages_are_evaluated_and_their_cosines_reported(program, states):
    state = jax.tree.map(jnp.asarray, states[-1])
    params, batch_stats = jax.tree.map(np.float32, averages(states))
    model = prepare_run(resolve(program.config), program.data).model
    images = program.feed.normalize(jnp.asarray(program.data.test.images))
    applied = {"params": params, "batch_stats": batch_stats}
    _, expected = jax.jit(model.apply, static_argnames="train")(applied, images, train=False)
    np.testing.assert_allclose(program.logits(state, "test"), expected, atol=1e-4)
    report = fetch(program.evaluate(state))
    cosines, live = (class_cosines(tree, state.class_means) for tree in (params, state.params))
    np.testing.assert_allclose(report["cosines"][0], cosines, atol=1e-5)
    assert np.abs(live - cosines).max() > 1e-4


@pytest.mark.thorough
def test_members_of_one_program_have_averages_of_their_own(program, states):
    configs = [small_config(optimizer__ema=DECAY, spa__method="proj", seed=seed) for seed in (0, 1)]
    together = Program(configs[0], layout=Layout("vmap", jax.devices()[:1], members=2))
    state = take_steps(together, together.init_state(*configs), 3)[0][-1]
    found = jax.tree.map(lambda leaf: leaf[0], state.average)
    assert_close(states[-1].average, found, 1e-4)
    assert not np.allclose(*state.average["params"]["head"]["kernel"])


@pytest.mark.thorough
def test_a_run_that_goes_on_has_the_average_of_one_without_a_stop(program, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config = program.config
    run(config, whole, program, say=lambda line: None)
    with pytest.raises(RunStopped):
        run(config, broken, program, say=lambda line: None, keep_going=lambda: False)
    run(config, broken, program, say=lambda line: None)
    records = [read_record(folder / "checkpoints" / "10") for folder in (whole, broken)]
    assert records[0]["checksum"] == records[1]["checksum"]
    assert records[0]["shapes"]["average/params/head/kernel"] == [8, 10]
    # Another run starts from what was evaluated.
    first = small_program(small_config(init__run=str(whole))).first_run
    arrays = read_arrays(whole / "checkpoints" / "10")
    for path in array_shapes(first.variables):
        array = first.variables
        for key in path.split("/"):
            array = array[key]
        np.testing.assert_array_equal(array, arrays[f"average/{path}"])


def test_without_averages_a_state_and_its_checkpoint_know_nothing_of_them(tmp_path):
    bank = write_npz(tmp_path / "bank")
    config = bank_config(bank, epochs=1)
    plain = small_program(config)
    assert plain.init_state(config).average is None
    run(config, tmp_path / "run", plain, say=lambda line: None)
    place = tmp_path / "run/checkpoints/5"
    assert not any("average" in path for path in read_record(place)["shapes"])
    assert "average" not in (place / "state" / "_METADATA").read_text()

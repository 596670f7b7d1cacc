"""Checkpoints survive other devices, damage and half-written files."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from spa_jax.training.loop import run
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir import checkpoints
from spa_jax.training.rundir.checkpoints import Checkpoints, serializable, tree_checksum
from tests.refusals import refusal
from tests.training.small import small_config, small_program


@pytest.fixture(scope="module")
def program():
    return Program(small_config())


@pytest.fixture(scope="module")
def trained(program, tmp_path_factory):
    """A finished run with checkpoints of steps 5 and 10."""
    workdir = tmp_path_factory.mktemp("trained")
    run(small_config(), workdir, program, say=lambda line: None)
    return workdir


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that run from before its end: to be resumed."""
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return tmp_path / "run"


def restore(workdir, program, say=lambda line: None):
    with Checkpoints(workdir / "checkpoints", keep=2, say=say) as checkpoints:
        return checkpoints.restore_newest(program.init_state(small_config()))


def data_files(workdir, step):
    files = [p for p in (workdir / "checkpoints" / str(step)).rglob("*") if p.is_file()]
    return [p for p in files if "/d/" in p.as_posix()]


def damage_by_truncation(workdir, step):
    for file in data_files(workdir, step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_by_flipped_bits(workdir, step):
    for file in data_files(workdir, step):
        content = bytearray(file.read_bytes())
        for i in range(len(content) // 4, len(content), 97):
            content[i] ^= 0x10
        file.write_bytes(bytes(content))


def damage_by_missing_files(workdir, step):
    for file in data_files(workdir, step):
        file.unlink()


def damage_by_an_empty_folder(workdir, step):
    shutil.rmtree(workdir / "checkpoints" / str(step))
    (workdir / "checkpoints" / str(step)).mkdir()


def damage_by_another_state(workdir, step):
    """A whole, readable state, but not the one that its checksum speaks of."""
    folder = workdir / "checkpoints"
    shutil.rmtree(folder / str(step) / "state")
    shutil.copytree(folder / str(step - 5) / "state", folder / str(step) / "state")


@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncation,
        damage_by_flipped_bits,
        damage_by_missing_files,
        damage_by_an_empty_folder,
        damage_by_another_state,
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_taken(damage, copy, program):
    damage(copy, 10)
    said = []
    state, step = restore(copy, program, said.append)
    assert step == int(state.step) == 5
    assert "step 10 cannot be read" in said[0]
    assert "unreadable_checkpoints" in said[1]
    assert (copy / "unreadable_checkpoints" / "10").is_dir()
    assert not (copy / "checkpoints" / "10").exists()


def test_from_the_checkpoint_before_a_damaged_one_a_run_ends_as_it_would_have(
    copy, trained, program
):
    damage_by_truncation(copy, 10)
    summary = run(small_config(), copy, program, say=lambda line: None)
    finished = run(small_config(), trained, program, say=lambda line: None)
    assert summary["params_checksum"] == finished["params_checksum"]
    assert (copy / "unreadable_checkpoints" / "10").is_dir()
    assert (copy / "checkpoints" / "10").is_dir()


def test_a_half_written_checkpoint_is_passed_over_and_reported(copy, program):
    folder = copy / "checkpoints"
    (folder / "10").rename(folder / "10.orbax-checkpoint-tmp")
    said = []
    _, step = restore(copy, program, said.append)
    assert step == 5
    assert "10.orbax-checkpoint-tmp" in said[0]


@contextlib.contextmanager
def small_files():
    """No file grows beyond 1,000 bytes, which is the nearest to a full disk without one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_cannot_be_written_is_told_and_the_last_checkpoint_is_whole(
    copy, program, monkeypatch
):
    calls = []
    monkeypatch.setattr(checkpoints, "_end_in_time", lambda: calls.append("once"))
    state, _ = restore(copy, program)
    following = state.replace(step=np.int32(11))

    def save():
        with small_files(), Checkpoints(copy / "checkpoints", 2, pytest.fail) as saved:
            saved.save(following)

    assert restore(copy, program)[1] == 10
    assert not calls
    message = refusal(save)
    assert calls
    assert f"cannot be written to {copy / 'checkpoints'} (" in message
    assert "File too large" in message
    assert restore(copy, program)[1] == 10


def test_after_that_a_process_ends_even_if_threads_of_an_executor_never_do():
    code = (
        "import concurrent.futures, threading; from spa_jax.training.rundir import checkpoints;"
        "concurrent.futures.ThreadPoolExecutor().submit(threading.Event().wait);"
        "checkpoints._GRACE = 0.1; checkpoints._end_in_time(); print('the end', flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (2, "the end\n"), found.stderr


def test_the_newest_stay_and_the_one_that_was_named_best(program, tmp_path):
    state = program.init_state(small_config())

    def save(*steps):
        with Checkpoints(tmp_path, keep=1, say=pytest.fail) as checkpoints:
            for step, best in steps:
                checkpoints.save(state.replace(step=np.int32(step)))
                checkpoints.keep_best(best)
        return sorted(path.name for path in tmp_path.iterdir())

    assert save((1, 1), (2, 2), (3, 2), (4, 2)) == ["2", "4"]
    assert save((5, 5)) == ["5"]


def test_without_any_good_checkpoint_the_run_stops_and_leaves_everything(copy, program):
    for step in (5, 10):
        damage_by_missing_files(copy, step)
    before = sorted(path for path in copy.rglob("*") if path.is_file())
    message = refusal(run, small_config(), copy, program, say=lambda line: None)
    assert "None of the checkpoints" in message
    assert message.index("step 10: ") < message.index("step 5: ")
    assert sorted(path for path in copy.rglob("*") if path.is_file()) == before


def test_a_checkpoint_of_another_format_is_refused_and_left(copy, program, monkeypatch):
    monkeypatch.setattr("spa_jax.training.rundir.checkpoints.FORMAT", 4)
    message = refusal(restore, copy, program)
    assert "has format 3, and this version of spa_jax reads 4" in message
    assert (copy / "checkpoints" / "10").is_dir()


def test_a_checkpoint_of_another_network_is_refused_and_says_what_to_set(copy):
    wider = small_config(model__small__widths=(4,))
    other = small_program(wider)
    with Checkpoints(copy / "checkpoints", keep=2, say=print) as checkpoints:
        message = refusal(checkpoints.restore_newest, other.init_state(wider))
    assert "another network" in message
    assert "there and" in message
    assert "here. Set config.model" in message
    assert (copy / "checkpoints" / "10").is_dir()


def test_lost_lines_are_missed_before_anything_is_trained(copy, program):
    (copy / "metrics.jsonl").unlink()
    message = refusal(run, small_config(), copy, program, say=lambda line: None)
    assert "does not hold the epochs up to step 10" in message


def test_a_checkpoint_of_eight_devices_is_read_on_one_and_in_another_view(copy, program):
    config = small_config(parallel="pmap")
    one = small_program(config)
    with Checkpoints(copy / "checkpoints", keep=2, say=print) as checkpoints:
        state, step = checkpoints.restore_newest(one.init_state(config))
    assert step == 10
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(state))
    eight, _ = restore(copy, program)
    assert tree_checksum(fetch(serializable(state))) == tree_checksum(fetch(serializable(eight)))
    inputs = next(one.batches(state, 0, 0))
    next_state, _ = one.train_step(state, one.zero_totals, inputs)
    assert int(next_state.step) == 11


def test_every_field_of_the_state_comes_back(copy, program):
    """The seed's key and the hyper-parameters too: they are all that the next step needs."""
    state, _ = restore(copy, program)
    fresh = program.init_state(small_config())
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    assert (jax.random.key_data(state.rng) == jax.random.key_data(fresh.rng)).all()
    assert state.class_means.seen.all()
    avals = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, fresh)]
    assert avals[0] == avals[1]

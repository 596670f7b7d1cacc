"""A folder has one owner, which a crash does not leave behind."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spa_jax.sweeps.runner import Runner
from spa_jax.training.loop import run
from spa_jax.training.rundir import owner
from spa_jax.training.rundir.owner import OWNER, check_owner, owned
from tests.refusals import refusal
from tests.training.small import small_config

HOLDER = """
import sys, time
from pathlib import Path
from spa_jax.training.rundir.owner import owned

with owned(Path(sys.argv[1]), say=print):
    print("owned", flush=True)
    time.sleep(600)
"""


def own(folder, said=None):
    with owned(folder, say=pytest.fail if said is None else said.append):
        return json.loads((folder / OWNER).read_text())


def test_while_another_process_lives_its_folder_is_refused_and_no_longer(tmp_path):
    """Whatever would train there refuses, and before it has loaded or written anything."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "owned\n"
        before = (tmp_path / OWNER).read_bytes()
        for message in (
            refusal(run, small_config(), tmp_path, say=pytest.fail),
            refusal(Runner(tmp_path, say=pytest.fail).train, []),
            refusal(own, tmp_path),
        ):
            assert f"{tmp_path} is in use: process {holder.pid} on " in message
        assert [path.name for path in tmp_path.iterdir()] == [OWNER]
        assert (tmp_path / OWNER).read_bytes() == before
        holder.kill()
        holder.wait()
    assert (tmp_path / OWNER).exists()
    check_owner(tmp_path)
    assert own(tmp_path)["process"] == os.getpid()  # at once
    assert not list(tmp_path.iterdir())


def test_all_folders_are_owned_or_none(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    with owned(other, say=pytest.fail):
        message = refusal(owned(one, other, say=pytest.fail).__enter__)
        assert f"{other} is in use: process {os.getpid()}" in message
    assert not (one / OWNER).exists()
    check_owner(one)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(owner, "_BEAT", 0.05)
    monkeypatch.setattr(owner, "_PATIENCE", 0.5)


@pytest.fixture
def without_locks(monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("impatient", "without_locks")
def test_without_locks_an_owner_is_one_whose_heart_beats(tmp_path):
    said = []
    with owned(tmp_path, say=said.append):
        left = (tmp_path / OWNER).read_bytes()
        assert "is in use" in refusal(own, tmp_path, said)
    assert len(said) == 1
    assert f"was left by process {os.getpid()} on" in said[0]
    (tmp_path / OWNER).write_bytes(left)  # as if it had been killed
    assert own(tmp_path, said)["process"] == os.getpid()
    assert len(said) == 2


@pytest.mark.usefixtures("impatient")
def test_an_owner_on_another_machine_is_watched_even_if_the_lock_is_free(tmp_path):
    """As on file systems whose locks are of one machine each."""
    record = own(tmp_path) | {"machine": "another", "host": "pod-3", "process": 7}
    (tmp_path / OWNER).write_text(json.dumps(record))
    said = []
    own(tmp_path, said)
    assert "process 7 on pod-3" in said[0]
    (tmp_path / OWNER).write_text("{")
    own(tmp_path)  # which says nothing of an owner


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_more_is_told_with_the_folder(number, tmp_path):
    def fill():
        with owned(tmp_path, say=pytest.fail):
            raise OSError(number, os.strerror(number))

    message = refusal(fill)
    assert f"{tmp_path} cannot be written to ({os.strerror(number)})" in message
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_removed_any_more_that_is_told_and_the_lock_is_let_go(
    tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def work():
        with owned(tmp_path, say=pytest.fail):
            patch.setattr(Path, "unlink", refuse)
            refuse()

    with monkeypatch.context() as patch:
        assert f"{tmp_path} cannot be written to" in refusal(work)
    check_owner(tmp_path)

"""Hostile input is read or refused: a few of the many that the benchmark draws, and its watch."""

import os
import pickle
from collections import Counter

import pytest

from benchmarks import hostile_input
from benchmarks.hostile_input import Trap, outcome_of, try_inputs, watch
from spa_jax.training.loop import run
from tests.training.small import small_config


@pytest.mark.thorough
@pytest.mark.usefixtures("untyped")
def test_whatever_is_handed_in_is_read_or_refused(tmp_path):
    """Nothing else: no other error, nothing written elsewhere, executed, or waited for."""
    run(small_config(epochs=1), tmp_path / "run", say=lambda line: None)
    results = try_inputs(48, seed=1000, finished=tmp_path / "run")
    faults = [result for result in results if result["outcome"] not in ("read", "refused")]
    assert not faults
    assert min(Counter(result["outcome"] for result in results).values()) > 8
    assert len({result["kind"] for result in results}) == 8


def execute(folder, rng):
    os.system("true")


def unpickle(folder, rng):
    (folder / "harmless").write_bytes(pickle.dumps({}))
    pickle.loads(pickle.dumps(Trap()))


def write_elsewhere(folder, rng):
    (folder.parent / "elsewhere").write_text("")


def fail(folder, rng):
    raise KeyError("from inside")


def hang(folder, rng):
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (execute, "executed"),
        (unpickle, "executed"),
        (write_elsewhere, "written outside"),
        (fail, "traceback"),
        (hang, "hung"),
    ],
)
def test_the_watch_sees_what_must_not_happen(read, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(hostile_input, "_SECONDS", 1)
    watch()
    folder = tmp_path / "input"
    folder.mkdir()
    assert outcome_of(read, folder, None)[0] == expected

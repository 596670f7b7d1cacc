"""The driver trains what is missing, in order, in pieces of any length, and loses nothing."""

import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spa_jax.reproduction import driver
from spa_jax.reproduction.cells import Cell, with_settings
from spa_jax.reproduction.driver import append_record, read_records, reproduce
from spa_jax.reproduction.tables import TABLES, TablePlan
from tests.refusals import refusal
from tests.training.small import small_config

CELLS = [
    Cell("final", "cross_entropy", "none", 20.0, 0, "label"),
    Cell("final", "cross_entropy", "reg", 20.0, 0, "label", "waits", None),
    Cell("final", "cross_entropy", "none", 20.0, 1, "label"),
    Cell("ablation", "cross_entropy", "reg", 20.0, 0, "label", "weak", (("spa.weight", 0.1),)),
]


def quiet(line):
    del line


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A table of three runs of seconds, and one whose settings wait for tuning."""
    plan = TablePlan(lambda cell: with_settings(small_config(), cell), lambda records: CELLS)
    monkeypatch.setattr(driver, "TABLES", {"tiny": plan})
    return plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The records of all runs, trained in one go."""
    folder = tmp_path_factory.mktemp("whole")
    plan = TablePlan(lambda cell: with_settings(small_config(), cell), lambda records: CELLS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "TABLES", {"tiny": plan})
        said = []
        command = "python -m spa_jax.reproduce tiny"
        left = reproduce("tiny", folder, folder / "r.jsonl", 60.0, None, said.append, command)
    return left, folder, read_records(folder / "r.jsonl"), said


def test_every_run_whose_settings_are_known_is_trained_once_in_order(whole):
    left, folder, records, said = whole
    assert left == 1  # the one that waits
    assert [record["cell"] for record in records] == [CELLS[i].name for i in (0, 2, 3)]
    before = (folder / "r.jsonl").read_bytes()
    assert reproduce("tiny", folder, folder / "r.jsonl", 60.0, None, said.append) == 1
    assert (folder / "r.jsonl").read_bytes() == before


def test_a_record_says_what_was_run_and_what_came_out(whole):
    _, _, records, _ = whole
    first, _, third = records
    places = ("stage", "dataset", "class_order", "method", "spa_method", "imbalance_factor", "seed")
    assert [first[key] for key in places] == [
        "final", "tiny", "label", "cross_entropy", "none", 20.0, 0,
    ]  # fmt: skip
    assert (third["stage"], third["variant"], third["config"]["spa"]["weight"]) == (
        "ablation",
        "weak",
        0.1,
    )
    assert first["summary"]["test_accuracy"]["last"] == first["curves"]["test_accuracy"][-1]
    assert len(first["curves"]["test_mean_cosine"]) == first["config"]["epochs"] == 2
    assert first["summary"]["command"] == "python -m spa_jax.reproduce tiny"
    for key in ("split_checksum", "versions", "hardware", "wall_time_seconds", "shot_groups"):
        assert first["summary"][key]


def test_pieces_of_an_epoch_each_end_where_one_piece_ends(whole, tmp_path, monkeypatch):
    """A clock that leaves time for one epoch a call: two calls a run, and no bit changes."""
    _, _, records, _ = whole
    calls = 0
    while True:
        clock = itertools.count(0.0, 1.0)
        own = SimpleNamespace(monotonic=lambda clock=clock: next(clock))
        monkeypatch.setattr(driver, "time", own)
        # Read when it starts, before the run, and after each epoch.
        left = reproduce("tiny", tmp_path, tmp_path / "r.jsonl", 3.0 / 60.0, None, quiet)
        calls += 1
        if left == 1 or calls > 12:
            break
    found = read_records(tmp_path / "r.jsonl")
    assert calls > len(found)
    checksums = [[r["summary"]["params_checksum"] for r in each] for each in (found, records)]
    assert checksums[0] == checksums[1]


def test_no_more_runs_than_asked_for_are_begun(tmp_path):
    left = reproduce("tiny", tmp_path, tmp_path / "r.jsonl", 60.0, 1, quiet)
    assert left == 3
    assert len(read_records(tmp_path / "r.jsonl")) == 1


def test_half_a_line_of_a_crash_is_dropped_before_the_next_is_added(tmp_path):
    path = tmp_path / "r.jsonl"
    append_record(path, {"cell": "a"})
    path.write_text(path.read_text() + '{"cell": "half')
    append_record(path, {"cell": "b"})
    assert [json.loads(line)["cell"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_record_of_other_settings_is_refused_and_named(whole, tmp_path):
    _, _, records, _ = whole
    record = json.loads(json.dumps(records[0]))
    record["config"]["optimizer"]["learning_rate"] = 0.5
    append_record(tmp_path / "r.jsonl", record)
    message = refusal(reproduce, "tiny", tmp_path, tmp_path / "r.jsonl", 60.0, None, quiet)
    for part in (CELLS[0].name, "optimizer.learning_rate", "remove its line"):
        assert part in message


def test_a_run_that_diverges_is_recorded_and_the_next_one_begun(tmp_path, monkeypatch):
    bad = dataclasses.replace(CELLS[0], settings=(("optimizer.learning_rate", 1e6),))
    plan = TablePlan(lambda cell: with_settings(small_config(), cell), lambda r: [bad, CELLS[2]])
    monkeypatch.setattr(driver, "TABLES", {"tiny": plan})
    assert reproduce("tiny", tmp_path, tmp_path / "r.jsonl", 60.0, None, quiet) == 0
    first, second = read_records(tmp_path / "r.jsonl")
    assert first["summary"] is None
    assert second["summary"]["test_accuracy"]["last"] > 0


def test_the_committed_records_are_of_the_plan_that_there_is():
    path = Path(__file__).parents[2] / "results" / "fashion_mnist.jsonl"
    records = read_records(path)
    assert len(records) >= 24
    driver.check_records(TABLES["fashion_mnist"], records)


def test_an_unknown_table_is_refused_with_those_that_there_are(tmp_path):
    message = refusal(reproduce, "tinny", tmp_path, tmp_path / "r.jsonl", 60.0, None, quiet)
    assert "'tinny'; there are tiny" in message

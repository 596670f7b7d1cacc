"""The driver trains what is missing, in order, in pieces of any length, and loses nothing."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spa_jax.reproduction import driver
from spa_jax.reproduction.cells import Cell, with_settings
from spa_jax.reproduction.driver import Work, reproduce
from spa_jax.reproduction.plan import TablePlan
from spa_jax.reproduction.records import append_record, check_records, read_records
from spa_jax.reproduction.tables import TABLES, find_table
from tests.refusals import refusal
from tests.training.small import small_config

CELLS = [
    Cell("final", "cross_entropy", "none", 20.0, 0, "label"),
    Cell("final", "cross_entropy", "reg", 20.0, 0, "label", "waits", None),
    Cell("final", "cross_entropy", "none", 20.0, 1, "label"),
    Cell("ablation", "cross_entropy", "reg", 20.0, 0, "label", "weak", (("spa.weight", 0.1),)),
]


COMMAND = "python -m spa_jax.reproduce tiny"
PLAN = TablePlan(lambda cell: with_settings(small_config(), cell), lambda records: CELLS)


def quiet(line):
    del line


def train(folder, plan=PLAN, say=quiet, **work):
    """Trains what `folder` lacks of a table of three runs of seconds, and one that waits."""
    return reproduce("tiny", plan, Work(folder, folder / "r.jsonl", **work), say)


def checksums(records):
    return {record["cell"]: record["summary"]["params_checksum"] for record in records}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The records of all runs, trained in one go."""
    folder, said = tmp_path_factory.mktemp("whole"), []
    left = train(folder, say=said.append, command=COMMAND)
    return left, folder, read_records(folder / "r.jsonl"), said


def test_every_run_whose_settings_are_known_is_trained_once_in_order(whole):
    left, folder, records, said = whole
    assert left == 1  # the one that waits
    assert [record["cell"] for record in records] == [CELLS[i].name for i in (0, 2, 3)]
    assert said[0] == f"{CELLS[0].name}: 4 open"
    before = (folder / "r.jsonl").read_bytes()
    assert train(folder) == 1
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
    assert first["summary"]["command"] == COMMAND
    for key in ("split_checksum", "versions", "hardware", "wall_time_seconds", "shot_groups"):
        assert first["summary"][key]


def clock_of(*, epochs):
    """Minutes, and a clock that leaves time for so many epochs: read at the start and by rounds."""
    counter = itertools.count(0.0, 1.0)
    return {"minutes": (epochs + 2) / 60.0}, SimpleNamespace(monotonic=lambda: next(counter))


def test_pieces_of_an_epoch_each_end_where_one_piece_ends(whole, tmp_path, monkeypatch):
    """Two calls a run, and no bit changes."""
    _, _, records, _ = whole
    calls = 0
    while True:
        minutes, clock = clock_of(epochs=1)
        monkeypatch.setattr(driver, "time", clock)
        left = train(tmp_path, **minutes)
        calls += 1
        if left == 1 or calls > 12:
            break
    found = read_records(tmp_path / "r.jsonl")
    assert calls > len(found)
    assert checksums(found) == checksums(records)


def test_runs_of_one_program_are_trained_together_in_pieces_too(whole, tmp_path, monkeypatch):
    """Two seeds in a program that is cut off after an epoch; the third run is one of its own."""
    _, _, records, _ = whole
    minutes, clock = clock_of(epochs=1)
    monkeypatch.setattr(driver, "time", clock)
    said = []
    assert train(tmp_path, say=said.append, together=True, **minutes) == 4
    assert said[0] == f"{CELLS[0].name}, {CELLS[2].name}: 4 open"
    assert said[-1] == f"{CELLS[0].name}: stopped after epoch 1 of 2"
    monkeypatch.undo()
    # Only the second is asked for, one at most, and not together: what was begun goes on as it is.
    asked = {"only": [CELLS[2].name], "most_cells": 1, "together": False}
    first_lines = [(tmp_path / CELLS[i].name / "metrics.jsonl").read_text() for i in (0, 2)]
    assert train(tmp_path, say=said.append, command=COMMAND, **asked) == 0
    assert "Continuing the 2 runs of" in "".join(said)
    for i, line in zip((0, 2), first_lines, strict=True):
        assert (tmp_path / CELLS[i].name / "metrics.jsonl").read_text().startswith(line)
    assert train(tmp_path, together=True, command=COMMAND) == 1
    found = read_records(tmp_path / "r.jsonl")
    assert [record["cell"] for record in found] == [CELLS[i].name for i in (0, 2, 3)]
    ways = [record["summary"]["parallel"] for record in found]
    assert ways == ["vmap", "vmap", "jit"]
    assert {record["summary"]["command"] for record in found} == {
        "python -m spa_jax.reproduce tiny"
    }
    for one, other in zip(found, records, strict=True):
        curves = one["curves"]["train_loss"], other["curves"]["train_loss"]
        np.testing.assert_allclose(*curves, rtol=1e-4)


def test_no_more_runs_than_asked_for_are_begun(tmp_path):
    assert train(tmp_path, most_cells=1, together=True) == 3  # of two that would go together
    assert [record["seed"] for record in read_records(tmp_path / "r.jsonl")] == [0]
    assert train(tmp_path, most_cells=1) == 2


def test_runs_that_are_named_are_trained_alone(tmp_path):
    assert train(tmp_path, only=["final-cross_entropy-none-if20-label-seed1"]) == 0
    (record,) = read_records(tmp_path / "r.jsonl")
    assert record["seed"] == 1
    group = "final-cross_entropy-none-if20-label"
    assert train(tmp_path, only=[group]) == 0
    assert [r["seed"] for r in read_records(tmp_path / "r.jsonl")] == [1, 0]
    message = refusal(train, tmp_path, only=[group, "final-cross"])
    assert "names final-cross, which the table does not have" in message
    assert group in message


def test_a_named_run_that_waits_brings_its_tuning_along(tmp_path):
    """Only the tuning runs of its variant, and of the method that it takes its strength from."""
    settings = (("spa.weight", 0.1), ("data.validation", True))
    tuning = [
        Cell("tune", "cross_entropy", spa_method, 20.0, 0, "label", "weak", settings)
        for spa_method in ("reg", "slerp")
    ]

    def cells(records):
        chosen = settings[:1] if any(r["spa_method"] == "reg" for r in records) else None
        waits = Cell("final", "arb", "reg", 20.0, 0, "label", "tuned", chosen)
        return [waits, *tuning]

    plan = dataclasses.replace(PLAN, cells=cells)
    assert train(tmp_path, plan, only=["final-arb-reg-tuned-if20-label"]) == 0
    names = [record["cell"] for record in read_records(tmp_path / "r.jsonl")]
    assert names == [tuning[0].name, "final-arb-reg-tuned-if20-label-seed0"]


def test_places_reach_every_run_and_other_fields_are_refused(tmp_path):
    train(tmp_path, most_cells=2, places={"parallel": "shard_map"})
    for record in read_records(tmp_path / "r.jsonl"):
        assert record["config"]["parallel"] == record["summary"]["parallel"] == "shard_map"
    message = refusal(train, tmp_path, places={"optimizer.learning_rate": 0.5})
    assert "--set optimizer.learning_rate would change what the table's runs compute" in message


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
    message = refusal(train, tmp_path)
    for part in (CELLS[0].name, "optimizer.learning_rate", "remove its line"):
        assert part in message


def test_a_finished_folder_is_not_taken_for_the_run_of_other_settings(whole, tmp_path):
    """As when a recipe changes and its line is removed from the records, but not the folder."""
    _, folder, _, _ = whole
    shutil.copytree(folder, tmp_path / "runs")
    (tmp_path / "runs" / "r.jsonl").unlink()

    def config(cell):
        return with_settings(small_config(optimizer__learning_rate=0.07), cell)

    plan = dataclasses.replace(PLAN, config=config)
    for together in (False, True):
        message = refusal(train, tmp_path / "runs", plan, together=together)
        assert "was made by another config" in message
        assert "optimizer.learning_rate (0.1 there, 0.07 now)" in message


def test_data_may_lie_elsewhere_when_a_run_goes_on(tmp_path, monkeypatch):
    minutes, clock = clock_of(epochs=1)
    monkeypatch.setattr(driver, "time", clock)
    assert train(tmp_path, places={"data.folder": "here"}, **minutes) == 4
    monkeypatch.undo()
    assert train(tmp_path, places={"data.folder": "there"}, most_cells=1) == 3


@pytest.mark.parametrize("together", [False, True])
def test_a_run_that_diverges_is_recorded_and_the_next_one_begun(tmp_path, together):
    bad = dataclasses.replace(CELLS[0], settings=(("optimizer.learning_rate", 1e6),))
    plan = dataclasses.replace(PLAN, cells=lambda records: [bad, CELLS[2]])
    assert train(tmp_path, plan, together=together) == 0
    first, second = read_records(tmp_path / "r.jsonl")
    assert first["summary"] is None
    assert second["summary"]["test_accuracy"]["last"] > 0


def test_the_committed_records_are_of_the_plan_that_there_is():
    results = Path(__file__).parents[2] / "results"
    assert len(read_records(results / "fashion_mnist.jsonl")) >= 24
    for name, plan in TABLES.items():
        check_records(plan, read_records(results / f"{name}.jsonl"))


def test_an_unknown_table_is_refused_with_those_that_there_are():
    message = refusal(find_table, "tinny")
    assert "'tinny'; there are fashion_mnist, cifar10, cifar100, imagenet" in message

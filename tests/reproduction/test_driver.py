"""The driver trains what is missing, in order, in pieces of any length, and loses nothing."""

import dataclasses
import gzip
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.digits import read_digits
from spa_jax.reproduction import driver
from spa_jax.reproduction.cells import Cell, TablePlan, read_records, with_settings
from spa_jax.reproduction.driver import Driver, append_record, check_records
from spa_jax.reproduction.tables import TABLES, find_table
from spa_jax.sweeps.runner import Runner
from spa_jax.training.rundir.owner import check_owner
from spa_jax.training.rundir.workdir import write_config
from tests.parameters import first
from tests.refusals import refusal
from tests.training.small import small_config

pytestmark = pytest.mark.usefixtures("one_device")

CELLS = [
    Cell("final", "cross_entropy", "none", 20.0, 0, "label"),
    Cell("final", "cross_entropy", "reg", 20.0, 0, "label", "waits", None),
    Cell("final", "cross_entropy", "none", 20.0, 1, "label"),
    Cell("ablation", "cross_entropy", "reg", 20.0, 0, "label", "weak", (("spa.reg.weight", 0.1),)),
]
GROUP = "final-cross_entropy-none-if20-label"
COMMAND = "python -m spa_jax.reproduce tiny"


def plan_of(*cells, **changes):
    return TablePlan(lambda cell: with_settings(small_config(**changes), cell), lambda _: [*cells])


PLAN = plan_of(*CELLS)


def quiet(line):
    del line


def train(folder, plan=PLAN, say=quiet, together=None, command=None, **options):
    """Trains what `folder` lacks of a table of three runs of seconds, and one that waits."""
    runner = Runner(folder, together, say=say, command=command)
    return Driver("tiny", plan, folder / "r.jsonl", runner, **options).train()


def record_of(name, config=None):
    return {"cell": name, "config": config or {}, "summary": None}


def records_of(folder):
    return read_records(folder / "r.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The records of all runs, trained in one go."""
    folder, said = tmp_path_factory.mktemp("whole"), []
    left = train(folder, say=said.append, command=COMMAND)
    return left, folder, records_of(folder), said


def test_every_run_whose_settings_are_known_is_trained_once_in_order(whole):
    left, folder, records, said = whole
    assert left == 1  # the one that waits
    assert [record["cell"] for record in records] == [CELLS[i].name for i in (0, 2, 3)]
    assert said[:2] == [
        f"There are no records yet: {folder / 'r.jsonl'} does not exist.",
        f"{CELLS[0].name}: 4 open",
    ]
    before, said = (folder / "r.jsonl").read_bytes(), []
    assert train(folder, say=said.append) == 1
    assert (folder / "r.jsonl").read_bytes() == before
    assert not said


def test_a_record_says_what_was_run_and_what_came_out(whole):
    _, _, (first, _, third), _ = whole
    places = ("stage", "dataset", "class_order", "method", "spa_method", "imbalance_factor", "seed")
    assert [first[key] for key in places] == [
        "final", "tiny", "label", "cross_entropy", "none", 20.0, 0,
    ]  # fmt: skip
    assert (third["stage"], third["variant"], third["config"]["spa"]["reg"]["weight"]) == (
        "ablation",
        "weak",
        0.1,
    )
    assert first["summary"]["test_accuracy"]["last"] == first["curves"]["test_accuracy"][-1]
    assert len(first["curves"]["test_mean_cosine"]) == first["config"]["epochs"] == 2
    assert first["summary"]["command"] == COMMAND
    for key in ("split_checksum", "versions", "hardware", "wall_time_seconds", "shot_groups"):
        assert first["summary"][key]


def leave_time_for_an_epoch(monkeypatch):
    """Sets a clock of which a minute goes by at each look; returns the time that is allowed.

    It is looked at when the driver begins, before each run, and after each epoch but the last.
    """
    counter = itertools.count(0.0, 60.0)
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: next(counter)))
    return {"minutes": 2.0}


def save_digits(folder):
    """The digits as a data set of one's own, which has a folder."""
    digits = read_digits(DataOptions())
    train = digits.train.take(np.concatenate(digits.pools))
    folder.mkdir()
    for part, examples in {"train": train, "test": digits.test}.items():
        np.savez(folder / f"{part}.npz", image=examples.images, label=examples.labels)


@pytest.mark.thorough
def test_pieces_of_an_epoch_each_end_where_one_piece_ends(tmp_path, monkeypatch):
    """And no bit changes; the data may lie elsewhere in the second piece."""
    save_digits(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    plan, asked, said = plan_of(*CELLS, data__name="scans"), {"only": [CELLS[0].name]}, []
    at_once = tmp_path / "whole"
    places = {"data.folder": str(tmp_path / "here")}
    assert train(at_once, plan, overrides=places, **asked) == 0
    for folder, left in (("here", 1), ("there", 0)):
        time = leave_time_for_an_epoch(monkeypatch)
        places |= {"data.folder": str(tmp_path / folder), "checkpoint.keep": 1}
        assert train(tmp_path, plan, said.append, overrides=places, **time, **asked) == left
    assert said.count(f"{CELLS[0].name}: stopped after epoch 1 of 2") == 1
    (record,), (expected,) = records_of(tmp_path), records_of(at_once)
    assert (record["config"]["data"]["folder"], record["config"]["checkpoint"]["keep"]) == (
        str(tmp_path / "there"),
        1,
    )
    assert record["summary"]["params_checksum"] == expected["summary"]["params_checksum"]


@pytest.mark.thorough
def test_runs_of_one_program_are_trained_together_in_pieces_too(whole, tmp_path, monkeypatch):
    """Two of three seeds in a program that is cut off after an epoch."""
    third = dataclasses.replace(CELLS[0], seed=2)
    plan, said = plan_of(*CELLS, third), []
    time = leave_time_for_an_epoch(monkeypatch)
    assert train(tmp_path, plan, said.append, together=True, most_cells=2, **time) == 5
    assert said[1] == f"{CELLS[0].name}, {CELLS[2].name}: 5 open"
    assert said[-1] == f"{CELLS[0].name}: stopped after epoch 1 of 2"
    monkeypatch.undo()
    # Only the second is asked for, one at most, and not together: what was begun goes on as it is.
    asked = {"only": [CELLS[2].name], "most_cells": 1, "together": False}
    first_lines = [(tmp_path / CELLS[i].name / "metrics.jsonl").read_text() for i in (0, 2)]
    assert train(tmp_path, plan, said.append, command=COMMAND, **asked) == 0
    assert f"Resuming {tmp_path / 'together' / '0'} after epoch 1." in said
    for i, line in zip((0, 2), first_lines, strict=True):
        assert (tmp_path / CELLS[i].name / "metrics.jsonl").read_text().startswith(line)
    found = records_of(tmp_path)
    assert [record["cell"] for record in found] == [CELLS[i].name for i in (0, 2)]
    for one, other in zip(found, whole[2], strict=False):
        assert (one["summary"]["parallel"], one["summary"]["command"]) == ("vmap", COMMAND)
        curves = one["curves"]["train_loss"], other["curves"]["train_loss"]
        np.testing.assert_allclose(*curves, rtol=1e-4)


def test_no_more_runs_than_asked_for_are_begun(tmp_path):
    assert train(tmp_path, most_cells=1) == 3
    assert [record["seed"] for record in records_of(tmp_path)] == [0]


@pytest.mark.parametrize("together", first(1, [False, True]))
def test_a_run_that_diverges_is_recorded_and_the_next_one_begun(tmp_path, together):
    bad = dataclasses.replace(CELLS[0], settings=(("optimizer.learning_rate", 1e6),))
    said = []
    assert train(tmp_path, plan_of(bad, CELLS[2]), said.append, together=together) == 0
    by_seed = {record["seed"]: record["summary"] for record in records_of(tmp_path)}
    assert by_seed[0] is None
    assert by_seed[1]["test_accuracy"]["last"] > 0
    assert any(line.startswith(f"{bad.name}: ") and "not finite at step" in line for line in said)


def leave_finished(folder, *cells):
    """Folders as of runs that were finished, but whose records a crash has lost."""
    for cell in cells:
        write_config(folder / cell.name, PLAN.config(cell))
        (folder / cell.name / "summary.json").write_text(
            json.dumps({"made": cell.name, "test_accuracy": {"last": 0.5}})
        )


def test_what_was_finished_but_not_recorded_is_recorded_without_training(tmp_path):
    leave_finished(tmp_path, CELLS[0], CELLS[2], CELLS[3])
    assert train(tmp_path) == 1
    assert [record["summary"]["made"] for record in records_of(tmp_path)] == [
        CELLS[i].name for i in (0, 2, 3)
    ]


def test_a_second_driver_is_refused_between_the_runs_of_the_first_too(tmp_path):
    leave_finished(tmp_path, *CELLS)
    refusals = []

    def say(line):
        if line.endswith(" open"):
            refusals.append(refusal(check_owner, tmp_path))

    train(tmp_path, say=say)
    assert "is in use" in refusals[0]
    check_owner(tmp_path)


def test_runs_that_are_named_are_trained_alone(tmp_path):
    leave_finished(tmp_path, CELLS[0], CELLS[2], CELLS[3])
    assert train(tmp_path, only=[CELLS[2].name]) == 0
    assert [record["seed"] for record in records_of(tmp_path)] == [1]
    assert train(tmp_path, only=[GROUP]) == 0
    assert [record["seed"] for record in records_of(tmp_path)] == [1, 0]
    message = refusal(train, tmp_path, only=[GROUP, "final-cross"])
    assert "names final-cross, which the table does not have" in message
    assert GROUP in message


def test_a_named_run_that_waits_brings_its_tuning_along(tmp_path):
    """Only the tuning runs of its variant, and of the method that it takes its strength from."""
    settings = (("spa.reg.weight", 0.1), ("data.validation", True))
    reg, slerp = [
        Cell("tune", "cross_entropy", spa_method, 20.0, 0, "label", "weak", settings)
        for spa_method in ("reg", "slerp")
    ]

    def waits(chosen):
        return Cell("final", "arb", "reg", 20.0, 0, "label", "tuned", chosen)

    def cells(records):
        return [waits(settings[:1] if records else None), reg, slerp]

    leave_finished(tmp_path, reg, slerp, waits(settings[:1]))
    plan = dataclasses.replace(PLAN, cells=cells, waits_for=find_table("fashion_mnist").waits_for)
    assert train(tmp_path, plan, only=["final-arb-reg-tuned-if20-label"]) == 0
    assert [r["cell"] for r in records_of(tmp_path)] == [reg.name, waits(None).name]


def test_a_place_that_would_change_what_is_computed_is_refused(tmp_path):
    message = refusal(train, tmp_path, overrides={"optimizer.learning_rate": 0.5})
    assert "--set optimizer.learning_rate would change what the table's runs compute" in message


@pytest.mark.parametrize("waits", [False, True])
def test_what_a_later_run_would_be_refused_for_is_refused_before_anything_is_trained(
    tmp_path, waits
):
    """Whether its strength is known already or not."""
    settings = None if waits else (("spa.reg.weight", 0.1),)
    bad = Cell("final", "etf", "reg", 20.0, 0, "label", "tuned", settings)
    message = refusal(train, tmp_path, plan_of(CELLS[0], bad))
    assert "config.spa.method=reg has nothing to act on with the method etf" in message
    assert not [*tmp_path.iterdir()]


def test_half_a_line_of_a_crash_is_dropped_before_the_next_is_added(tmp_path):
    path = tmp_path / "r.jsonl"
    append_record(path, record_of("a"))
    path.write_text(path.read_text() + '{"cell": "half')
    append_record(path, record_of("b"))
    assert [json.loads(line)["cell"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_packed_records_are_read_and_unpacked_before_the_next_is_added(tmp_path):
    path, packed = tmp_path / "r.jsonl", tmp_path / "r.jsonl.gz"
    append_record(path, record_of("a"))
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read_records(path) == [record_of("a")]
    append_record(path, record_of("b"))
    assert read_records(path) == [record_of("a"), record_of("b")]
    path.unlink()
    packed.write_bytes(packed.read_bytes()[:-10])
    assert f"{packed} cannot be unpacked" in refusal(read_records, path)


@pytest.mark.parametrize("damaged", ["[1]", '{"cell"', '{"cell": 3}', '{"cell": "b"}', ""])
@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_line_of_the_records_is_refused_before_anything_is_trained(
    tmp_path, damaged, number
):
    path, lines = tmp_path / "r.jsonl", [json.dumps(record_of("a"))] * 2
    lines.insert(number - 1, damaged)
    path.write_text("\n".join(lines) + "\n")
    message = refusal(train, tmp_path)
    for part in (f"{path}, line {number}, is no record", "cell, config and summary", "remove it"):
        assert part in message
    assert [file.name for file in tmp_path.iterdir()] == ["r.jsonl"]


def test_no_run_is_recorded_twice_by_one_command_whatever_becomes_of_the_file(
    tmp_path, monkeypatch
):
    leave_finished(tmp_path, CELLS[0], CELLS[2], CELLS[3])
    appended = []
    monkeypatch.setattr(driver, "append_record", lambda _, record: appended.append(record["cell"]))
    assert train(tmp_path) == 1
    assert sorted(appended) == sorted(CELLS[i].name for i in (0, 2, 3))


def test_a_record_of_other_settings_is_refused_and_named(tmp_path):
    config = PLAN.config(CELLS[0])
    config.optimizer.learning_rate = 0.5
    append_record(tmp_path / "r.jsonl", record_of(CELLS[0].name, config.to_dict()))
    message = refusal(train, tmp_path)
    for part in (CELLS[0].name, "optimizer.learning_rate (0.5 there, 0.1 now)", "Remove its line"):
        assert part in message


def test_a_record_on_other_data_is_refused_before_anything_is_trained(tmp_path):
    config = PLAN.config(CELLS[0]).to_dict()
    summary = {"content_checksum": "other"}
    record = {"cell": CELLS[0].name, "config": config, "summary": summary}
    append_record(tmp_path / "r.jsonl", record)
    message = refusal(train, tmp_path)
    assert f"the record of {CELLS[0].name} and what is there now are not of the same" in message
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize("together", [False, True])
def test_a_finished_folder_is_not_taken_for_the_run_of_other_settings(tmp_path, together):
    """As when a recipe changes and its line is removed from the records, but not the folder."""
    leave_finished(tmp_path, CELLS[0], CELLS[2], CELLS[3])
    plan = plan_of(*CELLS, optimizer__learning_rate=0.07)
    message = refusal(train, tmp_path, plan, together=together)
    assert "was made by another config" in message
    assert "optimizer.learning_rate (0.1 there, 0.07 now)" in message
    assert not records_of(tmp_path)


@pytest.mark.thorough
def test_the_committed_records_are_of_the_plan_that_there_is():
    results = Path(__file__).parents[2] / "results"
    assert len(read_records(results / "fashion_mnist.jsonl")) >= 24
    for name, plan in TABLES.items():
        records = read_records(results / f"{name}.jsonl")
        made = {record["cell"] for record in records}
        cells = [cell for cell in plan.cells(records) if cell.name in made]
        assert len(cells) == len(records)
        some = cells[:: 1 + len(cells) // 300]  # a configuration takes milliseconds
        check_records(dataclasses.replace(plan, cells=lambda _, some=some: some), records)


def test_an_unknown_table_is_refused_with_those_that_there_are():
    message = refusal(find_table, "tinny")
    assert "'tinny'; there are fashion_mnist, cifar10, cifar100, imagenet" in message


def test_the_command_needs_nothing_of_the_repositorys_folder(tmp_path):
    """It knows the runs of a table wherever it is started, and says which records it looked for."""
    command = [sys.executable, "-m", "spa_jax.reproduce", "cifar10", "--only=final-cross"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert str(tmp_path / "results" / "cifar10.jsonl") in ended.stdout
    assert "error: --only names final-cross" in ended.stderr
    assert "final-glmc-none-if200-label for all seeds" in ended.stderr

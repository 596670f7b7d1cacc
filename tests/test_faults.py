"""The campaign of faults, a short one: what it injects a run survives, or refuses to go on with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import KINDS
from studies.tables import record_table

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_runs_survive_a_few_faults(tmp_path):
    record = tmp_path / "faults.json"
    arguments = ["--faults=6", "--seed=3", f"--workdir={tmp_path / 'runs'}", f"--record={record}"]
    command = [sys.executable, "-m", "benchmarks.faults", *arguments]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=1800)
    outcomes = json.loads(record.read_text())["outcomes"]
    assert sum(sum(found.values()) for found in outcomes.values()) == 6
    assert {outcome for found in outcomes.values() for outcome in found} <= {"survived", "refused"}


def test_the_record_is_of_runs_that_came_through_200_faults():
    record = json.loads((REPOSITORY / "results/bench/faults.json").read_text())
    outcomes = record["outcomes"]
    assert {*outcomes} == {*KINDS}
    assert all(sum(found.values()) >= 3 for found in outcomes.values())
    assert {outcome for found in outcomes.values() for outcome in found} <= {"survived", "refused"}
    rows = record_table(record).splitlines()
    assert any(row.startswith("| all | 200 | ") and row.endswith(" | 0 | 0 | 0 |") for row in rows)

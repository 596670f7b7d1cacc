"""What `train.py` says to someone who got the command line wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The smallest run there is: one epoch of a narrow network.
SMALL = (
    "--config.epochs=1",
    "--config.model.widths=(4,)",
    "--config.logging.tensorboard=False",
    "--config.logging.plots=False",
)
WRONG = {
    "a misspelt field": (
        ("--config=configs/digits_lt.py", "--config.spa.gama=0.5"),
        ("config.spa.gama is not a field", "Did you mean config.spa.gamma?"),
    ),
    "a missing config file": (
        ("--config=configs/no_such_file.py",),
        ("configs/no_such_file.py", "--config"),
    ),
    "an unknown method": (
        ("--config=configs/digits_lt.py", "--config.spa.method=prj"),
        ("config.spa.method must be one of none, reg, slerp, proj", "'prj'"),
    ),
    "a missing data folder": (
        ("--config=configs/fashion_mnist_lt.py", "--config.data.folder=no/such/folder"),
        ("no/such/folder", "apt-get install dataset-fashion-mnist", "config.data.folder"),
    ),
}


def train(workdir, *arguments):
    """Runs `train.py` with the given flags on one CPU device."""
    return subprocess.run(
        [sys.executable, "train.py", f"--workdir={workdir}", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_gets_one_paragraph_and_status_2(case, tmp_path):
    arguments, expected = WRONG[case]
    workdir = tmp_path / "run"
    result = train(workdir, *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    for part in expected:
        assert part in result.stderr
    # Nothing claims the workdir, so a corrected command may use it.
    assert not workdir.exists()


def test_a_right_command_trains_in_a_folder_that_is_empty(tmp_path):
    result = train(tmp_path, "--config=configs/digits_lt.py", "--config.spa.method=proj", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["spa_method"], summary["epochs"]) == ("proj", 1)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["widths"] == [4]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1

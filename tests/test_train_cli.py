"""What `train.py` says to someone who got the command line wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spa_jax.training.config import default_config
from spa_jax.training.rundir.workdir import write_config
from tests.parameters import first

ROOT = Path(__file__).parents[1]
WRONG = {
    "a misspelt field": (
        ("--config=configs/digits_lt.py", "--config.spa.proj.gama=0.5"),
        ("config.spa.proj.gama is not a field", "Did you mean config.spa.proj.gamma?"),
    ),
    "a field of before": (
        ("--config=configs/digits_lt.py", "--config.spa.gamma=0.5"),
        ("config.spa.gamma has a new name: spa.proj.gamma",),
    ),
    "a missing config file": (
        ("--config=configs/no_such_file.py",),
        ("configs/no_such_file.py", "--config"),
    ),
    "an unknown method": (
        ("--config=configs/digits_lt.py", "--config.spa.method=prj"),
        ("config.spa.method must be one of none, reg, slerp, proj", "'prj'"),
    ),
    "a workdir of another place": (
        ("--config=configs/digits_lt.py", "--workdir=gs://bucket/run"),
        ("--workdir=gs://bucket/run is not a folder of this machine",),
    ),
    "a pod that is none": (
        ("--config=configs/digits_lt.py", "--distributed"),
        ("--distributed joins the hosts", "leave --distributed out"),
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


def assert_refused(result, expected):
    """One paragraph on standard error with the expected parts, and status 2."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    for part in expected:
        assert part in result.stderr


@pytest.mark.parametrize("case", first(1, WRONG))
def test_a_wrong_command_gets_one_paragraph_and_status_2(case, tmp_path):
    arguments, expected = WRONG[case]
    workdir = tmp_path / "run"
    result = train(workdir, *arguments)
    assert_refused(result, expected)
    # Nothing claims the workdir, so a corrected command may use it.
    assert not workdir.exists()


@pytest.mark.thorough
def test_a_config_file_that_sets_a_field_of_before_is_told_the_new_one(tmp_path):
    text = (
        "from spa_jax.training.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.model.depth = 20\n"
        "    return config\n"
    )
    (tmp_path / "mine.py").write_text(text)
    result = train(tmp_path / "run", f"--config={tmp_path / 'mine.py'}")
    assert_refused(result, ("config.model.depth has a new name: model.cifar_resnet.depth",))


@pytest.mark.thorough
def test_a_workdir_of_another_config_is_refused_and_left_alone(tmp_path):
    old = default_config()
    old.seed = 5
    write_config(tmp_path, old)
    before = (tmp_path / "config.json").read_bytes()
    result = train(tmp_path, "--config=configs/digits_lt.py", "--config.spa.proj.gamma=0.25")
    expected = (str(tmp_path), "seed (5 there, 0 now)", "spa.proj.gamma (0.6 there, 0.25 now)")
    assert_refused(result, expected)
    assert (tmp_path / "config.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1

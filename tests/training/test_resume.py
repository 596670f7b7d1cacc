"""Preempted or killed at a random step and started again, a run ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# What two runs of one configuration differ in: how long they took, and where they were written.
OF_EACH_RUN = {"seconds", "images_per_second", "wall_time_seconds", "command"}
CONFIG_FILE = """
from tests.training.small import small_config


def get_config():
    return small_config(
        epochs=4, spa__method="slerp", spa__slerp__alpha_max=0.3, logging__every_steps=1
    )
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Starts `train.py` with a workdir; they share compiled code with this process."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "config.py").write_text(CONFIG_FILE)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def start(workdir):
        arguments = [f"--config={folder / 'config.py'}", f"--workdir={workdir}"]
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def steps_done(workdir):
    path = workdir / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def stop_at(process, workdir, step, number):
    """Sends the process a signal once it has logged the step; its exit status."""
    deadline = time.monotonic() + 120
    with process:
        while process.poll() is None and steps_done(workdir) < step:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
    return process.returncode


def finish(process, word):
    """Waits for the end of a run, which must succeed and say the word."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert word in output


def without_those(record):
    return {key: value for key, value in record.items() if key not in OF_EACH_RUN}


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [without_those(json.loads(line)) for line in lines]


def final_state_checksum(workdir):
    """Of everything in the last checkpoint, as it was saved."""
    path = workdir / "checkpoints" / "20" / "record" / "metadata"
    return json.loads(path.read_text())["checksum"]


@pytest.mark.thorough
def test_preempted_and_killed_at_random_steps_a_run_ends_bit_for_bit_as_without(command, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(command(whole), "Finished")
    assert stop_at(command(broken), broken, random.randint(1, 6), signal.SIGTERM) == 75
    # There are lines of before, and of the new process one at least is waited for.
    step = max(steps_done(broken) + 1, random.randint(6, 14))
    assert stop_at(command(broken), broken, step, signal.SIGKILL) == -9
    assert not (broken / "summary.json").exists()
    finish(command(broken), "Finished")
    assert metrics(broken) == metrics(whole)
    assert (broken / "steps.jsonl").read_bytes() == (whole / "steps.jsonl").read_bytes()
    assert [line["epoch"] for line in metrics(broken)] == [1, 2, 3, 4]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, broken)]
    assert without_those(summaries[0]) == without_those(summaries[1])
    assert final_state_checksum(broken) == final_state_checksum(whole)

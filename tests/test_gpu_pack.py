"""The command for a GPU runs here on less, part by part, and goes on where it was."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import jax
import numpy as np
import pytest

from benchmarks import gpu_speed
from benchmarks.gpu_data import pack, unpack
from benchmarks.gpu_pack import Pack
from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.reproduction.cells import read_records
from studies.build import REPOSITORY
from tests.data.tiny import random_images, write_cifar

NAMES = [f"kind_{c}" for c in range(10)]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small CIFAR-10 in the official form."""
    folder = tmp_path_factory.mktemp("cifar")
    train, test = ((random_images(n, n), np.arange(n) % 10) for n in (2500, 30))
    write_cifar(folder, "cifar10", True, train, test, NAMES)
    return folder


@pytest.mark.thorough
def test_what_is_carried_gives_the_runs_the_data_that_they_have_at_home(official, tmp_path):
    runs = ["final-glmc-none-if200-label", "final-cross_entropy-none-if100-label-seed1"]
    packed = pack(official, runs, verify=False)
    unpack(packed, tmp_path)
    assert 500 < len(packed["positions"]) < 1500  # of 2500
    for options in (
        {"imbalance_factor": 200.0, "protocol": "glmc", "split_seed": 42},
        {"imbalance_factor": 100.0},
    ):
        home, there = (
            load_data(DataOptions(name="cifar10", folder=str(folder), verify=False, **options))
            for folder in (official, tmp_path)
        )
        assert there.content_checksum == home.content_checksum
        assert there.split == home.split
        assert there.class_names == home.class_names == tuple(NAMES)


def dry_run(out, *arguments):
    """The command in a process of its own; its status and what it printed."""
    command = [REPOSITORY / "benchmarks/gpu_pack.sh", "--dry-run", f"--out={out}", *arguments]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.thorough
def test_a_dry_run_trains_its_parts_in_pieces_and_records_each_once(official, tmp_path):
    data = f"--data={official}"
    status, said = dry_run(tmp_path, data, "--parts=glmc,standard", "--minutes=0")
    assert (status, "2 part(s) are open" in said) == (75, True), said
    status, said = dry_run(tmp_path, data, "--parts=standard")
    assert status == 0, said
    records = (tmp_path / "cifar10.jsonl").read_bytes()
    cells = [record["cell"] for record in read_records(tmp_path / "cifar10.jsonl")]
    methods = ("cross_entropy-none", "balanced_softmax-none")
    assert cells == [f"dry_run-{m}-if100-label-seed{seed}" for m in methods for seed in (0, 1)]
    status, said = dry_run(tmp_path, data, "--parts=standard")
    assert (status, said) == (0, "All parts are finished.\n")
    assert (tmp_path / "cifar10.jsonl").read_bytes() == records


@pytest.mark.thorough
def test_a_dry_run_of_the_other_parts_finishes(tmp_path):
    """But that of the tests marked `device`, which are run here anyway."""
    status, said = dry_run(tmp_path, "--minutes=30", "--parts=speed,glmc")
    assert status == 0, said
    made = {path.name for path in tmp_path.glob("*.json*")}
    assert made >= {"gpu_alignment_cost.json", "gpu_overhead.json", "gpu_members.json"}
    assert len(read_records(tmp_path / "cifar10.jsonl")) == 4


@pytest.mark.parametrize(("left", "seeds"), [(4.0, 1), (9.0, 1), (12.0, 3)])
def test_seeds_are_as_many_as_both_runs_have_time_for(left, seeds, tmp_path):
    steps = {gpu_speed.MEMBERS_ROW: {"1 run": 4.0, "3 runs": 10.0}}  # 4.7 and 11.7 minutes
    gpu_speed.record_path(tmp_path, "members").write_text(json.dumps({"milliseconds": steps}))
    values = {"out": tmp_path, "minutes": 4.0, "left": left, "seeds": 0, "dry_run": False}
    assert Pack(Namespace(**values)).seeds() == seeds


def test_the_speed_tables_grow_row_by_row_and_say_what_is_left_out(tmp_path, monkeypatch):
    measured = []

    def parts(tiny):
        for row in ("a", "b"):
            take = lambda row=row: measured.append(row) or {"none": 1.0, "proj": 2.0}  # noqa: E731
            yield gpu_speed.Part("overhead", row, take)
        yield gpu_speed.Part("torch_steps", "c", pytest.fail)

    monkeypatch.setattr(gpu_speed, "parts", parts)
    monkeypatch.setattr(gpu_speed, "why_no_torch", lambda: "PyTorch sees no GPU here")
    said = []
    assert gpu_speed.measure_all(tmp_path, 0.0, True, said.append) == ["overhead, a", "overhead, b"]
    assert said == ["torch_steps, c: left out, as PyTorch sees no GPU here."]
    for _ in range(2):
        assert gpu_speed.measure_all(tmp_path, 9.0, True, said.append) == []
    assert measured == ["a", "b"]
    record = json.loads((tmp_path / "gpu_overhead.json").read_text())
    assert record["milliseconds"]["b"] == {"none": 1.0, "proj": 2.0}
    assert record["hardware"]["platform"] == jax.default_backend()

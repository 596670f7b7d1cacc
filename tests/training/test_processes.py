"""Two processes with two devices each train as one, as the hosts of a pod do, and end as one."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spa_jax.training.loop import run
from spa_jax.training.metrics import fetch
from spa_jax.training.rundir.checkpoints import Checkpoints, serializable
from tests.training.small import small_config, small_program
from tests.training.test_parallel import assert_close

REPOSITORY = Path(__file__).parents[2]
MODES = ("jit", "shard_map", "cut")
HOST = """
import os, signal, sys, time
from pathlib import Path
import jax
from tests.training.small import small_config
from spa_jax.training.loop import run
from spa_jax.training.program import Program

number, port, workdir = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
for mode in ("shard_map", "cut", "jit"):
    config = small_config(spa__method="proj", logging__every_steps=2)
    if mode == "cut":
        config.mesh.classes, config.mesh.fsdp = 2, True
    else:
        config.parallel = mode
    program, folder = Program(config), Path(workdir) / mode
    train_step, steps = program.train_step, []

    def slow_step(*args):
        steps.append(len(steps) + 1)
        if number == "1" and len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        return train_step(*args)

    if mode == "jit":  # one host is preempted, and both end at one step
        program.train_step = slow_step
        try:
            run(config, folder, program)
        except SystemExit as end:
            (folder / f"host{number}.txt").write_text(f"{end.code} {steps[-1]}")
        program.train_step = train_step
    run(config, folder, program)
"""


MEMBER = """
import time
import numpy as np
from jax.experimental import multihost_utils
from spa_jax.command_line import errors_told, join_cluster

with errors_told():
    join_cluster(2)
    while True:
        multihost_utils.process_allgather(np.ones(3))
        print("together", flush=True)
        time.sleep(0.01)
"""


def free_port(low=1):
    """One that nobody listens on; from `low` on, the first."""
    for port in range(low, 2**16) if low > 1 else [0]:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("localhost", port))
            return listener.getsockname()[1]
    raise AssertionError("no port is free")


def run_on_two_hosts(script, *arguments):
    """Runs a script twice at once, with the host's number, a free port, and the arguments."""
    port = str(free_port())
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), port, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    for host in hosts:
        output, _ = host.communicate(timeout=300)
        assert host.returncode == 0, output


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory):
    """The folder of a run in each mode on two hosts."""
    folder = tmp_path_factory.mktemp("hosts")
    run_on_two_hosts(HOST, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The summary of the same run on four devices of one host."""
    config = small_config(spa__method="proj", parallel="shard_map", logging__every_steps=2)
    program = small_program(config, num_devices=4)
    return run(config, tmp_path_factory.mktemp("alone"), program, say=lambda line: None)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_two_hosts_train_what_four_devices_of_one_host_train(mode, two_hosts, alone):
    together = json.loads((two_hosts / mode / "summary.json").read_text())
    assert together["hardware"]["processes"] == 2
    assert together["hardware"]["devices"] == alone["hardware"]["devices"] == 4
    for field in ("per_class_cosine", "per_class_test_cosine"):
        np.testing.assert_allclose(together[field], alone[field], atol=1e-3)
    assert together["test_accuracy"]["last"] == pytest.approx(alone["test_accuracy"]["last"])


@pytest.mark.thorough
def test_one_device_goes_on_from_what_two_hosts_have_cut_between_them(two_hosts):
    program = small_program(small_config(spa__method="proj"), 1)
    like = program.init_state(program.config, resumed=True)
    with Checkpoints(two_hosts / "cut/checkpoints", keep=2, say=print) as checkpoints:
        state, after = (checkpoints.restore_step(like, step) for step in (5, 10))
    for inputs in program.batches(state, 0, 1):
        state, _ = program.train_step(state, program.zero_totals, inputs)
    together, alone = (fetch(serializable(each)) for each in (after, state))
    assert_close(together, alone, 1e-4)


@pytest.mark.thorough
def test_the_notice_of_one_host_ends_both_at_one_step_from_which_they_go_on(two_hosts):
    """How they went on, the tests of their results say."""
    ends = [(two_hosts / "jit" / f"host{number}.txt").read_text() for number in range(2)]
    status, step = map(int, ends[0].split())
    assert ends[0] == ends[1]
    assert status == 75
    assert 3 <= step < 10


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_only_the_first_host_writes(mode, two_hosts):
    lines = (two_hosts / mode / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    steps = (two_hosts / mode / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in steps] == [1, 3, 5, 7, 9]


def member(number, port):
    """A process of two, as Open MPI would start it; what it says is read from its output."""
    low = 2**16 - 2**12  # from which on JAX takes the port of the job's number
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "OMPI_MCA_orte_hnp_uri": f"{(port - low) * 2**12}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }
    return subprocess.Popen(
        [sys.executable, "-c", MEMBER],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.thorough
@pytest.mark.parametrize("lost", [1, 0])
def test_when_a_host_is_lost_the_other_ends_in_time_and_says_which(lost):
    """JAX says it by its number, whose name the first host has printed; or that it was the first"""
    port = free_port(2**16 - 2**12 + os.getpid() % 1000)
    hosts = [member(number, port) for number in range(2)]
    try:
        while hosts[lost].stdout.readline() != "together\n":
            assert hosts[lost].poll() is None
        hosts[lost].kill()
        began = time.monotonic()
        said, _ = hosts[1 - lost].communicate(timeout=60)
    finally:
        for host in hosts:
            host.kill()
            host.communicate()
    assert time.monotonic() - began < 30  # of which JAX waits 2
    assert hosts[1 - lost].returncode != 0
    if lost == 0:
        assert "leader task" in said
    else:
        assert re.search(r"Task 1 heartbeat|heartbeats\):\n1\n", said)
        assert "0 is " in said
    assert 'File "' + str(REPOSITORY / "spa_jax") not in said

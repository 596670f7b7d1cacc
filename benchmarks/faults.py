"""A fault campaign: runs that are killed, preempted and damaged at random, and started again.

python -m benchmarks.faults --faults=200 --seed=0 --workdir=runs/faults [--record=FILE]

Trains a tiny network on the digits by the command `spa_jax.train`, again and again, each time until
a fault is injected; then the command is started again, as a person or a scheduler would. Up to five
faults befall a run before it is left alone to its end, where its final state and the numbers of
every epoch have to be those of a run that nothing befell. Of a run that ends otherwise all faults
count. Started again, the campaign goes on after the runs that are done.

A fault is survived if the next start goes on; refused if that ends with status 2 and a sentence of
what to do, after which what was damaged is put back and the run goes on; lost if it ends in any
other way; wrong if the numbers are others at the end; hung if a command does not end in time.

A command is a process of its own, forked from one that has imported the package, which saves two
thirds of a start. The full disk is a tmpfs of 16 MiB, which root can mount.
"""

import argparse
import atexit
import contextlib
import dataclasses
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sklearn.datasets  # noqa: F401  # as the digits' source does, before the processes are forked

import spa_jax.train
from spa_jax.files import write_json
from spa_jax.training.devices import Layout
from spa_jax.training.interruption import PREEMPTED
from spa_jax.training.rundir.summary import hardware
from studies.tables import publish

_REPOSITORY = Path(__file__).parents[1]
_FAULTS_A_RUN = 5
_PATIENCE = 300.0  # seconds that a command of some ten seconds may take on a busy machine
_HOST_TIMEOUT = 5
_DISK_BYTES = 16 * 2**20
_CONFIG = {
    "epochs": 24,
    "batch_size": 64,
    "augment.crop_padding": 1,
    "augment.flip": True,
    "model.small.widths": "(8,)",
    "spa.method": "slerp",
    "spa.slerp.alpha_max": 0.3,
    "checkpoint.keep": 3,
    "logging.every_steps": 1,
    "logging.tensorboard": False,
    "logging.plots": False,
}
# What two runs of one configuration differ in: how long they took, and where they were written.
_OF_EACH_RUN = {"seconds", "images_per_second", "wall_time_seconds", "command"}


def _free_job() -> int:
    """A number of a job of Open MPI, from which a port follows that nobody listens on."""
    for number in range(os.getpid() % 4096, 4096):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", 65536 - 4096 + number))
            return number * 4096
    raise RuntimeError("no port is free")


def _command(arguments: Sequence[str], environment: Mapping[str, str], compiled: Path, log: Path):
    """The command that trains, in a process of its own; its output goes to a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.argv = ["spa_jax.train", *arguments]
    try:
        spa_jax.train.start()
    finally:
        atexit._run_exitfuncs()  # which forked processes leave out, and JAX leaves its hosts in


class Ended(Exception):
    """A fault had an end that decides it; `args` are the outcome, and what was seen."""


@dataclasses.dataclass
class Run:
    """A run that faults befall.

    Attributes:
      folder: its workdir.
      root: the campaign's folder, with the logs and the compiled programs, which all runs share.
      rng: of what is drawn.
      hosts: how many processes train it.
      processes: those of the newest start.
    """

    folder: Path
    root: Path
    rng: np.random.Generator
    hosts: int = 1
    processes: list[BaseProcess] = dataclasses.field(default_factory=list)

    @property
    def log(self) -> Path:
        """What the commands say."""
        return self.root / f"{self.folder.name}.log"

    @property
    def said(self) -> str:
        """What the newest start has said."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text.rpartition("[start]\n")[2]

    def start(self) -> None:
        """Starts the command, on each host."""
        with self.log.open("a") as log:
            log.write("[start]\n")
        job = _free_job() if self.hosts > 1 else 0
        self.processes = [self._process(number, job) for number in range(self.hosts)]

    def _process(self, number: int, job: int) -> BaseProcess:
        fields = [f"--config.{name}={value}" for name, value in _CONFIG.items()]
        arguments = [f"--config={_REPOSITORY / 'configs/digits_lt.py'}", *fields]
        arguments += [f"--workdir={self.folder}"]
        environment = {}
        if self.hosts > 1:  # as Open MPI would start them
            arguments += ["--distributed", f"--host_timeout={_HOST_TIMEOUT}"]
            environment = {
                "OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:1",
                "OMPI_COMM_WORLD_SIZE": str(self.hosts),
                "OMPI_COMM_WORLD_RANK": str(number),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
            }
        process = multiprocessing.get_context("fork").Process(
            target=_command, args=(arguments, environment, self.root / "compiled", self.log)
        )
        process.start()
        return process

    @property
    def ended(self) -> bool:
        """Whether the command has ended on a host, or was never started."""
        return not all(process.is_alive() for process in self.processes) or not self.processes

    def steps(self) -> int:
        """Lines of steps that the run has written."""
        path = self.folder / "steps.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, the newest last."""
        found = [path for path in self.folder.glob("checkpoints/*") if path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name))

    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self.folder.glob("checkpoints/*.orbax-checkpoint-tmp*"))

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether a condition came true before the command ended."""
        until = time.monotonic() + _PATIENCE
        while not condition():
            if self.ended:
                return False
            if time.monotonic() > until:
                self.kill()
                raise Ended("hung", self.said)
            time.sleep(0.0005)
        return True

    def wait_for_moment(self) -> bool:
        """Whether a random moment came: of the start, or between or within the next steps."""
        if self.rng.random() < 0.2:
            at = time.monotonic() + self.rng.uniform(0, 8)
            return self.wait_until(lambda: time.monotonic() > at)
        if not self.wait_for_step():
            return False
        at = time.monotonic() + self.rng.uniform(0, 0.1)
        return self.wait_until(lambda: time.monotonic() > at)

    def wait_for_step(self) -> bool:
        """Whether the run came some steps further than the start before, with a checkpoint."""
        step = self.steps() + int(self.rng.integers(2, 13))
        return self.wait_until(lambda: self.steps() >= step and len(self.checkpoints()) > 0)

    def end(self) -> list[int | None]:
        """Waits for the end of the command; its status on each host."""
        until = time.monotonic() + _PATIENCE
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        if any(process.is_alive() for process in self.processes):
            self.kill()
            raise Ended("hung", self.said)
        return [process.exitcode for process in self.processes]

    def send(self, number: int) -> None:
        """Sends a signal to the process of the first host."""
        (process, *_) = self.processes
        os.kill(process.pid or 0, number)

    def kill(self) -> None:
        """Ends all processes that are left."""
        for process in self.processes:
            process.kill()
            process.join()

    def refusal(self) -> Ended:
        """The end of a command that is refused; anything but a sentence for people is none."""
        (status,) = self.end()
        said = self.said
        # Threads of the storage library may show a traceback of theirs beside the error.
        clear = status == 2 and "\nerror: " in f"\n{said}" and f'File "{_REPOSITORY}' not in said
        return Ended("refused", said) if clear else Ended("lost", f"status {status}: {said}")


def _sent(number: int, while_saving: bool, run: Run) -> bool:
    """Sends a signal; before its handlers are there a process ends by SIGTERM itself."""
    if while_saving:
        came = run.wait_for_step() and run.wait_until(run.saving)
    else:
        came = run.wait_for_moment()
    if not run.ended:
        run.send(number)
    (status,) = run.end()
    allowed = (0, -number, PREEMPTED) if number == signal.SIGTERM else (0, -number)
    if status not in allowed:
        raise Ended("lost", f"status {status}: {run.said}")
    return came and status != 0


def _damaged(damage: Callable[[Path, np.random.Generator], None], others: bool, run: Run) -> bool:
    """Kills the run, damages a file of its newest checkpoint, or of all, and starts it again."""
    if not (run.wait_for_step() and run.wait_until(lambda: len(run.checkpoints()) > 1)):
        return False
    run.kill()
    copy = _copy_of(run)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run.folder, copy)
    damaged = run.checkpoints() if run.rng.random() < 0.2 else run.checkpoints()[-1:]
    for checkpoint in damaged:
        files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
        files = [path for path in files if path.stat().st_size]
        damage(files[int(run.rng.integers(len(files)))], run.rng)
    if others and run.rng.random() < 0.4:
        names = ("config.json", "data.json", "metrics.jsonl")
        damage(run.folder / names[int(run.rng.integers(len(names)))], run.rng)
    before = _changed(run.folder / "steps.jsonl")
    run.start()
    if not run.wait_until(lambda: _changed(run.folder / "steps.jsonl") != before):
        end = run.refusal()
        shutil.rmtree(run.folder)
        copy.rename(run.folder)
        raise end
    return True


def _copy_of(run: Run) -> Path:
    return run.folder.with_name(f"{run.folder.name}.copy")


def _changed(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _truncate(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def _flip_a_bit(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _disk_full(run: Run) -> bool:
    """Fills the disk but for some bytes while the run trains, and makes room after its end."""
    filler = run.folder.parent / "filler"
    if not run.wait_for_step():
        return False
    room = int(run.rng.integers(2) * run.rng.integers(2**17))
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**16, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - room))
    try:
        if run.end() == [0]:
            return False  # what was left was enough for all that it still had to write
        raise run.refusal()
    finally:
        filler.unlink()


def _second_process(run: Run) -> bool:
    """Starts the command once more while the first is at a step, where it is held meanwhile."""
    if not run.wait_for_step():
        return False
    first = run.processes
    run.send(signal.SIGSTOP)
    try:
        run.start()
        end = run.refusal()
        raise end if "is in use" in run.said else Ended("lost", run.said)
    finally:
        run.processes = first
        run.send(signal.SIGCONT)


def _lost_host(run: Run) -> bool:
    """Kills one of two; the other has to end, not much later than its patience."""
    if not run.wait_for_step():
        return False
    lost = int(run.rng.integers(2))
    run.processes[lost].kill()
    began = time.monotonic()
    status = run.end()[1 - lost]
    seconds = time.monotonic() - began
    if status == 0:
        return False  # it had come to the end
    named = r"leader task" if lost == 0 else rf"Task {lost} heartbeat|heartbeats\):\n{lost}\n"
    if not re.search(named, run.said):
        raise Ended("lost", f"who is lost is not said: {run.said}")
    if seconds > 10 * _HOST_TIMEOUT:
        raise Ended("hung", f"the other host took {seconds:.0f} s: {run.said}")
    return True


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault: how it is injected, how often, on how many hosts, on the small disk or not.

    `inject` gets a run whose command has been started; it says whether the fault came before the
    command ended, and raises `Ended` where the fault is decided by that already.
    """

    inject: Callable[[Run], bool]
    share: float
    hosts: int = 1
    small_disk: bool = False


KINDS = {
    "SIGKILL": Kind(partial(_sent, signal.SIGKILL, False), 0.2),
    "SIGKILL during a save": Kind(partial(_sent, signal.SIGKILL, True), 0.15),
    "SIGTERM": Kind(partial(_sent, signal.SIGTERM, False), 0.15),
    "SIGTERM during a save": Kind(partial(_sent, signal.SIGTERM, True), 0.1),
    "truncated files": Kind(partial(_damaged, _truncate, True), 0.1),
    "flipped bits": Kind(partial(_damaged, _flip_a_bit, False), 0.1),
    "missing files": Kind(partial(_damaged, lambda path, rng: path.unlink(), True), 0.06),
    "full disk": Kind(_disk_full, 0.06, small_disk=True),
    "second process": Kind(_second_process, 0.04),
    "lost process of two": Kind(_lost_host, 0.04, hosts=2),
}


def finished(folder: Path) -> dict[str, Any]:
    """What two runs of one configuration have in common: state, summary, and each epoch's line."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    record = folder / "checkpoints" / str(lines[-1]["step"]) / "record" / "metadata"
    return {
        "state": json.loads(record.read_text())["checksum"],
        "summary": _comparable(json.loads((folder / "summary.json").read_text())),
        "epochs": [_comparable(line) for line in lines],
    }


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in _OF_EACH_RUN}


def truth(root: Path, hosts: int) -> dict[str, Any]:
    """What the run left alone ends with, which is trained once."""
    run = Run(root / f"alone_{hosts}", root, np.random.default_rng(), hosts)
    if not (run.folder / "summary.json").exists():
        run.start()
        if any(run.end()):
            raise RuntimeError(f"The run left alone failed: {run.said}")
    return finished(run.folder)


def befall(run: Run, kinds: list[str], alone: dict[str, Any]) -> list[dict[str, str]]:
    """Trains a run to its end with faults of these kinds, one after another.

    Returns:
      Of each that was injected its kind, its outcome, and what was seen where that is not
      "survived".
    """
    faults: list[dict[str, str]] = []
    shutil.rmtree(run.folder, ignore_errors=True)
    run.log.unlink(missing_ok=True)
    for kind in kinds:
        try:
            if run.ended:
                run.start()
            if not KINDS[kind].inject(run):
                break
            faults.append({"kind": kind, "outcome": "survived", "seen": ""})
        except Ended as end:
            faults.append({"kind": kind, "outcome": end.args[0], "seen": end.args[1][-2000:]})
            if end.args[0] != "refused":
                run.kill()
                return faults
    outcome, seen = _outcome(run, alone)
    for fault in faults:
        if outcome != "survived":
            fault |= {"outcome": outcome, "seen": seen[-2000:]}
    if outcome == "survived":
        for folder in (run.folder, _copy_of(run)):
            shutil.rmtree(folder, ignore_errors=True)
    return faults


def _outcome(run: Run, alone: dict[str, Any]) -> tuple[str, str]:
    """How a run ends that is left alone from now on."""
    try:
        if run.ended:
            run.start()
        if any(run.end()):
            return "lost", run.said
    except Ended as end:
        return end.args[0], end.args[1]
    differing = [part for part, value in finished(run.folder).items() if value != alone[part]]
    return ("wrong", f"{differing} differ") if differing else ("survived", "")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own at a folder; RuntimeError where the system mounts none."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        raise RuntimeError("A full disk needs a small one of its own, which root can mount.")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def campaign(root: Path, faults: int, seed: int) -> list[dict[str, str]]:
    """All faults, those of before too; after each run the record is written."""
    root.mkdir(parents=True, exist_ok=True)
    progress = root / "progress.json"
    done = json.loads(progress.read_text()) if progress.exists() else {"runs": 0, "faults": []}
    shares = [kind.share for kind in KINDS.values()]
    drawn = np.random.default_rng(seed).choice(list(KINDS), faults, p=shares).tolist()
    while left := Counter(drawn) - Counter(fault["kind"] for fault in done["faults"]):
        rng = np.random.default_rng([seed, done["runs"]])
        waiting = rng.permutation(sorted(left.elements())).tolist()
        kind = KINDS[waiting[0]]
        place = (kind.hosts, kind.small_disk)
        alike = [x for x in waiting if (KINDS[x].hosts, KINDS[x].small_disk) == place]
        with contextlib.ExitStack() as stack:
            folder = root / "disk" if kind.small_disk else root
            if kind.small_disk:
                stack.enter_context(small_disk(folder))
            run = Run(folder / f"run_{done['runs']}", root, rng, kind.hosts)
            stack.callback(run.kill)
            found = befall(run, alike[:_FAULTS_A_RUN], truth(root, kind.hosts))
            if not any(fault["outcome"] in ("lost", "wrong", "hung") for fault in found):
                run.log.unlink()
        done = {"runs": done["runs"] + 1, "faults": done["faults"] + found}
        write_json(progress, done)
        outcomes = ", ".join(f"{fault['kind']}: {fault['outcome']}" for fault in found)
        print(f"{len(done['faults'])} of {faults}: {outcomes}", flush=True)
    return done["faults"]


def main() -> None:
    """Prints the table, and writes the record where an argument says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many are injected")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--workdir", type=Path, default="runs/faults", help="where it goes on")
    parser.add_argument("--record", help="a JSON file for the numbers")
    values = parser.parse_args()
    faults = campaign(values.workdir.absolute(), values.faults, values.seed)
    counts = {kind: Counter(f["outcome"] for f in faults if f["kind"] == kind) for kind in KINDS}
    numbers = {
        "hardware": hardware(Layout("jit")),
        "seed": values.seed,
        "config": _CONFIG,
        "outcomes": counts,
        "full_disk": f"tmpfs of {_DISK_BYTES} bytes",
        "faults": [x for x in faults if x["outcome"] not in ("survived", "refused")],
    }
    publish("faults", numbers, values.record)


if __name__ == "__main__":
    main()

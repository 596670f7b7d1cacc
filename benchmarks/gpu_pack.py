"""Runs what waits for a GPU, one part after another, and records each; see `gpu_pack.sh`.

The parts, in this order: `tests`, those marked `device`; `speed`, the tables of `gpu_speed`;
`glmc`, GLMC 4x on CIFAR-10-LT at imbalance factor 200 with and without released Proj; `standard`,
ResNet-32 1x at 100 with cross-entropy and balanced softmax. Each is a process of its own, so that
one that fails costs the others nothing. Seeds train as one program, as many as the time that is
left for both runs of GLMC allows by the step that `speed` has measured.

Everything is below `--out`: records `gpu_*.json` and `cifar10.jsonl`, checkpoints in `runs`, what
the parts said in `logs`. Started again, finished parts are left out and begun runs go on.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_data import unpack
from benchmarks.gpu_speed import MEMBERS_ROW, record_path
from spa_jax.files import read_json, write_json
from spa_jax.reproduction.cells import read_records
from tests.data.tiny import random_images, write_cifar

PARTS = ("tests", "speed", "glmc", "standard")
PAIR = ("glmc-none", "glmc-proj-released")
STANDARD = ("cross_entropy-none", "balanced_softmax-none")
MOST_SEEDS, DRY_SEEDS = 3, 2
# 200 epochs of the 11,203 images that imbalance factor 200 leaves, in batches of 64.
PAIR_STEPS = len(PAIR) * 200 * (11_203 // 64)
TO_SAVE = 30  # seconds before the end at which a part stops by itself
TO_END = 45  # seconds that one that is interrupted gets


class Pack:
    """What one call does.

    Attributes:
      values: the command line.
      out: where everything is.
    """

    def __init__(self, values: argparse.Namespace) -> None:
        self.values, self.out = values, Path(values.out)
        self._ends = time.monotonic() + 60 * values.minutes

    @property
    def seconds_left(self) -> float:
        """Of this call."""
        return self._ends - time.monotonic()

    def run(self) -> int:
        """All parts that were asked for; the number of those that are still open."""
        parts: dict[str, Callable[[], bool]] = {
            "tests": self.tests,
            "speed": self.speed,
            "glmc": lambda: self.train("glmc", PAIR, 200, record["seeds"]),
            "standard": lambda: self.train("standard", STANDARD, 100, MOST_SEEDS),
        }
        done = self.out / "parts.json"
        remedy = "remove it, and finished parts are looked at again."
        record = read_json(done, remedy) if done.exists() else {}
        asked = self.values.parts.split(",")
        for name in asked:
            if record.get(name, {}).get("finished") or self.seconds_left < TO_SAVE:
                continue
            began = time.monotonic()
            if name == "glmc" and "seeds" not in record:
                # Once: a later call has less time, and would leave seeds without their partners.
                record["seeds"] = self.seeds()
                write_json(done, record)
            finished = parts[name]()
            seconds = record.get(name, {}).get("seconds", 0) + time.monotonic() - began
            record[name] = {"finished": finished, "seconds": round(seconds)}
            write_json(done, record)
            print(f"{name}: {'finished' if finished else 'open'}, {seconds:.0f} s", flush=True)
        return sum(not record.get(name, {}).get("finished") for name in asked)

    def tests(self) -> bool:
        """The tests marked `device`; what came out is recorded, whatever it is."""
        which = ["tests/training/test_device.py", "tests/training/test_loop.py"]
        if not self.values.dry_run:
            which += ["tests/training/test_glmc_peer.py", "tests/alignment/test_reference.py"]
        options = ["-m", "device", "-q", "--optimized", "-W", "ignore", "-p", "no:cacheprovider"]
        status, said = self.start("tests", "pytest", *options, *which)
        record = {"date": datetime.now(UTC).date().isoformat(), "status": status, "said": said[-1:]}
        write_json(record_path(self.out, "tests"), record)
        return status in (0, 1)

    def speed(self) -> bool:
        """The tables of `gpu_speed`, for half of this call at most, so that training begins."""
        tiny = ["--tiny"] if self.values.dry_run else []
        most = min(self.seconds_left - TO_SAVE, 30 * self.values.minutes)
        minutes = f"--minutes={most / 60:.2f}"
        status, _ = self.start("speed", "benchmarks.gpu_speed", minutes, f"--out={self.out}", *tiny)
        return status == 0

    def seeds(self) -> int:
        """How many seeds of the pair the minutes that are left allow, by what a step takes."""
        path = record_path(self.out, "members")
        if self.values.seeds or self.values.dry_run or not path.exists():
            return self.values.seeds or MOST_SEEDS
        times = read_json(path, "remove it.")["milliseconds"][MEMBERS_ROW]
        spent = self.values.minutes - self.seconds_left / 60
        left, fits = self.values.left - spent, 1
        for together, step in times.items():
            needed = PAIR_STEPS * step / 6e4
            print(
                f"GLMC, both runs, {together} at once: {needed:.1f} of {left:.1f} min", flush=True
            )
            if needed < left:
                fits = max(fits, int(together.split()[0]))
        return fits

    def train(self, part: str, rows: Sequence[str], factor: int, seeds: int) -> bool:
        """Runs of the table of CIFAR-10-LT; whether all have their records."""
        stage, records = "dry_run" if self.values.dry_run else "final", self.out / "cifar10.jsonl"
        seeds = min(seeds, DRY_SEEDS) if self.values.dry_run else seeds
        names = [f"{stage}-{row}-if{factor}-label-seed{i}" for i in range(seeds) for row in rows]
        settings = {
            "data.folder": self.data(),
            "checkpoint.every_epochs": 50,  # and where the time ends
            "logging.every_steps": 0,
            "logging.tensorboard": False,
            "logging.plots": False,
        }
        if self.values.dry_run:
            settings["data.verify"] = False
        self.start(
            part,
            "spa_jax.reproduce",
            "cifar10",
            f"--minutes={(self.seconds_left - TO_SAVE) / 60:.2f}",
            f"--out={self.out / 'runs'}",
            f"--records={records}",
            *(f"--only={name}" for name in names),
            *(f"--set={field}={value}" for field, value in settings.items()),
            *(("--together", "--dry_run") if self.values.dry_run else ()),
        )
        return {record["cell"] for record in read_records(records)} >= {*names}

    def data(self) -> Path:
        """The folder of CIFAR-10: what `--data` names, unpacked once if it is a file."""
        given, own = self.values.data, self.out / "data"
        if given and not given.endswith(".npz"):
            return Path(given)
        if given and not own.exists():
            with np.load(given, allow_pickle=False) as packed:
                unpack(packed, own)
        elif not own.exists():  # of a dry run: noise in the official form
            train, test = ((random_images(n, n), np.arange(n) % 10) for n in (2000, 100))
            write_cifar(own, "cifar10", True, train, test, [f"kind_{c}" for c in range(10)])
        return own

    def start(self, part: str, module: str, *arguments: str) -> tuple[int, list[str]]:
        """Runs a module until its end or that of the time: its status, and the lines it said."""
        log = self.out / "logs" / f"{part}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as opened:
            at = opened.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=opened, stderr=subprocess.STDOUT
            )
            try:
                process.wait(max(self.seconds_left, 0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # on which all of them end in order
                try:
                    process.wait(TO_END)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        said = log.read_bytes()[at:].decode(errors="replace").splitlines()
        print("\n".join(said[-12:]), flush=True)
        return process.returncode, said


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the open parts; 0 if none is left, 75 if the same command goes on."""
    parser = argparse.ArgumentParser(prog="gpu_pack.sh", description=__doc__)
    parser.add_argument("--data", default="", help="folder of CIFAR-10, or a file of gpu_data")
    parser.add_argument("--minutes", type=float, default=9.0, help="for this call")
    parser.add_argument("--left", type=float, help="for this call and later ones; default: this")
    parser.add_argument("--out", default="runs/gpu_pack", help="folder for all that it writes")
    parser.add_argument("--seeds", type=int, default=0, help="of GLMC; 0: what there is time for")
    parser.add_argument("--parts", default=",".join(PARTS), help="some, in an order")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, with tiny sizes")
    values: Any = parser.parse_args(argv)
    values.left = values.left or values.minutes
    if unknown := {*values.parts.split(",")} - {*PARTS}:
        parser.error(f"there is no part {unknown.pop()!r}")
    if not (values.data or values.dry_run):
        parser.error("--data is missing: the folder of CIFAR-10, or a file of benchmarks.gpu_data")
    if values.data and not Path(values.data).exists():
        parser.error(f"--data={values.data} does not exist")
    left = Pack(values).run()
    print(f"{left} part(s) are open." if left else "All parts are finished.")
    return 75 if left else 0


if __name__ == "__main__":
    sys.exit(main())

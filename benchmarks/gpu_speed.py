"""The tables of `docs/performance.md` on a GPU, part by part, for as long as it may.

python -m benchmarks.gpu_speed [--minutes=9] [--out=results/bench]

Reuses what measures on a CPU: `alignment_cost`, `overhead`, `peers.torch_steps`, and a step of many
runs as one program. Each part is a row, which is added to its record `gpu_*.json` as soon as it is
measured; started again, it goes on with the rows that are not there. Without PyTorch here, or a GPU
that it sees, its rows are left out, and it is said why. Without a GPU it measures the CPU it is on,
with the sizes for a GPU, unless `--tiny` takes the smallest.
"""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from benchmarks import overhead
from benchmarks.alignment_cost import HEADS, time_updates
from benchmarks.peers import torch_steps
from benchmarks.timing import Stepper, Workload, loaded_hardware
from spa_jax.command_line import keep_compiled_programs
from spa_jax.files import read_json
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout
from spa_jax.training.interruption import PREEMPTED
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt
from studies.tables import publish

MEMBERS = (1, 3)
"""How many runs of GLMC are timed as one program."""
MEMBERS_ROW = "GLMC, ResNet-32 (4x), batch 64"

Times = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Part:
    """A row of a record.

    Attributes:
      benchmark: what the record is of; its file is `gpu_BENCHMARK.json`.
      row: its name there.
      measure: gives it.
      unit: the record's field that the rows are in.
    """

    benchmark: str
    row: str
    measure: Callable[[], Times]
    unit: str = "milliseconds"


def record_path(folder: Path, benchmark: str) -> Path:
    """Where a benchmark's record is."""
    return folder / f"gpu_{benchmark}.json"


def parts(tiny: bool) -> Iterator[Part]:
    """All of them, by their worth for the time that they take to compile."""
    heads = list(HEADS.items())[: 1 if tiny else None]
    for name, head in heads:
        measure = functools.partial(time_updates, *head, repeated=1 if tiny else 20)
        yield Part("alignment_cost", name, measure, "microseconds")
    for name, workload in workloads(tiny).items():
        yield Part("overhead", name, functools.partial(overhead.milliseconds, workload))
    yield Part("members", MEMBERS_ROW, functools.partial(milliseconds_of_members, tiny))
    yield from (against_torch(name) for name in ("1x", "4x"))
    if not tiny:
        resnet50 = Workload(resnet50_in_bfloat16, (224, 224, 3), 1000, steps=4, rounds=9)
        yield Part("overhead", "ResNet-50, 1,000 classes", lambda: overhead.milliseconds(resnet50))
    yield from (against_torch(name) for name in torch_steps.STEPS if name not in ("1x", "4x"))


def against_torch(name: str) -> Part:
    """A step of ours and PyTorch's, in both precisions."""
    title, workload = torch_steps.STEPS[name]
    longer = dataclasses.replace(workload, steps=10, rounds=9)
    against = functools.partial(torch_steps.milliseconds, sys.executable, name, longer)
    return Part("torch_steps", title, functools.partial(against, bfloat16=name != "small"))


def workloads(tiny: bool) -> dict[str, Workload]:
    """What is timed with and without SpA, in pieces long enough for a GPU."""
    known = overhead.WORKLOADS
    if tiny:
        return {"digits": Workload(lambda: narrow(known["digits"].recipe()), rounds=1)}
    steps = {"digits": 40, "Fashion-MNIST": 40, "ResNet-32": 20}
    return {name: dataclasses.replace(known[name], steps=n) for name, n in steps.items()}


def narrow(config: Config) -> Config:
    """The small network as small as it gets, in place."""
    config.model.small.widths, config.batch_size = (4,), 8
    return config


def resnet50_in_bfloat16() -> Config:
    """The CPU's row with the batch and the precision of a GPU."""
    config = overhead.resnet50()
    config.batch_size, config.model.dtype = 128, "bfloat16"
    return config


def milliseconds_of_members(tiny: bool) -> Times:
    """Of a step of one run of GLMC, and of one of several runs as one program."""
    config = cifar10_lt(200.0, "spa")
    if tiny:
        config.model.cifar_resnet.width_factor, config.model.name = 1, "small"
        config = narrow(config)
    steps, rounds = (1, 1) if tiny else (20, 9)
    workload = Workload(lambda: config, (32, 32, 3), steps=steps, rounds=rounds)
    data, sides = workload.noise(config.batch_size), {}
    for members in MEMBERS:
        layout = Layout("jit") if members == 1 else Layout("vmap", members=members)
        name = f"{members} runs" if members > 1 else "1 run"
        sides[name] = Stepper(Program(config, data, layout), steps)
    return workload.milliseconds(sides)


def why_no_torch() -> str:
    """Why PyTorch's rows cannot be measured; "" if they can."""
    check = "import torch; print(torch.cuda.is_available())"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    if found.returncode:
        return f"there is no PyTorch in the environment of {sys.executable}"
    return "" if found.stdout.strip() == "True" else "PyTorch sees no GPU here"


def measure_all(folder: Path, minutes: float, tiny: bool, say: Callable[[str], None]) -> list[str]:
    """Measures what the records lack; returns the names of the rows that are still open."""
    ends, no_torch, left = time.monotonic() + 60 * minutes, None, []
    for part in parts(tiny):
        path = record_path(folder, part.benchmark)
        known = read_json(path, "remove it, and it is measured anew.") if path.exists() else {}
        rows = known.get(part.unit, {})
        if part.row in rows:
            continue
        if part.benchmark == "torch_steps":
            no_torch = why_no_torch() if no_torch is None else no_torch
            if no_torch:
                say(f"{part.benchmark}, {part.row}: left out, as {no_torch}.")
                continue
        if time.monotonic() >= ends:
            left.append(f"{part.benchmark}, {part.row}")
            continue
        say(f"{part.benchmark}, {part.row}: {time.strftime('%H:%M:%S')}")
        numbers: dict[str, Any] = {
            "hardware": loaded_hardware(),
            part.unit: rows | {part.row: dict(part.measure())},
        }
        publish(part.benchmark, numbers, str(path))
        jax.clear_caches()
    return left


def main(argv: list[str]) -> None:
    """Measures, and says what is left; ends with status 75 if there is any."""
    del argv
    keep_compiled_programs()
    values, say = flags.FLAGS, functools.partial(print, flush=True)
    left = measure_all(Path(values.out), values.minutes, values.tiny, say)
    say("\n".join(["All rows are measured."] if not left else ["Open rows:", *left]))
    sys.exit(PREEMPTED if left else 0)


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    flags.DEFINE_float("minutes", float("inf"), "How long to begin another part.")
    flags.DEFINE_string("out", "results/bench", "Folder of the records.")
    flags.DEFINE_boolean("tiny", False, "A head, a network and a step of each, to try it.")


if __name__ == "__main__":
    define_flags()
    app.run(main)

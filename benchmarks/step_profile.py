"""Where the time of a ResNet-32 step goes on a CPU, with Flax's layers and with ours.

python -m benchmarks.step_profile [--record=FILE]

Traces training steps of the standard recipe (1x, batch of 128), and adds up what XLA's operations
took by kind, as the compiled program tells them apart. Operations that run side by side count each
for itself, so that on several cores they can sum up to more than the whole step, which is timed
without a trace, both kinds of layers in turn.
"""

import collections
import re
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from jax.profiler import ProfileData

from benchmarks.timing import Stepper, Workload, loaded_hardware, run_benchmark
from spa_jax.models import cpu_layers
from spa_jax.training.config import Config
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt

TRACED_STEPS = 3


def recipe() -> Config:
    """ResNet-32 with the width of the literature."""
    config = cifar10_lt()
    config.model.cifar_resnet.width_factor = 1
    return config


WORKLOAD = Workload(recipe, (32, 32, 3), rounds=11)


def kind_of(instruction: str, body: str) -> str:
    """What an operation of the compiled program is for.

    Args:
      instruction: its line.
      body: the lines of the computation that it calls, if it calls one.
    """
    text = f"{instruction}\n{body}"
    if convolution := re.search(r" convolution\(.*?window={size=(\d+)x", text):
        if int(convolution[1]) > 3:  # the window of a kernel's gradient is an image
            return "convolutions: gradients of kernels"
        if "transpose(jvp" in text:
            return "convolutions: gradients of inputs"
        return "convolutions: forward"
    if re.search(r" reduce\(", text):
        return "sums, of batch normalisation mostly"
    if re.match(r"(ROOT )?%?(transpose|copy)", instruction):
        return "transposed copies, and what is computed on the way"
    return "element by element, and the rest"


def kinds(program_text: str) -> dict[str, str]:
    """The kind of each operation of a compiled program, by its name."""
    bodies: dict[str, list[str]] = collections.defaultdict(list)
    computation = ""
    for line in program_text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
        elif " = " in line:
            bodies[computation].append(line.strip())
    found = {}
    for line in (line for body in list(bodies.values()) for line in body):
        called = re.search(r"calls=%?([\w.-]+)", line)
        name = line.removeprefix("ROOT ").split()[0].lstrip("%")
        found[name] = kind_of(line, "\n".join(bodies[called[1]]) if called else "")
    return found


def traced_milliseconds(stepper: Stepper, names: dict[str, str]) -> dict[str, float]:
    """Of a step, by kind of operation."""
    nanoseconds: dict[str, float] = dict.fromkeys(sorted(set(names.values())), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(TRACED_STEPS):
                jax.block_until_ready(stepper())
        (path,) = Path(folder).rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                if event.name in names:
                    nanoseconds[names[event.name]] += event.duration_ns
    return {kind: total / 1e6 / TRACED_STEPS for kind, total in nanoseconds.items()}


def measure() -> dict[str, Any]:
    """The times of both kinds of layers."""
    data = WORKLOAD.noise(recipe().batch_size)
    steppers, names = {}, {}
    for layers, on_cpu in (("Flax's layers", False), ("spa_jax", True)):
        with mock.patch.object(cpu_layers, "_on_cpu", return_value=on_cpu):
            steppers[layers] = Stepper(Program(recipe(), data), WORKLOAD.steps)
            steppers[layers]()  # compiles
            names[layers] = kinds(steppers[layers].compiled_text())
    rows = {"whole step": WORKLOAD.milliseconds(steppers)}
    parts = {each: traced_milliseconds(steppers[each], names[each]) for each in steppers}
    for kind in next(iter(parts.values())):
        rows[kind] = {layers: of_kind[kind] for layers, of_kind in parts.items()}
    return {"hardware": loaded_hardware(), "milliseconds": rows}


if __name__ == "__main__":
    run_benchmark("step_profile", measure)

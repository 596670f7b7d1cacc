"""What a data parallel training step moves between devices, counted from its compiled program.

python -m benchmarks.scaling [--record=FILE]

Compiles a step of SpA-Proj on three networks in the three modes, on four emulated devices, and runs
none. Prints what is added up over the devices next to what has to be, and a model of the time of a
step on two large machines: its operations at a share of the peak, then one ring all-reduce of all
that is added up, and for each all-reduce a latency. The assumptions are in the record.
"""

import dataclasses
import math
import re
from typing import Any

import jax

from benchmarks.overhead import resnet50
from benchmarks.timing import Workload, run_benchmark
from spa_jax.training.config import Config
from spa_jax.training.devices import PARALLEL_MODES, Layout
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar100_lt
from spa_jax.training.rundir.summary import hardware

_DEVICES = 4
EFFICIENCY = 0.3
"""The share of the peak at which the operations of a step are assumed to run."""
LATENCY = 30e-6
"""Seconds that each all-reduce is assumed to take however small it is."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the model of the time assumes.

    Attributes:
      devices: that share a batch.
      peak: operations a second of a device in bfloat16, of the vendor's data sheet.
      bandwidth: bytes a second that a ring of all devices moves in its one direction.
    """

    devices: int
    peak: float
    bandwidth: float

    def ring_seconds(self, size: float) -> float:
        """Of an all-reduce in a ring: each device sends and gets 2 (n - 1) / n of the bytes."""
        return 2 * (self.devices - 1) / self.devices * size / self.bandwidth


MACHINES = {
    # A link of 400 Gbit/s, and a card of 400 Gbit/s a host.
    "TPU v5e, 256": Machine(256, 197e12, 50e9),
    "H100, 64": Machine(64, 989e12, 50e9),
}


def vit() -> Config:
    """ViT-S/16 on the images that ImageNet is trained with."""
    config = resnet50()
    config.model.name = "vit_s16"
    return config


NETWORKS = {
    "ResNet-32, 100 classes": (Workload(cifar100_lt, (32, 32, 3), 100), 128),
    "ResNet-50, 1,000 classes": (Workload(resnet50, (224, 224, 3), 1000), 32),
    "ViT-S/16, 1,000 classes": (Workload(vit, (224, 224, 3), 1000), 32),
}
"""Name -> what is trained, images of a device in the model of the time."""


def collectives(text: str) -> list[tuple[str, int]]:
    """Name of each collective of a compiled program, and how many numbers it has as results.

    Example:
      >>> collectives("%a = (f32[4,2]{1,0}, f32[]) all-reduce-start(%b, %c), channel_id=1")
      [('all-reduce', 9)]
    """
    pattern = r"= (.*?) (all-[a-z-]+?|ragged-[a-z-]+?|reduce-scatter|collective-\w+)(?:-start)?\("
    found = []
    for results, name in re.findall(pattern, text):
        shapes = re.findall(r"\w\d+\[([\d,]*)\]", results)
        sizes = (math.prod(int(side) for side in shape.split(",") if side) for shape in shapes)
        found.append((name, sum(sizes)))
    return found


def expected(state: Any) -> dict[str, int]:
    """How many numbers data parallelism has to add up, item by item.

    Mean and variance of each normalisation are needed twice: their sums in the forward pass, and
    as many in the backward pass, which `jit` takes from gradients where they are the same.

    Args:
      state: a :class:`spa_jax.training.state.TrainState`, abstract or not.
    """
    classes, dim = state.class_means.mean.shape
    return {
        "gradients": total_size(state.params),
        "class means": classes * dim + classes,
        "batch statistics": total_size(state.batch_stats),
        "their gradients": total_size(state.batch_stats),
        "loss, accuracy": 2,
    }


def counted(name: str, mode: str) -> dict[str, Any]:
    """A network's step in a mode: what has to be added up and what is, in numbers of float32.

    And how many operations an image takes, forward and backward.
    """
    workload, _ = NETWORKS[name]
    config = workload.recipe()
    config.spa.method, config.parallel, config.batch_size = "proj", mode, 2 * _DEVICES
    layout = Layout(mode, jax.devices()[:_DEVICES])
    program = Program(config, workload.noise(config.batch_size), layout)
    step = compiled_step(program)
    found = collectives(step.as_text())
    state = jax.eval_shape(lambda: program.init_state(config, resumed=True))
    return {
        "network": name,
        "mode": mode,
        "expected": expected(state),
        "moved": sum(size for _, size in found),
        "collectives": len(found),
        "kinds": sorted({kind for kind, _ in found}),
        "operations": step.cost_analysis()["flops"] / (config.batch_size / _DEVICES),
    }


def modelled(row: dict[str, Any], machine: Machine) -> dict[str, float]:
    """Milliseconds of a step: its operations, the bytes in a ring, the latencies, and together."""
    images = NETWORKS[row["network"]][-1]
    parts = {
        "operations": images * row["operations"] / (EFFICIENCY * machine.peak),
        "bytes": machine.ring_seconds(4 * row["moved"]),
        "latencies": LATENCY * row["collectives"],
    }
    return {name: 1e3 * seconds for name, seconds in parts.items()}


def compiled_step(program: Program) -> Any:
    """The step of a program of resident data, as it runs; nothing is computed."""
    state = jax.eval_shape(lambda: program.init_state(program.config, resumed=True))
    inputs = jax.eval_shape(lambda state: next(program.batches(state, 0, 0)), state)
    step = jax.jit(lambda *args: program.train_step(*args))
    args = program.layout.abstract((state, program.zero_totals, inputs), program.places)
    return step.lower(*args).compile()


def total_size(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def measure() -> dict[str, Any]:
    """The rows of all networks and modes, and the model of their times."""
    settings: Any = jax.config
    settings.update("jax_num_cpu_devices", _DEVICES)
    rows = []
    for name in NETWORKS:
        for mode in PARALLEL_MODES:
            rows.append(counted(name, mode))
            jax.clear_caches()
    return {
        "hardware": hardware(Layout("jit")),
        "rows": rows,
        "assumptions": {"efficiency": EFFICIENCY, "latency": LATENCY},
        "machines": {name: dataclasses.asdict(machine) for name, machine in MACHINES.items()},
        "milliseconds": [
            {"network": row["network"], "machine": name, "images": NETWORKS[row["network"]][-1]}
            | modelled(row, machine)
            for row in rows
            for name, machine in MACHINES.items()
            if row["mode"] == "jit"
        ],
    }


if __name__ == "__main__":
    run_benchmark("scaling", measure)

"""A training step with a head of many classes that is cut over eight emulated devices.

python -m benchmarks.many_classes [--record=FILE]

Prints, for each number of classes, the time of a step of an adapter on features with a linear head,
without SpA and with SpA-Proj, the memory that the step needs on each device where head and class
means are cut over four of them and where every device has all, as the compiler counts it, and the
peak of the whole process. Each number of classes has a process of its own.
"""

import multiprocessing
import resource
from typing import Any

import jax
import numpy as np

from benchmarks.timing import Stepper, interleaved_seconds, loaded_hardware, run_benchmark
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.features import checked_features
from spa_jax.training.devices import Layout, MeshOptions
from spa_jax.training.program import Program
from spa_jax.training.recipes import features

_CLASSES, _DIM, _BATCH, _DEVICES = (1_000, 10_000, 100_000), 512, 256, 8
_MESH = MeshOptions(data=2, classes=4)


def make_program(num_classes: int, variant: str, mesh: MeshOptions) -> Program:
    """Of a bank of noise whose labels are spread over all classes."""
    noise = np.random.default_rng(0).normal(size=(4 * _BATCH, _DIM)).astype(np.float32)
    labels = np.linspace(0, num_classes - 1, len(noise)).astype(np.int32)
    examples = LabelledImages(checked_features(noise, "noise"), labels)
    names = tuple(map(str, range(num_classes)))
    config = features(model="adapter")
    config.batch_size = config.eval_batch_size = _BATCH
    config.spa.method = variant
    data = LongTailedDataset("noise", examples, examples, names, {})
    return Program(config, data, Layout("jit", options=mesh))


def row_of(num_classes: int) -> dict[str, Any]:
    """The row of a number of classes, in a process that has done nothing else."""
    jax.config.update("jax_num_cpu_devices", _DEVICES)
    programs = {name: make_program(num_classes, name, _MESH) for name in ("none", "proj")}
    seconds: dict[str, float] = {}
    for name, program in programs.items():  # not in turn, so that the memory is that of one
        seconds |= interleaved_seconds({name: Stepper(program)}, rounds=5)
    return {
        "classes": num_classes,
        "milliseconds": {name: 1e3 * time for name, time in seconds.items()},
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "device_bytes": {
            "cut": programs["proj"].device_bytes(),
            "replicated": make_program(num_classes, "proj", MeshOptions()).device_bytes(),
        },
        "hardware": loaded_hardware(programs["proj"].layout),
    }


def measure() -> dict[str, Any]:
    """The rows of all numbers of classes."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.map(row_of, _CLASSES, chunksize=1)
    shape = {"dim": _DIM, "batch": _BATCH, "data": _MESH.data, "classes": _MESH.classes}
    return {"hardware": rows[0]["hardware"], "shape": shape, "rows": rows}


if __name__ == "__main__":
    run_benchmark("many_classes", measure)

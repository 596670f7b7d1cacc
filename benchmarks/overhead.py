"""What a training step takes longer under each SpA variant than without SpA.

python -m benchmarks.overhead [--workloads=digits] [--record=FILE]

Prints a table of whole training steps, from the digits to a ResNet-50 with 1,000 classes: all
variants of a workload are compiled first, and then take steps in turn, so that what else the
machine does meets all of them. Images but those of the digits are noise of the right size.
"""

from typing import Any

import jax
from absl import flags

from benchmarks.timing import Stepper, Workload, loaded_hardware, run_benchmark
from spa_jax.training.config import Config, default_config
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt, digits_lt, fashion_mnist_lt
from spa_jax.training.variants import VARIANTS

_ONLY = flags.DEFINE_list("workloads", None, "Some of them, by name.")


def resnet50() -> Config:
    """A head of 1,000 classes and 2,048 features, on the images that ImageNet is trained with."""
    config = default_config()
    config.model.name, config.batch_size, config.augment.flip = "resnet50", 8, True
    return config


WORKLOADS = {
    "digits": Workload(digits_lt, steps=40, rounds=25),
    "Fashion-MNIST": Workload(fashion_mnist_lt, (28, 28, 1), steps=5, rounds=25),
    "ResNet-32": Workload(cifar10_lt, (32, 32, 3)),
    "ResNet-50, 1,000 classes": Workload(resnet50, (224, 224, 3), 1000),
}


def milliseconds(workload: Workload) -> dict[str, float]:
    """Of a step under each variant, and without SpA once more: what times differ by anyhow."""
    data, programs = workload.noise(workload.recipe().batch_size), {}
    for variant in VARIANTS:
        config = workload.recipe()
        config.spa.method = variant
        programs[variant] = Program(config, data)
        data = programs[variant].data
    programs["none, again"] = programs["none"]
    sides = {name: Stepper(program, workload.steps) for name, program in programs.items()}
    return workload.milliseconds(sides)


def measure() -> dict[str, Any]:
    """The numbers of the workloads that were asked for."""
    times = {}
    for name, workload in WORKLOADS.items():
        if _ONLY.value is None or name in _ONLY.value:
            times[name] = milliseconds(workload)
            jax.clear_caches()
    return {"hardware": loaded_hardware(), "milliseconds": times}


if __name__ == "__main__":
    run_benchmark("overhead", measure)

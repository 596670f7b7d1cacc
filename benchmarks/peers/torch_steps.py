"""A training step of ours against PyTorch's, in turn.

python -m benchmarks.peers.torch_steps --torch=/path/to/python [--steps=1x] [--record=FILE]

The other side is `torch_worker` in an environment with PyTorch, so that neither has to stand the
other's packages. The small network of Fashion-MNIST-LT and ResNet-32 with cross-entropy, and
ResNet-32 with GLMC and SpA-Proj: same networks, batch of 128, crops and flips inside the step, SGD
with momentum and decay. Prints medians over rounds in which all take a step in turn.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from absl import flags

from benchmarks.timing import Stepper, Workload, loaded_hardware, run_benchmark
from spa_jax.command_line import stop
from spa_jax.training.config import Config
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt, fashion_mnist_lt

_TORCH = flags.DEFINE_string("torch", None, "The Python of an environment with PyTorch.")
_ONLY = flags.DEFINE_list("steps", None, "Some of: small, 1x, glmc, 4x.")

WAYS = ("eager", "channels-last", "compiled", "compiled, channels-last")


def resnet32(width_factor: int) -> Config:
    """The standard recipe."""
    config = cifar10_lt()
    config.model.cifar_resnet.width_factor = width_factor
    return config


def glmc_with_proj() -> Config:
    """SpA's released recipe, on the narrow network and the others' batches."""
    config = cifar10_lt(recipe="spa")
    config.model.cifar_resnet.width_factor, config.batch_size = 1, 128
    return config


CIFAR_SHAPE = (32, 32, 3)
STEPS = {
    "small": ("small network", Workload(fashion_mnist_lt, (28, 28, 1), rounds=51)),
    "1x": ("ResNet-32 (1x)", Workload(partial(resnet32, 1), CIFAR_SHAPE, rounds=11)),
    "glmc": ("ResNet-32 (1x), GLMC, SpA-Proj", Workload(glmc_with_proj, CIFAR_SHAPE, rounds=7)),
    "4x": ("ResNet-32 (4x)", Workload(partial(resnet32, 4), CIFAR_SHAPE, rounds=3)),
}
"""The worker's name of a step -> that of its row, and our side."""


class TorchSteps:
    """Takes some steps in the worker at each call, and waits for its answer."""

    def __init__(self, worker: subprocess.Popen[str], steps: int) -> None:
        self._worker, self._steps = worker, steps
        self._answer()  # ready

    def __call__(self) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(f"{self._steps}\n")
        self._worker.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line:
            stop(f"PyTorch's side ended with status {self._worker.wait()}; see what it said above.")
        return line


@contextlib.contextmanager
def torch_steps(python: str, name: str, way: str, steps: int) -> Iterator[TorchSteps]:
    """The other side, as long as it is needed."""
    arguments = [python, "-m", "benchmarks.peers.torch_worker", name, way]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield TorchSteps(worker, steps)
        assert worker.stdin is not None
        worker.stdin.close()


def milliseconds(
    python: str, name: str, workload: Workload, bfloat16: bool = False
) -> dict[str, float]:
    """Of a step on each side.

    Args:
      python: of an environment with PyTorch.
      name: of the worker's step.
      workload: our side of it.
      bfloat16: whether each side computes so too, and not in float32 alone.
    """
    data, steps = workload.noise(workload.recipe().batch_size), workload.steps
    ours, theirs = {"spa_jax": "float32"}, [*WAYS]
    if bfloat16:
        ours["spa_jax, bfloat16"] = "bfloat16"
        theirs.append(f"{WAYS[-1]}, bfloat16")
    sides: dict[str, Callable[[], Any]] = {}
    with contextlib.ExitStack() as stack:
        for side, dtype in ours.items():
            config = workload.recipe()
            config.model.dtype = dtype
            sides[side] = Stepper(Program(config, data), steps)
        for way in theirs:
            sides[way] = stack.enter_context(torch_steps(python, name, way, steps))
        return workload.milliseconds(sides)


def measure() -> dict[str, Any]:
    """The numbers of the steps that were asked for."""
    times = {}
    for name, (title, workload) in STEPS.items():
        if _ONLY.value is None or name in _ONLY.value:
            times[title] = milliseconds(_TORCH.value, name, workload)
            jax.clear_caches()
    return {"hardware": loaded_hardware(), "milliseconds": times}


if __name__ == "__main__":
    flags.mark_flag_as_required("torch")
    run_benchmark("torch_steps", measure)

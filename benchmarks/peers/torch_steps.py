"""A training step of ours against PyTorch's, in turn.

python -m benchmarks.peers.torch_steps --torch=/path/to/python [--only=1x] [--record=FILE]

The other side is `torch_worker` in an environment with PyTorch, so that neither has to stand the
other's packages. The small network of Fashion-MNIST-LT and ResNet-32 with cross-entropy, and
ResNet-32 with GLMC and SpA-Proj: same networks, batch of 128, crops and flips inside the step, SGD
with momentum and decay. Prints medians over rounds in which all take a step in turn.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from functools import partial

import jax
from absl import app, flags

from benchmarks.timing import Stepper, interleaved_seconds, loaded_hardware, publish
from benchmarks.workloads import Workload, noise
from spa_jax.command_line import stop
from spa_jax.training.config import Config
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt, fashion_mnist_lt

_TORCH = flags.DEFINE_string("torch", None, "The Python of an environment with PyTorch.")
_ONLY = flags.DEFINE_list("only", None, "Some of: small, 1x, glmc, 4x.")

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
    """Takes a step in the worker at each call, and waits for its answer."""

    def __init__(self, worker: subprocess.Popen[str]) -> None:
        self._worker = worker
        self._answer()  # ready

    def __call__(self) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write("\n")
        self._worker.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line:
            stop(f"PyTorch's side ended with status {self._worker.wait()}; see what it said above.")
        return line


@contextlib.contextmanager
def torch_steps(name: str, way: str) -> Iterator[TorchSteps]:
    """The other side, as long as it is needed."""
    arguments = [_TORCH.value, "-m", "benchmarks.peers.torch_worker", name, way]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield TorchSteps(worker)
        assert worker.stdin is not None
        worker.stdin.close()


def milliseconds(name: str, workload: Workload) -> tuple[dict[str, float], dict[str, object]]:
    """Of a step on each side, and the machine."""
    config = workload.recipe()
    program = Program(config, noise(workload, config.batch_size))
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(torch_steps(name, way)) for way in WAYS}
        calls = {"spa_jax": (Stepper(program, 1),), **{way: (it,) for way, it in workers.items()}}
        seconds = interleaved_seconds(calls, workload.rounds)
    return {side: 1e3 * time for side, time in seconds.items()}, loaded_hardware(program.layout)


def main(argv: list[str]) -> None:
    """Prints the table, and writes the record where the flag says."""
    del argv
    times, machine = {}, {}
    for name, (title, workload) in STEPS.items():
        if _ONLY.value is None or name in _ONLY.value:
            times[title], machine = milliseconds(name, workload)
            jax.clear_caches()
    publish("torch_steps", {"hardware": machine, "milliseconds": times})


if __name__ == "__main__":
    flags.mark_flag_as_required("torch")
    app.run(main)

"""A training step of ours against PyTorch's: ResNet-32 with cross-entropy, in turn.

python -m benchmarks.peers.torch_steps --torch=/path/to/python [--only=1x] [--record=FILE]

The other side is `torch_worker` in an environment with PyTorch, so that neither has to stand the
other's packages. Same network, batch of 128, crops and flips inside the step, SGD with momentum and
decay. Prints medians over rounds in which all take a step in turn, and how often PyTorch's fit.
"""

import contextlib
import subprocess
from collections.abc import Iterator

import jax
from absl import app, flags

from benchmarks.timing import Stepper, interleaved_seconds, loaded_hardware, publish
from benchmarks.workloads import Workload, noise
from spa_jax.command_line import stop
from spa_jax.training.config import Config
from spa_jax.training.program import Program
from spa_jax.training.recipes import cifar10_lt

_TORCH = flags.DEFINE_string("torch", None, "The Python of an environment with PyTorch.")
_ONLY = flags.DEFINE_list("only", None, "Some of the widths: 1x, 4x.")

WAYS = ("eager", "channels-last", "compiled", "compiled, channels-last")
WIDTHS = {"1x": (1, 11), "4x": (4, 3)}
"""Name -> width factor, rounds."""


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
def torch_steps(width_factor: int, way: str) -> Iterator[TorchSteps]:
    """The other side, as long as it is needed."""
    arguments = [_TORCH.value, "-m", "benchmarks.peers.torch_worker", str(width_factor), way]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield TorchSteps(worker)
        assert worker.stdin is not None
        worker.stdin.close()


def milliseconds(width_factor: int, rounds: int) -> tuple[dict[str, float], dict[str, object]]:
    """Of a step on each side, and the machine."""

    def recipe() -> Config:
        config = cifar10_lt()
        config.model.cifar_resnet.width_factor = width_factor
        return config

    config = recipe()
    program = Program(config, noise(Workload(recipe, (32, 32, 3)), config.batch_size))
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(torch_steps(width_factor, way)) for way in WAYS}
        calls = {"spa_jax": (Stepper(program, 1),), **{way: (it,) for way, it in workers.items()}}
        seconds = interleaved_seconds(calls, rounds)
    return {name: 1e3 * time for name, time in seconds.items()}, loaded_hardware(program.layout)


def main(argv: list[str]) -> None:
    """Prints the table, and writes the record where the flag says."""
    del argv
    times, machine = {}, {}
    for name, (width_factor, rounds) in WIDTHS.items():
        if _ONLY.value is None or name in _ONLY.value:
            times[f"ResNet-32 ({name})"], machine = milliseconds(width_factor, rounds)
            jax.clear_caches()
    publish("torch_steps", {"hardware": machine, "milliseconds": times})


if __name__ == "__main__":
    flags.mark_flag_as_required("torch")
    app.run(main)

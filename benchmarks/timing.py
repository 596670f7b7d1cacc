"""What the benchmarks share: medians of repeated calls, training steps, and their command."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import app, flags

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware
from studies.tables import publish


def interleaved_seconds(
    calls: Mapping[str, Callable[[], Any]], rounds: int = 20, repeated: int = 1
) -> dict[str, float]:
    """Of one call each: the medians over rounds in which all are called in turn.

    Args:
      calls: what is called, by a name.
      rounds: after two for a warm-up.
      repeated: how often each is called before its last result is waited for, as the way to an
        accelerator and back takes longer than a small operation there.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2 + rounds):
        for name, function in calls.items():
            began = time.perf_counter()
            result = None
            for _ in range(repeated):
                result = function()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - began) / repeated)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is trained, and how it is timed.

    Attributes:
      recipe: the configuration.
      shape: of an image; None: the data of the configuration.
      classes: how many.
      steps: in one measurement.
      rounds: measurements of each variant.
    """

    recipe: Callable[[], Config]
    shape: tuple[int, int, int] | None = None
    classes: int = 10
    steps: int = 1
    rounds: int = 15

    def noise(self, batch_size: int) -> LongTailedDataset | None:
        """Images of noise, as many as two batches and every class need."""
        if self.shape is None:
            return None
        generator, count = np.random.default_rng(0), max(2 * batch_size, self.classes)
        images = generator.integers(0, 256, (count, *self.shape), np.uint8)
        examples = LabelledImages(images, np.arange(count, dtype=np.int32) % self.classes)
        names = tuple(map(str, range(self.classes)))
        return LongTailedDataset("noise", examples, examples, names, {})

    def milliseconds(self, sides: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        """Of a step on each side, each of which takes `steps` of them at a call."""
        seconds = interleaved_seconds(sides, self.rounds)
        return {name: 1e3 * each / self.steps for name, each in seconds.items()}


class Stepper:
    """Takes some training steps of a program at each call, always on the same inputs."""

    def __init__(self, program: Program, steps: int = 1) -> None:
        self._program, self._steps = program, steps
        self._state, self._totals = program.init_state(program.config), program.zero_totals
        self._inputs = next(iter(program.batches(self._state, program.config.seed, 0)))

    def __call__(self) -> Any:
        for _ in range(self._steps):
            self._state, self._totals = self._program.train_step(
                self._state, self._totals, self._inputs
            )
        return self._totals

    def compiled_text(self) -> str:
        """The compiled step as XLA prints it."""
        arguments = (self._state, self._totals, self._inputs)
        step: Any = self._program.train_step
        return step.lower(*arguments).compile().as_text()


_LOAD_BEFORE = os.getloadavg()[1]


def loaded_hardware(layout: Layout | None = None) -> dict[str, Any]:
    """The machine, and how busy it was before: the load average of five minutes at the import."""
    return hardware(layout or Layout("jit")) | {"load": _LOAD_BEFORE}


def run_benchmark(benchmark: str, measure: Callable[[], Mapping[str, Any]], **options: Any) -> None:
    """Runs a benchmark's command, with the flag `--record`, which no import of it may define.

    Args:
      benchmark: its name in the tables of records.
      measure: gives the numbers, of which the table is printed and the record written.
      options: of `absl.app.run`.
    """
    flags.DEFINE_string("record", None, "A JSON file for the numbers.")
    app.run(lambda _: publish(benchmark, measure(), flags.FLAGS.record), **options)

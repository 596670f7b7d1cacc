"""What the benchmarks share: medians of repeated calls, the time of a step, and their records."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import app, flags

from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware
from studies.tables import publish as publish_record

REPETITIONS = 5


def median_seconds(function: Callable[..., Any], *args: Any, calls: int = 20) -> float:
    """Of one call: the median of five repetitions of some calls, after as many for a warm-up."""
    seconds, result = [], None
    for _ in range(1 + REPETITIONS):
        began = time.perf_counter()
        for _ in range(calls):
            result = function(*args)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - began) / calls)
    return statistics.median(seconds[1:])


def interleaved_seconds(
    calls: Mapping[str, tuple[Callable[..., Any], *tuple[Any, ...]]],
    rounds: int = 20,
    repeated: int = 1,
) -> dict[str, float]:
    """Of one call each: the medians over rounds in which all are called in turn.

    Args:
      calls: a name, and a function with its arguments.
      rounds: after two for a warm-up.
      repeated: how often each is called before its last result is waited for, as the way to an
        accelerator and back takes longer than a small operation there.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2 + rounds):
        for name, (function, *args) in calls.items():
            began = time.perf_counter()
            result = None
            for _ in range(repeated):
                result = function(*args)
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - began) / repeated)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


class Stepper:
    """Takes some training steps of a program at each call, always on the same inputs."""

    def __init__(self, program: Program, steps: int) -> None:
        self._program, self._steps = program, steps
        self._state, self._totals = program.init_state(program.config), program.zero_totals
        self._inputs = next(iter(program.batches(self._state, program.config.seed, 0)))

    def __call__(self) -> Any:
        for _ in range(self._steps):
            self._state, self._totals = self._program.train_step(
                self._state, self._totals, self._inputs
            )
        return self._totals


_LOAD_BEFORE = os.getloadavg()[1]


def loaded_hardware(layout: Layout) -> dict[str, Any]:
    """The machine, and how busy it was before: the load average of five minutes at the import."""
    return hardware(layout) | {"load": _LOAD_BEFORE}


def publish(benchmark: str, numbers: Mapping[str, Any]) -> None:
    """Prints a benchmark's tables, and writes its record where `--record` says."""
    publish_record(benchmark, numbers, flags.FLAGS.record)


def run_benchmark(main: Callable[[list[str]], None], **options: Any) -> None:
    """Runs a benchmark's command with the flag `--record`, which no import of it may define."""
    flags.DEFINE_string("record", None, "A JSON file for the numbers.")
    app.run(main, **options)

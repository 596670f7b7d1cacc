"""What the benchmarks share: medians of repeated calls, the time of a step, and their records."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import flags

from spa_jax.training.program import Program
from studies.tables import publish as publish_record

REPETITIONS = 5

_RECORD = flags.DEFINE_string("record", None, "A JSON file for the numbers.")


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
    calls: Mapping[str, tuple[Callable[..., Any], *tuple[Any, ...]]], rounds: int = 20
) -> dict[str, float]:
    """Of one call each: the medians over rounds in which all are called in turn.

    Args:
      calls: a name, and a function with its arguments.
      rounds: after two for a warm-up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2 + rounds):
        for name, (function, *args) in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(function(*args))
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def step_seconds(program: Program, steps: int) -> float:
    """Of a whole training step: the median of five repetitions of some steps."""
    state, totals = program.init_state(program.config), program.zero_totals
    inputs = next(iter(program.batches(state, program.config.seed, 0)))

    def step() -> Any:
        nonlocal state, totals
        state, totals = program.train_step(state, totals, inputs)
        return totals

    return median_seconds(step, calls=steps)


def publish(benchmark: str, numbers: Mapping[str, Any]) -> None:
    """Prints a benchmark's tables, and writes its record where `--record` says."""
    publish_record(benchmark, numbers, _RECORD.value)

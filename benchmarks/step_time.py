"""What the SpA variants cost: time of a training step, and of the update alone.

python benchmarks/step_time.py [--config=configs/digits_lt.py] [--steps=100] [--json=FILE]

Prints two tables: images a second of a training step under each SpA method, and microseconds of the
bare `spa_proj` update, `spa_slerp` and `spa_reg` with its gradient on (C, D) heads of several
sizes. Each number is the median of five repetitions after a warm-up.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

import spa_jax
from spa_jax.training.config_limits import SPA_METHODS
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits_lt.py", "What to train.")
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps in a repetition.")
_JSON = flags.DEFINE_string("json", None, "A file for the numbers.")

_HEADS = ((10, 64), (100, 256), (1000, 2048))
_REPETITIONS = 5


def time_training(method: str) -> tuple[float, dict[str, Any]]:
    """Images a second of the whole training step under an SpA method, and the hardware."""
    config = _CONFIG.value.copy_and_resolve_references()
    config.spa.method = method
    program = Program(config)
    state, totals = program.init_state(config), program.zero_totals
    inputs = next(program.batches(state, config.seed, 0))
    seconds = []
    for _ in range(_REPETITIONS + 1):
        began = time.perf_counter()
        for _ in range(_STEPS.value):
            state, totals = program.train_step(state, totals, inputs)
        jax.block_until_ready(totals)
        seconds.append(time.perf_counter() - began)
    images = _STEPS.value * config.batch_size
    return images / statistics.median(seconds[1:]), hardware(program)


def time_calls(function: Callable[..., Any], *args: Any) -> float:
    """Microseconds of one call of a jitted function."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    seconds, calls = [], 20
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        for _ in range(calls):
            result = compiled(*args)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - began) / calls)
    return 1e6 * statistics.median(seconds)


def time_updates(num_classes: int, dim: int) -> dict[str, float]:
    """Microseconds of each SpA operation on one head, next to a plain copy of the gradient."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"head": {"kernel": jax.random.normal(keys[0], (dim, num_classes))}}
    grads = {"head": {"kernel": jax.random.normal(keys[1], (dim, num_classes))}}
    means = jax.random.normal(keys[2], (num_classes, dim))
    tx = spa_jax.spa_proj(gamma=0.6)

    def project(grads: Any, params: Any, means: Any) -> Any:
        return tx.update(grads, tx.init(params), params, class_means=means)[0]

    def apply(grads: Any, params: Any, means: Any) -> Any:
        return optax.apply_updates(params, grads)

    return {
        "params + gradient": time_calls(apply, grads, params, means),
        "spa_proj": time_calls(project, grads, params, means),
        "spa_slerp": time_calls(lambda p, m: spa_jax.spa_slerp(p, m, alpha=0.02), params, means),
        "spa_reg, gradient": time_calls(jax.grad(spa_jax.spa_reg), params, means),
    }


def main(argv: list[str]) -> None:
    """Prints both tables."""
    del argv
    console = Console(width=100)
    speeds, machine = {}, {}
    table = Table("method", "images / s", "against none")
    for method in SPA_METHODS:
        speeds[method], machine = time_training(method)
        table.add_row(method, f"{speeds[method]:,.0f}", f"{speeds[method] / speeds['none']:.2f}")
    console.print(f"{jax.devices()[0].device_kind}, {machine['cpu_count']} CPU cores")
    console.print(table)
    updates = {head: time_updates(*head) for head in _HEADS}
    table = Table("head (C, D)", *next(iter(updates.values())), title="microseconds a call")
    for head, times in updates.items():
        table.add_row(str(head), *(f"{microseconds:,.0f}" for microseconds in times.values()))
    console.print(table)
    if _JSON.value:
        record = {
            "hardware": machine,
            "jax": jax.__version__,
            "images_per_second": speeds,
            "microseconds": {f"{c}x{d}": times for (c, d), times in updates.items()},
        }
        Path(_JSON.value).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

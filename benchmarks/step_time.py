"""What the SpA variants cost: time of a training step, and of the update alone.

python -m benchmarks.step_time [--config=configs/digits_lt.py] [--steps=100] [--record=FILE]

Prints two tables: images a second of a training step under each SpA method, and microseconds of the
bare `spa_proj` update, `spa_slerp` and `spa_reg` with its gradient on (C, D) heads of several
sizes. Each number is the median of five repetitions after a warm-up.
"""

from typing import Any

import jax
import optax
from absl import app, flags
from ml_collections import config_flags

import spa_jax
from benchmarks.timing import median_seconds, publish, step_seconds
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware
from spa_jax.training.variants import VARIANTS

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits_lt.py", "What to train.")
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps in a repetition.")

_HEADS = ((10, 64), (100, 256), (1000, 2048))


def time_updates(num_classes: int, dim: int) -> dict[str, float]:
    """Microseconds of each SpA operation on one head, next to a plain copy of the gradient."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"head": {"kernel": jax.random.normal(keys[0], (dim, num_classes))}}
    grads = {"head": {"kernel": jax.random.normal(keys[1], (dim, num_classes))}}
    means = jax.random.normal(keys[2], (num_classes, dim))
    tx = spa_jax.spa_proj(gamma=0.6)

    def project(params: Any, means: Any, grads: Any) -> Any:
        return tx.update(grads, tx.init(params), params, class_means=means)[0]

    calls = {
        "params + gradient": (optax.apply_updates, params, grads),
        "spa_proj": (project, params, means, grads),
        "spa_slerp": (lambda p, m: spa_jax.spa_slerp(p, m, alpha=0.02), params, means),
        "spa_reg, gradient": (jax.grad(spa_jax.spa_reg), params, means),
    }
    return {
        name: 1e6 * median_seconds(jax.jit(function), *args)
        for name, (function, *args) in calls.items()
    }


def main(argv: list[str]) -> None:
    """Prints both tables, and writes the record where the flag says."""
    del argv
    speeds, machine = {}, {}
    for method in VARIANTS:
        config = _CONFIG.value.copy_and_resolve_references()
        config.spa.method = method
        program = Program(config)
        machine = hardware(program.layout)
        speeds[method] = config.batch_size / step_seconds(program, _STEPS.value)
    numbers = {
        "hardware": machine,
        "images_per_second": speeds,
        "microseconds": {f"{c}x{d}": time_updates(c, d) for c, d in _HEADS},
    }
    publish("step_time", numbers)


if __name__ == "__main__":
    app.run(main)

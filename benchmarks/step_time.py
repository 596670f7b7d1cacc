"""What the SpA variants cost: time of a training step, and of the update alone.

python -m benchmarks.step_time [--config=configs/digits_lt.py] [--steps=100] [--record=FILE]

Prints two tables: images a second of a training step under each SpA method, the median of five
repetitions after a warm-up; and microseconds of the bare `spa_proj` update, `spa_slerp`, `spa_reg`
with its gradient, `class_cosines` and the update of class means on heads of several sizes in both
layouts, medians of 20 rounds in which all are called in turn.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from ml_collections import config_flags

import spa_jax
from benchmarks.timing import interleaved_seconds, publish, step_seconds
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware
from spa_jax.training.variants import VARIANTS

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits_lt.py", "What to train.")
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps in a repetition.")

_HEADS = ((10, 64), (100, 256), (1000, 2048), (8192, 2048))
_LAYOUTS = {"(D, C)": None, "(C, D)": 0}


def time_updates(num_classes: int, dim: int, class_axis: int | None) -> dict[str, float]:
    """Microseconds of each SpA operation on one head, next to a plain sum with the gradient."""
    shape = (num_classes, dim) if class_axis == 0 else (dim, num_classes)
    keys = jax.random.split(jax.random.key(0), 3)
    params, grads = ({"head": {"kernel": jax.random.normal(key, shape)}} for key in keys[:2])
    labels = jnp.arange(num_classes)
    features = jax.random.normal(keys[2], (num_classes, dim))
    means = spa_jax.ClassMeans.create(num_classes, dim).update(features, labels)
    options: dict[str, Any] = {"class_axis": class_axis}
    tx = spa_jax.spa_proj(gamma=0.6, **options)

    def project(params: Any, means: Any, grads: Any) -> Any:
        return tx.update(grads, tx.init(params), params, class_means=means)[0]

    calls = {
        "params + gradient": (optax.apply_updates, params, grads),
        "spa_proj": (project, params, means, grads),
        "spa_slerp": (lambda p, m: spa_jax.spa_slerp(p, m, alpha=0.02, **options), params, means),
        "spa_reg, gradient": (
            lambda p, m: jax.grad(spa_jax.spa_reg)(p, m, **options),
            params,
            means,
        ),
        "class_cosines": (lambda p, m: spa_jax.class_cosines(p, m, **options), params, means),
        "ClassMeans.update, B = 256": (
            lambda m, f, y: m.update(f, y),
            means,
            jax.random.normal(keys[2], (256, dim)),
            jax.random.randint(keys[2], (256,), 0, num_classes),
        ),
    }
    seconds = interleaved_seconds({name: (jax.jit(f), *args) for name, (f, *args) in calls.items()})
    return {name: 1e6 * time for name, time in seconds.items()}


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
        "microseconds": {
            f"C = {c}, D = {d}, kernel {layout}": time_updates(c, d, class_axis)
            for c, d in _HEADS
            for layout, class_axis in _LAYOUTS.items()
        },
    }
    publish("step_time", numbers)


if __name__ == "__main__":
    app.run(main)

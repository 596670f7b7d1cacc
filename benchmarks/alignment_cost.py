"""What the operations of SpA cost alone, next to a plain sum of parameters and gradient.

python -m benchmarks.alignment_cost [--record=FILE]

Prints a table of microseconds of the bare `spa_proj` update, `spa_slerp`, `spa_reg` with its
gradient, `class_cosines` and the update of class means on heads of several sizes in both layouts:
medians of 20 rounds in which all are called in turn.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import spa_jax
from benchmarks.timing import interleaved_seconds, loaded_hardware, publish, run_benchmark
from spa_jax.training.devices import Layout

HEADS = {
    f"C = {c}, D = {d}, kernel {layout}": (c, d, class_axis)
    for c, d in ((10, 64), (100, 256), (1000, 2048), (8192, 2048))
    for layout, class_axis in {"(D, C)": None, "(C, D)": 0}.items()
}
"""Name -> C, D, the kernel's class axis."""


def time_updates(
    num_classes: int, dim: int, class_axis: int | None, repeated: int = 1
) -> dict[str, float]:
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
    jitted = {name: (jax.jit(f), *args) for name, (f, *args) in calls.items()}
    seconds = interleaved_seconds(jitted, repeated=repeated)
    return {name: 1e6 * time for name, time in seconds.items()}


def main(argv: list[str]) -> None:
    """Prints the table, and writes the record where the flag says."""
    del argv
    microseconds = {name: time_updates(*head) for name, head in HEADS.items()}
    numbers = {"hardware": loaded_hardware(Layout("jit")), "microseconds": microseconds}
    publish("alignment_cost", numbers)


if __name__ == "__main__":
    run_benchmark(main)

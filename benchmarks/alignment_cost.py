"""What the operations of SpA cost alone, next to a plain sum of parameters and gradient.

python -m benchmarks.alignment_cost [--record=FILE]

Prints a table of microseconds of the bare `spa_proj` update, `spa_slerp`, `spa_reg` with its
gradient, `class_cosines` and the update of class means on heads of several sizes in both layouts:
medians of 20 rounds in which all are called in turn.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

import spa_jax
from benchmarks.timing import interleaved_seconds, loaded_hardware, run_benchmark

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

    slerp = functools.partial(spa_jax.spa_slerp, alpha=0.02, **options)
    reg = jax.grad(functools.partial(spa_jax.spa_reg, **options))
    cosines = functools.partial(spa_jax.class_cosines, **options)
    batch = jax.random.normal(keys[2], (256, dim))
    batch_labels = jax.random.randint(keys[2], (256,), 0, num_classes)
    calls = {
        "params + gradient": (optax.apply_updates, params, grads),
        "spa_proj": (project, params, means, grads),
        "spa_slerp": (slerp, params, means),
        "spa_reg, gradient": (reg, params, means),
        "class_cosines": (cosines, params, means),
        "ClassMeans.update, B = 256": (spa_jax.ClassMeans.update, means, batch, batch_labels),
    }
    jitted = {name: functools.partial(jax.jit(f), *args) for name, (f, *args) in calls.items()}
    seconds = interleaved_seconds(jitted, repeated=repeated)
    return {name: 1e6 * time for name, time in seconds.items()}


def measure() -> dict[str, Any]:
    """The numbers of all heads."""
    microseconds = {name: time_updates(*head) for name, head in HEADS.items()}
    return {"hardware": loaded_hardware(), "microseconds": microseconds}


if __name__ == "__main__":
    run_benchmark("alignment_cost", measure)

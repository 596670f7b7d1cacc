"""Methods by name, with options, and their losses outside a run."""

import jax.numpy as jnp

from spa_jax.longtail.method import LossContext
from spa_jax.longtail.registry import METHODS


def method(name, **options):
    entry = METHODS[name]
    return entry.make(entry.options(**options))


def loss_of(name, outputs, targets, class_counts, labels=None, **options):
    """In epoch 3 of 10; the labels before mixing are the targets where these are labels."""
    sizes = jnp.asarray(class_counts, jnp.float32)
    if labels is None:
        labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=1)
    labels = jnp.asarray(labels)
    context = LossContext(labels, sizes, jnp.int32(3), 10, None, labels, targets)
    return float(method(name, **options).loss(outputs, targets, context))

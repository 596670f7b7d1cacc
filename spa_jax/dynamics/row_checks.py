"""Refusals that this room shares: of shapes and dtypes, and of values where they are known."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from spa_jax.alignment.checks import is_known
from spa_jax.errors import InputError

Anything = Shaped[Array | np.ndarray, "..."]

_KINDS = {jnp.floating: "floating", jnp.integer: "integers", jnp.generic: "numbers"}


def check_array(
    values: Anything | None, name: str, kind: Any, shape: tuple[int, ...], remedy: str
) -> None:
    """Raises InputError unless values are of a kind of dtype and a shape; None is not given."""
    if values is None or (values.shape == shape and jnp.issubdtype(values.dtype, kind)):
        return
    raise InputError(
        f"{name} must be {_KINDS[kind]} of shape {shape}, got shape {values.shape} and dtype "
        f"{values.dtype}: {remedy}."
    )


def check_batch(
    features: Anything, dim: int, labels: Anything | None = None, mask: Anything | None = None
) -> None:
    """Raises InputError unless features are floating `(B, dim)`, with labels and a mask to fit."""
    check_array(
        features,
        "features",
        jnp.floating,
        (*features.shape[:1], dim),
        "pass what the classifier sees, the backbone's features and not images, of the width that "
        "the state and the weights have",
    )
    one_each = features.shape[:1]
    clean = "neural collapse is measured on clean examples of one class each"
    check_array(labels, "labels", jnp.integer, one_each, clean)
    check_array(mask, "mask", jnp.generic, one_each, "one number an example, 0 for padding")


def check_weights(weights: Anything, bias: Anything | None, shape: tuple[int, ...]) -> None:
    """Raises InputError unless weights are floating `shape`, with a bias to fit if there is one."""
    flipped = "; a Flax kernel is (D, C): pass kernel.T" if weights.shape == shape[::-1] else ""
    check_array(weights, "weights", jnp.floating, shape, f"one row a class{flipped}")
    check_array(bias, "bias", jnp.floating, shape[:1], "one number a class, None for no bias")


def check_each(sound: Bool[np.ndarray, " N"], says: str, of: str, remedy: str) -> None:
    """Raises InputError unless all are sound, saying how many are not and which."""
    wrong = np.flatnonzero(~sound)
    if wrong.size:
        raise InputError(
            f"{says} in {wrong.size} of {len(sound)} {of}, first {wrong[:3].tolist()}: {remedy}"
        )


def check_finite(
    values: Anything, name: str, of: str = "rows", remedy: str = "has the training diverged?"
) -> None:
    """Raises InputError if a known row holds NaN or infinity."""
    if is_known(values):
        finite = np.isfinite(np.asarray(values).reshape(len(values), -1))
        sound = np.asarray(finite.all(axis=1))
        check_each(sound, f"{name} must be finite, got NaN or infinity", of, remedy)

"""Checks of hyper-parameters and required arguments, and what can be checked of an array."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def is_known(values: Any) -> bool:
    """Whether this process can read the values: not traced, and not spread over processes."""
    if isinstance(values, Tracer):
        return False
    if not isinstance(values, jax.Array):
        return True
    # Of an array that is spread over processes as copies, each of them has all.
    return values.is_fully_addressable or values.is_fully_replicated


def check_range(name: str, value: Any, low: float, high: float, meaning: str) -> None:
    """Raises ValueError if a Python or NumPy number is outside [low, high] or NaN.

    Arrays, traced values and schedules are used as given: their value may not be known yet.
    Anything else is a TypeError.
    """
    if callable(value) or isinstance(value, jax.Array | np.ndarray):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(
            f"{name} must be a number, an array or a schedule, got {value!r}: {meaning}."
        )
    if not low <= value <= high:  # true of NaN too, which compares as False
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value!r}: {meaning}.")


def check_update_arguments(transform: str, params: Any, class_means: Any) -> None:
    """Raises TypeError, saying what to pass, if `update` was called without params or means."""
    if params is None:
        raise TypeError(
            f"{transform} needs the params, to know where the weights point: call "
            "tx.update(updates, opt_state, params, class_means=means)."
        )
    if class_means is None:
        raise TypeError(
            f"{transform} needs class_means: call tx.update(updates, opt_state, params, "
            "class_means=means) with a spa_jax.ClassMeans or a (C, D) array. If you did, something "
            "between drops extra arguments: optax.lookahead, optax.contrib.sam and the "
            "apply_gradients of Flax's TrainState do."
        )

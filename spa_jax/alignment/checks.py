"""Checks of hyper-parameters and required arguments, and what can be checked of an array."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
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
            "between drops extra arguments: optax.lookahead does, and apply_gradients of Flax's "
            "TrainState, in place of which write\n"
            "  updates, opt_state = state.tx.update(grads, state.opt_state, state.params, "
            "class_means=means)\n"
            "  state = state.replace(step=state.step + 1, opt_state=opt_state, "
            "params=optax.apply_updates(state.params, updates))"
        )


def warn_of_short_dtype(function: str, dtype: Any) -> None:
    """Warns that turns smaller than one unit in the last place of a weight are lost."""
    if jnp.finfo(dtype).bits < 32:
        warnings.warn(
            f"{function} turns a {jnp.dtype(dtype).name} kernel: turns smaller than one unit in "
            "the last place of its weights are lost. Keep the head in float32 "
            "(param_dtype=jnp.float32).",
            stacklevel=3,
        )

"""Centring, scaling, products and sums of rows, safe where collapse makes differences small."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import Rows, row_norms, widen

ROUNDING = 16
"""Differences of up to this many machine epsilons of the longest row are rounding noise."""


def noise_level(rows: Rows) -> Float[Array, ""]:
    r"""The length below which a difference of rows is rounding noise.

    .. math:: 16 \, \varepsilon \max_c \|x_c\|

    Args:
      rows: `(C, D)` floating.

    Returns:
      Scalar float32 (float64 for float64 rows), with :math:`\varepsilon` of that dtype.

    Example:
      >>> (noise_level(jnp.array([[0.5], [-2.0]])) == 32 * jnp.finfo(jnp.float32).eps).item()
      True
    """
    norms = row_norms(rows)
    return ROUNDING * jnp.finfo(norms.dtype).eps * jnp.max(norms)


def centred(rows: Rows, center: Float[Array | np.ndarray, " D"]) -> Float[Array, "C D"]:
    """Rows minus a centre; a row that is left with rounding noise only becomes a zero row.

    Args:
      rows: `(C, D)` floating.
      center: `(D,)`.

    Returns:
      `(C, D)` float32 (float64 for float64 rows).

    Example:
      >>> centred(jnp.array([[0.0], [1.0], [4.0]]), jnp.array([1.0000001])).round(1).tolist()
      [[-1.0], [0.0], [3.0]]
    """
    difference = widen(rows) - widen(center)[None]
    distinct = row_norms(difference) > noise_level(rows)
    return jnp.where(distinct[:, None], difference, 0.0)


def scaled(rows: Rows) -> Float[Array, "C D"]:
    """Rows with the longest of norm 1, so that no square or product leaves the range.

    Args:
      rows: `(C, D)` floating.

    Returns:
      `(C, D)` float32 (float64 for float64 rows); rows that are all zero stay so.

    Example:
      >>> scaled(jnp.array([[1e30], [-2e30]])).tolist()
      [[0.5], [-1.0]]
    """
    rows = widen(rows)
    longest = jnp.max(row_norms(rows))
    return rows / jnp.where(longest > 0, longest, 1.0)


def weighted_mean(rows: Rows, weights: Float[Array | np.ndarray, " C"]) -> Float[Array, " D"]:
    """Mean of rows, exact for rows that are all the same.

    Args:
      rows: `(C, D)` floating.
      weights: `(C,)`, >= 0; if all are 0, so is the mean.

    Returns:
      `(D,)` float32 (float64 for float64 rows).

    Example:
      >>> weighted_mean(jnp.array([[1.0], [5.0]]), jnp.array([3.0, 1.0])).tolist()
      [2.0]
    """
    rows, weights = widen(rows), widen(weights)
    whole = jnp.sum(weights)
    shares = (weights / jnp.where(whole > 0, whole, 1.0))[None]
    mean = product(shares, rows)
    # Once more with what is left, against the rounding of an offset that all rows share.
    return (mean + product(shares, rows - mean))[0]


def product(a: Float[Array, "N K"], b: Float[Array, "K M"]) -> Float[Array, "N M"]:
    """Matrix product that no accelerator rounds to a shorter format: `(N, M)`."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def total(values: Float[Array, "..."]) -> Float[Array, ""]:
    """Sum of all values, by halves.

    Adding one after the other, as XLA does on a CPU, is off by 1e-5 for the squares of the Gram
    matrix of 30 collapsed classes in float32, as equal terms are all rounded to the same side.

    Args:
      values: floating, of any shape.

    Returns:
      Scalar of the same dtype.

    Example:
      >>> total(jnp.full((1000, 1000), 0.1)).round(1).item()
      100000.0
    """
    flat = jnp.ravel(values)
    size = 1 << (flat.size - 1).bit_length()
    flat = jnp.pad(flat, (0, size - flat.size))
    while size > 1:
        size //= 2
        flat = flat[:size] + flat[size:]
    return flat[0]

"""Spherical geometry on the rows of `(C, D)` arrays, finite in value and gradient everywhere.

Every function computes in float32 at least: bfloat16 and float16 rows are widened on entry, float64
rows stay float64. Sums are element-wise products, never matrix products, so that no accelerator
rounds them to a shorter format.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

Rows = Float[Array | np.ndarray, "C D"]
"""A matrix read row by row, one row per class."""

SHORTEST_ROW = 1e-12
"""Rows shorter than this have no direction."""

SHORTEST_TANGENT = 1e-6
"""Two unit rows whose tangent part is shorter than this are parallel or antiparallel."""


def widen(rows: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Converts to float32, or leaves float64 as it is."""
    rows = jnp.asarray(rows)
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def widen_labels(labels: Shaped[Array | np.ndarray, "..."]) -> Shaped[Array, "..."]:
    """Integer labels in 32 bits at least, since one of 8 bits wraps against the number of a class.

    Example:
      >>> widen_labels(jnp.array([5], jnp.uint8)).dtype
      dtype('int32')
    """
    labels = jnp.asarray(labels)
    narrow = jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype.itemsize < 4
    return labels.astype(jnp.int32) if narrow else labels


def row_norms(rows: Rows) -> Float[Array, " C"]:
    r"""Euclidean norm of every row, without overflow, with gradient 0 at a zero row.

    .. math:: \|x_c\| = s_c \sqrt{\sum_d (x_{cd} / s_c)^2}, \quad s_c = \max_d |x_{cd}|

    Args:
      rows: `(C, D)` floating.

    Returns:
      `(C,)` float32 (float64 for float64 rows), >= 0.

    Example:
      >>> row_norms(jnp.array([[3e20, 4e20], [0.0, 0.0]])).tolist() == [5.000000100204387e20, 0.0]
      True
    """
    rows = widen(rows)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1))
    # The norm does not depend on the scale, so the scale needs no gradient.
    scale = jnp.where(largest >= jnp.finfo(rows.dtype).tiny, largest, 1.0).astype(rows.dtype)
    squared = jnp.sum(jnp.square(rows / scale[:, None]), axis=1)
    nonzero = squared != 0  # true of NaN, which so stays NaN
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squared, 1.0)), 0.0) * scale


def unit_rows(rows: Rows, minimum: float = SHORTEST_ROW) -> Float[Array, "C D"]:
    r"""Every row divided by its norm; a row shorter than `minimum` becomes a zero row.

    .. math:: \hat x_c = x_c / \|x_c\|

    Args:
      rows: `(C, D)` floating.
      minimum: shortest norm that still counts as a direction, > 0.

    Returns:
      `(C, D)` float32 (float64 for float64 rows): rows of norm 1 or 0.

    Example:
      >>> unit_rows(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    rows = widen(rows)
    norms = row_norms(rows)
    too_short = norms < minimum
    safe = jnp.where(too_short, 1.0, norms)[:, None]
    return jnp.where(too_short[:, None], 0.0, rows / safe)


def row_dots(a: Rows, b: Rows) -> Float[Array, " C"]:
    """Inner product of every row of `a` with the same row of `b`: `(C,)`."""
    return jnp.sum(widen(a) * widen(b), axis=1)


def row_cosines(a: Rows, b: Rows) -> Float[Array, " C"]:
    r"""Cosine between every row of `a` and the same row of `b`.

    .. math:: \cos_c = \langle \hat a_c, \hat b_c \rangle

    Args:
      a: `(C, D)` floating.
      b: `(C, D)` floating.

    Returns:
      `(C,)` float32 in [-1, 1]; 0 where either row has no direction.

    Example:
      >>> row_cosines(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.ones((2, 2))).round(3).tolist()
      [0.7070000171661377, 0.0]
    """
    return jnp.clip(row_dots(unit_rows(a), unit_rows(b)), -1.0, 1.0)


def tangent_part(vectors: Rows, rows: Rows) -> Float[Array, "C D"]:
    r"""The part of every vector that is orthogonal to the row it belongs to.

    .. math:: v_c - \langle v_c, \hat x_c \rangle \hat x_c

    The projection is done twice: once leaves a remainder of rounding error along the row, which is
    not small against the tangent part of nearly parallel vectors.

    Args:
      vectors: `(C, D)` floating.
      rows: `(C, D)` floating; a row without a direction leaves its vector whole.

    Returns:
      `(C, D)` float32 (float64 if either is).

    Example:
      >>> tangent_part(jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0]])).tolist()
      [[0.0, 4.0]]
    """
    unit = unit_rows(rows)
    once = widen(vectors) - row_dots(vectors, unit)[:, None] * unit
    return once - row_dots(once, unit)[:, None] * unit


def tangent_directions(targets: Rows, rows: Rows) -> Float[Array, "C D"]:
    r"""The unit direction in which each row turns fastest towards its target.

    .. math:: d_c = t_c / \|t_c\|, \quad
       t_c = \hat y_c - \langle \hat y_c, \hat x_c \rangle \hat x_c

    Args:
      targets: `(C, D)` floating, the rows :math:`y_c` to turn towards.
      rows: `(C, D)` floating, the rows :math:`x_c` to turn.

    Returns:
      `(C, D)` float32: unit rows orthogonal to `rows`; zero where :math:`\|t_c\| < 10^{-6}`
      (parallel or antiparallel) and where either row has no direction.

    Example:
      >>> tangent_directions(jnp.array([[5.0, 5.0]]), jnp.array([[2.0, 0.0]])).tolist()
      [[0.0, 1.0]]
    """
    directions = unit_rows(tangent_part(unit_rows(targets), rows), minimum=SHORTEST_TANGENT)
    return jnp.where((row_norms(rows) < SHORTEST_ROW)[:, None], 0.0, directions)


def row_angles(a: Rows, b: Rows) -> Float[Array, " C"]:
    r"""Angle between every row of `a` and the same row of `b`, accurate near 0 and near pi.

    .. math:: \theta_c = \operatorname{atan2}(\|t_c\|, \langle \hat a_c, \hat b_c \rangle), \quad
       t_c = \hat b_c - \langle \hat b_c, \hat a_c \rangle \hat a_c

    Args:
      a: `(C, D)` floating.
      b: `(C, D)` floating.

    Returns:
      `(C,)` float32 radians in [0, pi]; pi / 2 where either row has no direction, as its cosine
      is 0.

    Example:
      >>> row_angles(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 3.0]])).round(4).tolist()
      [1.5707999467849731]
    """
    unit_a, unit_b = unit_rows(a), unit_rows(b)
    defined = jnp.any(unit_a != 0, axis=1) & jnp.any(unit_b != 0, axis=1)
    sine = jnp.where(defined, row_norms(tangent_part(unit_b, unit_a)), 1.0)
    cosine = jnp.where(defined, row_dots(unit_a, unit_b), 0.0)
    return jnp.arctan2(sine, cosine)


def slerp_rows(
    rows: Rows, targets: Rows, alpha: Float[Array | np.ndarray, ""] | float
) -> Float[Array, "C D"]:
    r"""Turns every row by the share `alpha` of its angle to its target and keeps its norm.

    .. math:: \|x_c\| (\cos(\alpha \theta_c) \hat x_c + \sin(\alpha \theta_c) d_c)

    with :math:`\theta_c` from :func:`row_angles` and :math:`d_c` from :func:`tangent_directions`.
    This is spherical linear interpolation without its division by :math:`\sin \theta`, so that the
    norm holds near :math:`\theta = \pi` too.

    Args:
      rows: `(C, D)` floating.
      targets: `(C, D)` floating; their norms do not matter.
      alpha: share of the angle, in [0, 1].

    Returns:
      `(C, D)` float32 (float64 for float64 rows). A row that does not move (no direction, parallel,
      antiparallel, `alpha` 0) comes back bit for bit.

    Example:
      >>> slerp_rows(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 9.0]]), 0.5).round(3).tolist()
      [[1.4140000343322754, 1.4140000343322754]]
    """
    rows = widen(rows)
    direction = tangent_directions(targets, rows)
    turn = (jnp.asarray(alpha, rows.dtype) * row_angles(rows, targets))[:, None]
    turned = row_norms(rows)[:, None] * (
        jnp.cos(turn) * unit_rows(rows) + jnp.sin(turn) * direction
    )
    moves = jnp.any(direction != 0, axis=1, keepdims=True) & (turn != 0)
    return jnp.where(moves, turned, rows)


def simplex_etf(
    num_classes: int, dim: int, key: Key[Array, ""] | None = None
) -> Float[Array, "C D"]:
    r"""A simplex equiangular tight frame: unit rows, every two at cosine -1 / (C - 1).

    .. math:: M = \sqrt{C / (C - 1)} \, (I - \tfrac{1}{C} 1 1^\top) P^\top, \quad P^\top P = I

    Args:
      num_classes: C, 2 or more.
      dim: D, at least C - 1.
      key: a typed PRNG key draws a uniformly random orientation; None gives a fixed one.

    Returns:
      `(C, D)` float32; the rows sum to zero.

    Raises:
      ValueError: fewer than two classes, or `dim` < `num_classes` - 1.

    Example:
      >>> frame = simplex_etf(3, 5)
      >>> (frame @ frame.T).round(2).tolist()
      [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    if num_classes < 2:
        raise ValueError(f"A simplex ETF needs at least 2 classes, got num_classes={num_classes}.")
    if dim < num_classes - 1:
        raise ValueError(
            f"A simplex ETF of {num_classes} classes needs dim >= {num_classes - 1}, got dim={dim}."
        )
    # Helmert's basis of the hyperplane orthogonal to the ones vector.
    basis = np.zeros((num_classes, num_classes - 1))
    for k in range(1, num_classes):
        basis[:k, k - 1] = 1.0
        basis[k, k - 1] = -k
        basis[:, k - 1] /= np.sqrt(k * (k + 1))
    frame = np.zeros((num_classes, dim), np.float32)
    frame[:, : num_classes - 1] = np.sqrt(num_classes / (num_classes - 1)) * basis
    if key is None:
        return jnp.asarray(frame)
    orthogonal = jax.random.orthogonal(key, dim, dtype=jnp.float32)
    return jnp.matmul(frame, orthogonal.T, precision=jax.lax.Precision.HIGHEST)

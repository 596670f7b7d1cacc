"""Spherical geometry on the rows of `(C, D)` arrays, finite in value and gradient everywhere.

Every function computes in float32 at least: bfloat16 and float16 rows are widened on entry, float64
rows stay float64. Sums are element-wise products, never matrix products, so that no accelerator
rounds them to a shorter format. Everything about rows and their targets follows from a few inner
products, :class:`RowPairs`, which reads both in whichever layout they have: no copy is turned.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped

Rows = Float[Array | np.ndarray, "C D"]
"""A matrix read row by row, one row per class."""

SHORTEST_ROW = 1e-12
"""Rows shorter than this have no direction."""

SHORTEST_TANGENT = 1e-6
"""Two unit rows whose tangent part is shorter than this are parallel or antiparallel."""


as_one = functools.partial(jax.jit, inline=True)
"""Outside of `jax.jit` one program, where each operation would be one, and `lax.cond` a new one at
every call; inside it is as if it were not there."""


def widen(rows: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Converts to float32, or leaves float64 as it is."""
    rows = jnp.asarray(rows)
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def widen_labels(labels: Shaped[Array | np.ndarray, "..."]) -> Shaped[Array, "..."]:
    """Integer labels in 32 bits at least, since one of 8 bits wraps against the number of a class.

    Those of NumPy that do not fit into what JAX has stay above all classes, or below.

    Example:
      >>> widen_labels(jnp.array([5], jnp.uint8)).dtype
      dtype('int32')
    """
    if isinstance(labels, np.ndarray) and labels.dtype in (np.int64, np.uint64):
        labels = np.maximum(np.minimum(labels, np.iinfo(np.int32).max).astype(np.int64), -1)
    labels = jnp.asarray(labels)
    narrow = jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype.itemsize < 4
    return labels.astype(jnp.int32) if narrow else labels


def row_norms(rows: Float[Array | np.ndarray, "_ _"], axis: int = 1) -> Float[Array, " C"]:
    r"""Euclidean norm of every row, without overflow, with gradient 0 at a zero row.

    .. math:: \|x_c\| = s_c \sqrt{\sum_d (x_{cd} / s_c)^2}, \quad s_c = \max_d |x_{cd}|

    Args:
      rows: `(C, D)` floating.
      axis: the axis that is summed over; 0 reads the columns of a `(D, C)` array.

    Returns:
      `(C,)` float32 (float64 for float64 rows), >= 0.

    Example:
      >>> row_norms(jnp.array([[3e20, 4e20], [0.0, 0.0]])).tolist() == [5.000000100204387e20, 0.0]
      True
    """
    return _norms(widen(rows), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
@functools.partial(as_one, static_argnums=1)
def _norms(rows: Float[Array, "_ _"], axis: int) -> Float[Array, " C"]:
    low = jnp.finfo(rows.dtype).tiny ** 0.75
    squared = jnp.sum(jnp.square(rows), axis)

    def scaled() -> Float[Array, " C"]:
        # The scale need not be exact, and its inverse must not be lost as a subnormal number.
        scale = jnp.clip(jnp.max(jnp.abs(rows), axis, keepdims=True), low, 1 / low)
        return jnp.sqrt(jnp.sum(jnp.square(rows / scale), axis)) * jnp.squeeze(scale, axis)

    # The scaled sum reads the rows once more: only where a square overflows or underflows.
    ordinary = jnp.all((squared > low) & (squared < 1 / low))
    return jax.lax.cond(ordinary, lambda: jnp.sqrt(squared), scaled)


@_norms.defjvp
def _norms_jvp(axis, primals, tangents):
    norms = _norms(*primals, axis)
    units = over_norms(primals[0], jnp.expand_dims(norms, axis), minimum=0.0)
    return norms, jnp.sum(units * tangents[0], axis)


@functools.partial(as_one, static_argnames="minimum")
def over_norms(
    values: Float[Array, "..."],
    norms: Float[Array, "..."],
    times: Float[Array, "..."] | float = 1.0,
    minimum: float = SHORTEST_ROW,
) -> Float[Array, "..."]:
    """Values divided by the norms of their rows, and times a number: 0 where the norm is 0 or
    shorter than `minimum`, a row without a direction."""
    too_short = (norms < minimum) | (norms == 0)
    # The inverse of a norm near the end of the float range is subnormal, which is 0.
    shrink = jnp.where(norms > 1e30, 2.0**-40, 1.0).astype(norms.dtype)
    inverse = times / jnp.where(too_short, 1.0, norms * shrink)
    quotients = values * shrink * inverse
    # Compilers would contract the product and a sum that follows in one loop and not in another,
    # and of near parallel rows the two would not be the same vector: a choice by values hinders it.
    quotients = jnp.where(jnp.isnan(values), values, quotients)
    return jnp.where(too_short, 0.0, quotients)


def unit_rows(
    rows: Float[Array | np.ndarray, "_ _"], minimum: float = SHORTEST_ROW, axis: int = 1
) -> Float[Array, "_ _"]:
    r"""Every row divided by its norm; a row shorter than `minimum` becomes a zero row.

    .. math:: \hat x_c = x_c / \|x_c\|

    Args:
      rows: `(C, D)` floating.
      minimum: shortest norm that still counts as a direction, > 0.
      axis: along which a row lies; 0 for the columns of a `(D, C)` array.

    Returns:
      Of the shape of the rows, float32 (float64 for float64 rows): rows of norm 1 or 0.

    Example:
      >>> unit_rows(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    rows = widen(rows)
    return over_norms(rows, jnp.expand_dims(row_norms(rows, axis), axis), minimum=minimum)


class Tangents(NamedTuple):
    """What is left of every target's direction beside its row, and in which way rows turn.

    Attributes:
      parts: :math:`t_c = \\hat y_c - \\langle \\hat y_c, \\hat x_c \\rangle \\hat x_c`, in the
        layout of the rows.
      sines: `(C,)` length of the parts, 1 where either row has no direction.
      inverse_sines: `(C,)`, 0 where a row has no way to turn: parallel, antiparallel, no direction.
    """

    parts: Float[Array, "_ _"]
    sines: Float[Array, " C"]
    inverse_sines: Float[Array, " C"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "targets", "norms", "target_norms"],
    meta_fields=["axis"],
)
@dataclasses.dataclass(frozen=True)
class RowPairs:
    """Rows and the targets that they should point at, of one layout and dtype.

    Attributes:
      rows, targets: `(C, D)` with `axis` 1, or `(D, C)` with `axis` 0; targets are of length 1 at
        most, so that no product overflows.
      axis: the axis of a row's entries.
      norms, target_norms: `(C,)`.
    """

    rows: Float[Array, "_ _"]
    targets: Float[Array, "_ _"]
    axis: int
    norms: Float[Array, " C"]
    target_norms: Float[Array, " C"]

    @classmethod
    def of(cls, rows: Rows, targets: Rows) -> "RowPairs":
        """Pairs of `(C, D)` rows."""
        rows, targets = widen(rows), unit_rows(targets)
        return cls(rows, targets, 1, row_norms(rows), row_norms(targets))

    def spread(self, values: Shaped[Array, " C"]) -> Shaped[Array, "_ _"]:
        """A number for each row, to be broadcast over its entries."""
        return jnp.expand_dims(values, self.axis)

    @property
    def has_direction(self) -> Bool[Array, " C"]:
        """Whether both of a pair are long enough, and the row not too long to have a norm; NaN is
        not left out."""
        outside = (self.norms < SHORTEST_ROW) | jnp.isinf(self.norms)
        return ~(outside | (self.target_norms < SHORTEST_ROW))

    def dots(self, vectors: Float[Array, "_ _"]) -> Float[Array, " C"]:
        """Inner product of every vector, of length 1 at most, with the direction of its row, or 0
        if it has none."""
        return over_norms(jnp.sum(vectors * self.rows, self.axis), self.norms)

    @as_one
    def cosines(self) -> Float[Array, " C"]:
        """As :func:`row_cosines`."""
        return jnp.clip(over_norms(self.dots(self.targets), self.target_norms), -1.0, 1.0)

    def unit(self, scale: Float[Array, " C"]) -> Float[Array, "_ _"]:
        """The directions of the rows, each times a number."""
        return over_norms(self.rows, self.spread(self.norms), self.spread(scale))

    @as_one
    def tangents(self) -> Tangents:
        """The parts of the targets' directions that are orthogonal to the rows.

        They are taken from the entries, since the cosine alone does not know a small angle, and
        projected twice: once leaves a remainder of rounding error along the row, which is not small
        against the tangent part of nearly parallel rows.
        """
        targets = over_norms(self.targets, self.spread(self.target_norms))
        once = targets - self.unit(self.cosines())
        parts = once - self.unit(self.dots(once))
        squared = jnp.sum(jnp.square(parts), self.axis)
        sines = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
        turns = self.has_direction & (squared >= SHORTEST_TANGENT**2)
        sines = jnp.where(self.has_direction & (squared == 0), 0.0, sines)
        return Tangents(parts, sines, jnp.where(turns, 1 / jnp.where(turns, sines, 1.0), 0.0))

    @as_one
    def slerp(
        self, alpha: Float[Array | np.ndarray, ""] | float
    ) -> tuple[Float[Array, "_ _"], Bool[Array, " C"]]:
        """As :func:`slerp_rows`, for those rows alone of which the second result says so."""
        tangents = self.tangents()
        angles = jnp.arctan2(tangents.sines, self.cosines())
        turn = jnp.asarray(alpha, self.rows.dtype) * angles
        towards = tangents.parts * self.spread(jnp.sin(turn) * tangents.inverse_sines)
        turned = self.rows * self.spread(jnp.cos(turn)) + self.spread(self.norms) * towards
        return turned, (tangents.inverse_sines != 0) & (turn != 0)


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
    return RowPairs.of(a, b).cosines()


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
    once = widen(vectors) - jnp.sum(vectors * unit, axis=1, keepdims=True) * unit
    return once - jnp.sum(once * unit, axis=1, keepdims=True) * unit


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
    pairs = RowPairs.of(a, b)
    return jnp.arctan2(pairs.tangents().sines, pairs.cosines())


def slerp_rows(
    rows: Rows, targets: Rows, alpha: Float[Array | np.ndarray, ""] | float
) -> Float[Array, "C D"]:
    r"""Turns every row by the share `alpha` of its angle to its target and keeps its norm.

    .. math:: \|x_c\| (\cos(\alpha \theta_c) \hat x_c + \sin(\alpha \theta_c) d_c)

    with :math:`\theta_c` from :func:`row_angles` and :math:`d_c` the unit tangent part of the
    target, zero where it is shorter than 1e-6 (parallel or antiparallel) and without a direction.
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
    turned, moves = RowPairs.of(rows, targets).slerp(alpha)
    return jnp.where(moves[:, None], turned, widen(rows))


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

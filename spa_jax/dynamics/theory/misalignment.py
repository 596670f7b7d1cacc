"""Classifiers turned away from their class means by given angles, with known error exponents."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import widen
from spa_jax.dynamics.theory.exponents import check_angles, optimal_exponent
from spa_jax.errors import InputError

Angles = Float[Array | np.ndarray, " C"]


def rotated_weights(
    means: Float[Array | np.ndarray, "C D"], angles: Angles, correlation: float
) -> Float[Array, "C D"]:
    r"""Weights turned by class-dependent angles into directions orthogonal to all class means.

    .. math:: w_c = \cos(\alpha_c) \mu_c + \sin(\alpha_c) v_c, \quad
       \langle v_c, v_j \rangle = \rho \; (c \ne j), \quad \|v_c\| = 1

    The correlation says how the weights move together: at -1 / (C - 1) the directions are a simplex
    ETF, at 0 they are independent, at 1 they are one common direction.

    Args:
      means: `(C, D)` floating, rows of norm 1.
      angles: `(C,)` floating, radians in [0, pi].
      correlation: :math:`\rho`, in [-1 / (C - 1), 1].

    Returns:
      `(C, D)` float32, rows of norm 1.

    Raises:
      InputError: angles or a correlation out of range, another number of angles than of means, or
        too few dimensions: a simplex ETF needs D >= 2 (C - 1), or 2 C - 1 for directions other than
        those at the ends of the range of correlations.

    Example:
      >>> means = spa_jax.simplex_etf(2, 3)
      >>> rotated_weights(means, jnp.array([0.0, jnp.pi / 3]), 1.0).round(3)[:, 0].tolist()
      [1.0, -0.5]
    """
    num_classes, dim = means.shape
    check_angles(angles)
    _check_correlation(correlation, num_classes)
    if angles.shape != (num_classes,):
        raise InputError(f"There are {num_classes} means but {angles.shape[0]} angles.")
    rows, turns = np.asarray(means, np.float64), np.asarray(angles, np.float64)[:, None]
    _, sizes, axes = np.linalg.svd(rows)
    rank = int(np.sum(sizes > 1e-5 * sizes[0]))
    # C unit rows with one inner product, in as few columns as they need.
    values, vectors = np.linalg.eigh((1 - correlation) * np.eye(num_classes) + correlation)
    directions = (vectors * np.sqrt(np.maximum(values, 0)))[:, values > 1e-9]
    needed = rank + directions.shape[1]
    if dim < needed:
        raise InputError(
            f"{num_classes} directions of correlation {correlation:g} that are orthogonal to the "
            f"means need D >= {needed}, got D = {dim}: make the means with dim={needed} or more."
        )
    orthogonal = directions @ axes[rank:needed]
    return jnp.asarray(np.cos(turns) * rows + np.sin(turns) * orthogonal, jnp.float32)


def rotated_exponents(angles: Angles, correlation: float) -> Float[Array, " C"]:
    r"""Error exponents of :func:`rotated_weights` on means that are a simplex ETF.

    .. math:: \beta_c = \min_{j \ne c} \frac{\max(\cos \alpha_c + k \cos \alpha_j, 0)^2}
       {4 (1 + k \cos \alpha_c \cos \alpha_j - \rho \sin \alpha_c \sin \alpha_j)}, \quad
       k = \tfrac{1}{C - 1}

    For :math:`\rho \le 0` and angles up to a right angle, the smallest of them, which is the
    overall exponent, belongs to the two largest angles.

    Args:
      angles: `(C,)` floating, radians in [0, pi].
      correlation: :math:`\rho`, in [-1 / (C - 1), 1].

    Returns:
      `(C,)` float32.

    Raises:
      InputError: fewer than two classes, or angles or a correlation out of range.

    Example:
      >>> angles = jnp.full(2, jnp.pi / 3)
      >>> [round(rotated_exponents(angles, rho)[0].item(), 4) for rho in (-1.0, 0.0, 1.0)]
      [0.125, 0.2, 0.5]
    """
    num_classes = angles.shape[0]
    optimal_exponent(num_classes)
    check_angles(angles)
    _check_correlation(correlation, num_classes)
    cosines, sines = jnp.cos(widen(angles)), jnp.sin(widen(angles))
    share = 1.0 / (num_classes - 1)
    margins = cosines[:, None] + share * cosines[None]
    products = share * jnp.outer(cosines, cosines) - correlation * jnp.outer(sines, sines)
    # The squared length of a difference of weights, half of it; 0 where the weights coincide.
    halves = jnp.maximum(1.0 + products, jnp.finfo(cosines.dtype).eps)
    exponents = jnp.square(jnp.maximum(margins, 0.0)) / (4.0 * halves)
    own = jnp.eye(num_classes, dtype=bool)
    return jnp.min(jnp.where(own, jnp.inf, exponents), axis=1)


def rotate_in_plane(
    frame: Float[Array | np.ndarray, "C D"], first: int, second: int, angle: float
) -> Float[Array, "C D"]:
    r"""A frame turned as one in the plane of two of its members, the first towards the second.

    .. math:: x \mapsto x + (\cos \alpha - 1)(\langle x, p \rangle p + \langle x, q \rangle q)
       + \sin \alpha \, (\langle x, p \rangle q - \langle x, q \rangle p)

    with :math:`p` the first row and :math:`q` the unit part of the second that is orthogonal to it.
    A simplex ETF stays one. As the weights of a classifier whose means are the old frame, it costs
    the second class all that a misalignment of this angle can, the lower bound of
    :func:`spa_jax.dynamics.theory.exponents.exponent_bounds`.

    Args:
      frame: `(C, D)` floating, rows of norm 1.
      first: a class.
      second: another class, neither parallel nor antiparallel to the first.
      angle: radians.

    Returns:
      `(C, D)` float32.

    Raises:
      InputError: two rows that span no plane.

    Example:
      >>> (10 * rotate_in_plane(jnp.eye(2), 0, 1, jnp.pi / 6)).round().tolist()
      [[9.0, 5.0], [-5.0, 9.0]]
    """
    rows = np.asarray(frame, np.float64)
    p = rows[first]
    q = rows[second] - (rows[second] @ p) * p
    length = float(np.linalg.norm(q))
    if length < 1e-5:
        raise InputError(
            f"Rows {first} and {second} are parallel and span no plane: take two others, of 3 "
            "classes or more."
        )
    plane, shrunk, swept = np.stack([p, q / length]), np.cos(angle) - 1.0, np.sin(angle)
    turn = np.array([[shrunk, swept], [-swept, shrunk]])
    return jnp.asarray(rows + rows @ plane.T @ turn @ plane, jnp.float32)


def _check_correlation(correlation: float, num_classes: int) -> None:
    lowest = -1 / (num_classes - 1)
    if not lowest - 1e-9 <= correlation <= 1 + 1e-9:
        raise InputError(
            f"correlation must be in [-1 / (C - 1), 1] = [{lowest:.4g}, 1], got {correlation:g}: "
            f"no {num_classes} unit vectors have it with each other."
        )

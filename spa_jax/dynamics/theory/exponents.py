"""Error exponents: how fast the error of a linear classifier vanishes with the noise.

An example of class c is its class mean plus isotropic Gaussian noise of standard deviation sigma,
and the classifier takes the largest of `weights @ x + bias`. Then log P(error | c) is about
-beta_c / sigma^2, and the exponents beta_c have a closed form for any means, weights and biases.
The derivations are in docs/theory.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from spa_jax.alignment.checks import is_known
from spa_jax.alignment.geometry import row_norms, widen
from spa_jax.dynamics.row_checks import check_array, check_each, check_finite, check_weights
from spa_jax.errors import InputError

Rows = Float[Array | np.ndarray, "C D"]
Bias = Float[Array | np.ndarray, " C"]
Priors = Num[Array | np.ndarray, " C"]


class ExponentBounds(NamedTuple):
    """What angles alone say about the exponents of simplex-ETF weights, each `(C,)` float32."""

    lower: Float[Array, " C"]
    upper: Float[Array, " C"]


def optimal_exponent(num_classes: int) -> float:
    r"""The largest exponent that any classifier reaches on class means of norm 1.

    .. math:: \beta^* = \frac{C}{4 (C - 1)}

    Means and weights that are the same simplex ETF reach it.

    Args:
      num_classes: C, 2 or more.

    Returns:
      The exponent, in (1/4, 1/2].

    Raises:
      InputError: fewer than two classes.

    Example:
      >>> optimal_exponent(2), optimal_exponent(101)
      (0.5, 0.2525)
    """
    if num_classes < 2:
        raise InputError(f"An exponent needs 2 classes or more, got num_classes={num_classes}.")
    return num_classes / (4 * (num_classes - 1))


def boundary_distances(means: Rows, weights: Rows, bias: Bias | None = None) -> Float[Array, "C C"]:
    r"""Signed distance of every class mean to the boundary with every other class.

    .. math:: d_{cj} = \frac{\langle w_c - w_j, \mu_c \rangle + b_c - b_j}{\|w_c - w_j\|}

    It is negative where the mean of class c itself scores higher for class j.

    Args:
      means: `(C, D)` floating, the class means.
      weights: `(C, D)` floating; the transpose of a Flax kernel.
      bias: `(C,)` floating; None is no bias.

    Returns:
      `(C, C)` float32 (float64 for float64 input). Infinite on the diagonal. Where two classes
      share their weights there is no boundary: infinite for the larger bias, minus infinite for the
      smaller one, and for both at equal biases, since a tie counts as an error.

    Raises:
      InputError: shapes that do not fit, fewer than two classes, or known values that are not
        finite.

    Example:
      >>> axes = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
      >>> boundary_distances(axes, 5 * axes, bias=jnp.array([2.0, 0.0])).round(3).tolist()
      [[inf, 1.2000000476837158], [0.800000011920929, inf]]
    """
    check_classifier(means, weights, bias)
    shift = jnp.zeros(len(means)) if bias is None else bias
    return _distances(widen(means), widen(weights), widen(shift))


def error_exponents(means: Rows, weights: Rows, bias: Bias | None = None) -> Float[Array, " C"]:
    r"""Error exponent of every class, for any means, weights and biases.

    .. math:: \beta_c = -\lim_{\sigma \to 0} \sigma^2 \log P(\text{error} \mid c)
       = \tfrac{1}{2} \min_{j \ne c} \max(d_{cj}, 0)^2

    with :math:`d_{cj}` from :func:`boundary_distances`. Measured on a run, with the class means of
    held-out features and the weights of the head, it says which class noise hurts first.

    Args:
      means: `(C, D)` floating, the class means.
      weights: `(C, D)` floating; the transpose of a Flax kernel.
      bias: `(C,)` floating; None is no bias.

    Returns:
      `(C,)` float32 (float64 for float64 input), >= 0: 0 for a class whose own mean is
      misclassified, infinite for one that nothing can misclassify.

    Raises:
      InputError: as :func:`boundary_distances`.

    Example:
      >>> means = spa_jax.simplex_etf(3, 2)
      >>> error_exponents(means, 7 * means).round(4).tolist()  # 3 / 8
      [0.375, 0.375, 0.375]
    """
    nearest = jnp.min(boundary_distances(means, weights, bias), axis=1)
    return 0.5 * jnp.square(jnp.maximum(nearest, 0.0))


def overall_exponent(
    exponents: Float[Array | np.ndarray, " C"], priors: Priors | None = None
) -> Float[Array, ""]:
    r"""Error exponent of all classes together: the smallest.

    .. math:: -\lim_{\sigma \to 0} \sigma^2 \log \sum_c \pi_c P(\text{error} \mid c)
       = \min_{c : \pi_c > 0} \beta_c

    How large a prior is does not matter, only that it is not 0.

    Args:
      exponents: `(C,)` floating, from :func:`error_exponents`.
      priors: `(C,)` >= 0, shares or counts of the classes; None is every class. Traced priors are
        not checked.

    Returns:
      Scalar float32 (float64 for float64 input).

    Raises:
      InputError: priors of another shape, negative, not finite, or all 0.

    Example:
      >>> overall_exponent(jnp.array([0.25, 0.125, 0.0]), jnp.array([5000, 50, 0])).item()
      0.125
    """
    values = widen(exponents)
    if priors is None:
        return jnp.min(values)
    check_priors(priors, values.shape[0])
    return jnp.min(jnp.where(jnp.asarray(priors) > 0, values, jnp.inf))


def exponent_bounds(angles: Float[Array | np.ndarray, " C"]) -> ExponentBounds:
    r"""Sharp bounds on the exponents of simplex-ETF weights, from class-dependent angles.

    .. math:: \tfrac{1}{2} \cos_+^2(\varphi_C + \alpha_c) \le \beta_c
       \le \cos_+^2(\alpha_c) \, \frac{C}{4 (C - 1)}, \quad
       \cos \varphi_C = \sqrt{\tfrac{C}{2 (C - 1)}}

    where :math:`\cos_+` is the cosine up to a right angle and 0 beyond. They hold for class means
    of norm 1, whatever their geometry, and weights that are a simplex ETF up to a scale and a
    common shift, without biases; angles are to the centred weights. The bounds of the overall
    exponent are the smallest entries, those of the largest angle. Weights that are no simplex ETF
    can be above the upper bound.

    Args:
      angles: `(C,)` floating, the angle between mean and weight of each class, radians in [0, pi].

    Returns:
      The lower and the upper bound of each class, `(C,)` float32.

    Raises:
      InputError: fewer than two classes, or known angles outside [0, pi].

    Example:
      >>> bounds = exponent_bounds(jnp.full(3, jnp.pi / 6))
      >>> [round(32 * bound[0].item(), 3) for bound in bounds]
      [4.0, 9.0]

    Reference:
      The upper bound at equal angles is Theorem 5 of Wang, Gao and Xie, "Space Alignment Matters:
      The Missing Piece for Inducing Neural Collapse in Long-Tailed Learning", AAAI 2026.
    """
    check_angles(angles)
    best = optimal_exponent(angles.shape[0])
    turned = widen(angles)
    aligned = np.arccos(min(1.0, np.sqrt(2 * best)))
    lower = 0.5 * jnp.square(jnp.maximum(jnp.cos(jnp.minimum(turned + aligned, jnp.pi)), 0.0))
    return ExponentBounds(lower, best * jnp.square(jnp.maximum(jnp.cos(turned), 0.0)))


@jax.jit
def _distances(
    means: Float[Array, "C D"], weights: Float[Array, "C D"], bias: Float[Array, " C"]
) -> Float[Array, "C C"]:
    classes = jnp.arange(means.shape[0])

    def distances_of(c: Array) -> Array:
        # Differences of rows, since differences of inner products cancel for similar weights.
        differences = weights[c][None] - weights
        margins = jnp.sum(differences * means[c][None], axis=1) + bias[c] - bias
        lengths = row_norms(differences)
        apart = lengths > 0
        no_boundary = jnp.where(margins > 0, jnp.inf, -jnp.inf)
        distances = jnp.where(apart, margins / jnp.where(apart, lengths, 1.0), no_boundary)
        return jnp.where(classes == c, jnp.inf, distances)

    return jax.lax.map(distances_of, classes)


def check_classifier(means: Rows, weights: Rows, bias: Bias | None) -> None:
    """Raises InputError unless means, weights and biases belong together and are finite."""
    if means.ndim != 2 or len(means) < 2:
        raise InputError(f"means must be (C, D) with 2 classes or more, got shape {means.shape}.")
    check_weights(weights, bias, means.shape)
    for name, values in {"means": means, "weights": weights, "bias": bias}.items():
        if values is not None:
            check_finite(widen(values), name, "classes", "leave such classes out.")


def check_priors(priors: Priors, num_classes: int) -> None:
    """Raises InputError unless there is one prior a class; known ones >= 0, finite, not all 0."""
    check_array(priors, "priors", jnp.generic, (num_classes,), "one number a class")
    if not is_known(priors):
        return
    shares = np.asarray(priors)
    says = "priors must be finite and >= 0, got others"
    check_each(
        (shares >= 0) & (shares < np.inf), says, "classes", "pass shares or counts of the classes."
    )
    if not np.any(shares > 0):
        raise InputError("All priors are 0: at least one class must occur.")


def check_angles(angles: Float[Array | np.ndarray, " C"]) -> None:
    """Raises InputError unless known angles are in [0, pi], to rounding."""
    if is_known(angles):
        radians = np.asarray(widen(angles))
        sound = (radians >= 0) & (radians <= np.pi + 1e-6)
        check_each(sound, "angles must be in [0, pi], got others", "classes", "pass radians.")

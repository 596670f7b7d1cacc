r"""The formulas of neural collapse, on arrays with one row a class.

Rows are centred class means or classifier weights, whose scale does not matter. A row without a
direction (shorter than 1e-12 of the longest) has cosine 0 with all others. Where no row has one, a
ratio of norms has no value and is NaN: :func:`spa_jax.dynamics.collapse.metrics` refuses that.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import Rows, row_norms, unit_rows, widen
from spa_jax.dynamics.collapse.faults import check_finite
from spa_jax.dynamics.collapse.rows import noise_level, product, scaled, total
from spa_jax.errors import InputError


class PairwiseCosines(NamedTuple):
    """Mean and (population) standard deviation of the cosines of all pairs of some classes."""

    mean: Float[Array, ""]
    std: Float[Array, ""]


def equinorm(rows: Rows) -> Float[Array, ""]:
    r"""Coefficient of variation of the norms (NC2), 0 for equal norms.

    .. math:: \operatorname{std}_c \|x_c\| / \operatorname{mean}_c \|x_c\|

    with the unbiased standard deviation, which divides by C - 1.

    Args:
      rows: `(C, D)` floating, C >= 2.

    Returns:
      Scalar, >= 0.

    Example:
      >>> equinorm(jnp.array([[1.0, 0.0], [0.0, 3.0]])).round(3).item()
      0.7070000171661377

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    norms = row_norms(scaled(rows))
    return jnp.std(norms, ddof=1) / jnp.mean(norms)


def equiangularity(rows: Rows) -> Float[Array, ""]:
    r"""Mean distance of the pairwise cosines from those of a simplex ETF (NC2).

    .. math:: \operatorname{mean}_{c \ne c'} \left| \cos(x_c, x_{c'}) + \tfrac{1}{C - 1} \right|

    Args:
      rows: `(C, D)` floating, C >= 2.

    Returns:
      Scalar, >= 0.

    Example:
      >>> equiangularity(jnp.array([[1.0, 0.0], [0.0, 3.0]])).item()
      1.0

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    num_classes = rows.shape[0]
    cosines = _cosines(rows)
    distances = jnp.abs(cosines + 1.0 / (num_classes - 1))
    pairs = num_classes * (num_classes - 1)
    return total(jnp.where(jnp.eye(num_classes, dtype=jnp.bool_), 0.0, distances)) / pairs


def etf_error(a: Rows, b: Rows) -> Float[Array, ""]:
    r"""Distance of the products of two sets of rows from the Gram matrix of a simplex ETF.

    .. math:: \left\| \frac{A B^\top}{\|A B^\top\|_F}
       - \frac{1}{\sqrt{C - 1}} (I - \tfrac{1}{C} 1 1^\top) \right\|_F

    Of centred means with themselves it is the ETF error (NC2); of weights with centred means it is
    the self-duality error (NC3).

    Args:
      a: `(C, D)` floating, C >= 2.
      b: `(C, D)` floating.

    Returns:
      Scalar in [0, 2]; 1 if all products are 0.

    Example:
      >>> frame = jnp.array([[2.0], [-2.0]])
      >>> etf_error(frame, frame).item(), etf_error(frame, -frame).item()
      (0.0, 2.0)

    Reference:
      Zhu et al., "A Geometric Analysis of Neural Collapse with Unconstrained Features",
      NeurIPS 2021.
    """
    num_classes = a.shape[0]
    products = product(scaled(a), scaled(b).T)
    ideal = (jnp.eye(num_classes) - 1.0 / num_classes) / np.sqrt(num_classes - 1)
    return _frobenius(_normalised(products) - ideal.astype(products.dtype))


def duality_distance(weights: Rows, means: Rows) -> Float[Array, ""]:
    r"""Squared distance of weights and centred means, each scaled to Frobenius norm 1 (NC3).

    .. math:: \left\| W / \|W\|_F - M / \|M\|_F \right\|_F^2

    Args:
      weights: `(C, D)` floating.
      means: `(C, D)` floating, centred.

    Returns:
      Scalar in [0, 4].

    Example:
      >>> duality_distance(jnp.array([[3.0], [-3.0]]), jnp.array([[-1.0], [1.0]])).round(5).item()
      4.0

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    difference = _normalised(scaled(weights)) - _normalised(scaled(means))
    return total(jnp.square(difference))


def class_distance_normalized_variance(
    means: Rows, variances: Float[Array | np.ndarray, " C"]
) -> Float[Array, ""]:
    r"""Class-distance normalized variance (CDNV), a form of NC1 without a matrix inverse.

    .. math:: \operatorname{mean}_{c \ne c'} \frac{v_c + v_{c'}}{2 \|\mu_c - \mu_{c'}\|^2}

    Args:
      means: `(C, D)` floating, C >= 2.
      variances: `(C,)`, v: mean squared distance of a class's features from their mean.

    Returns:
      Scalar, >= 0; infinite if two means are the same up to rounding, as
      :func:`spa_jax.dynamics.collapse.rows.noise_level` has it.

    Example:
      >>> means, variances = jnp.array([[0.0], [2.0]]), jnp.array([1.0, 3.0])
      >>> class_distance_normalized_variance(means, variances).item()
      0.5

    Reference:
      Galanti, György and Hutter, "On the Role of Neural Collapse in Transfer Learning", ICLR 2022.
    """
    longest = jnp.max(row_norms(means))
    means, variances = scaled(means), widen(variances) / jnp.square(longest)
    num_classes = means.shape[0]
    noise = noise_level(means)

    def sum_over_others(mean_and_number: tuple[Float[Array, " D"], Array]) -> Float[Array, ""]:
        mean, number = mean_and_number
        squares = jnp.sum(jnp.square(means - mean[None]), axis=1)
        others = jnp.arange(num_classes) != number
        inverse = jnp.where(squares > jnp.square(noise), 1.0 / squares, jnp.inf)
        return jnp.sum(jnp.where(others, inverse, 0.0))

    # A class at a time: all differences at once would take (C, C, D), and distances taken from
    # products would cancel for means that are close.
    sums = jax.lax.map(sum_over_others, (means, jnp.arange(num_classes)))
    # 0 times infinity is NaN, but means that coincide are no collapse, even without variance.
    terms = jnp.where(jnp.isinf(sums), jnp.inf, variances * sums)
    return jnp.sum(terms) / (num_classes * (num_classes - 1))


def minority_collapse(rows: Rows, classes: Sequence[int] | np.ndarray) -> PairwiseCosines:
    r"""Pairwise cosines within a group of classes, such as the few-shot group.

    In minority collapse the weights of rare classes become one: the mean goes to 1 and the standard
    deviation to 0, where a simplex ETF has -1 / (C - 1) and 0.

    Args:
      rows: `(C, D)` floating: classifier weights, or centred means of all C classes.
      classes: two or more different class numbers in [0, C), known when tracing.

    Returns:
      Mean and (population) standard deviation of :math:`\cos(x_k, x_{k'})` over the pairs.

    Raises:
      InputError: fewer than two classes, a class twice, or one outside [0, C); a known row that is
        not finite (if it is traced, the result is NaN).

    Example:
      >>> rows = jnp.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
      >>> float(minority_collapse(rows, [1, 2]).mean), float(minority_collapse(rows, [0, 2]).mean)
      (1.0, 0.0)

    Reference:
      Fang, He, Long and Su, "Exploring deep neural networks via layer-peeled model: Minority
      collapse in imbalanced training", PNAS 2021.
    """
    check_finite(rows, "rows")
    group = np.asarray(classes)
    if group.ndim != 1 or group.size < 2 or not np.issubdtype(group.dtype, np.integer):
        raise InputError(
            f"classes must be two or more class numbers, got {group.tolist()}: there is no pair. "
            "If the few-shot group is that small, take in the next classes by size."
        )
    wrong = group[(group < 0) | (group >= rows.shape[0])]
    numbers, times = np.unique(group, return_counts=True)
    if wrong.size or np.any(times > 1):
        raise InputError(
            f"classes must be different and in [0, {rows.shape[0]}), got out of range: "
            f"{wrong[:3].tolist()}, more than once: {numbers[times > 1][:3].tolist()}."
        )
    first, second = np.triu_indices(group.size, k=1)
    cosines = _cosines(widen(rows)[group])[first, second]
    return PairwiseCosines(jnp.mean(cosines), jnp.std(cosines))


def _cosines(rows: Rows) -> Float[Array, "C C"]:
    unit = unit_rows(scaled(rows))
    return jnp.clip(product(unit, unit.T), -1.0, 1.0)


def _frobenius(matrix: Float[Array, "N M"]) -> Float[Array, ""]:
    return jnp.sqrt(total(jnp.square(matrix)))


def _normalised(matrix: Float[Array, "N M"]) -> Float[Array, "N M"]:
    norm = _frobenius(matrix)
    return matrix / jnp.where(norm > 0, norm, 1.0)

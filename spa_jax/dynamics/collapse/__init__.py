"""Neural-collapse metrics NC1 to NC4 of features, class means and a linear classifier.

First pass over the data: :class:`NCState`, then :func:`metrics`. Second pass, for what needs the
class means first: :func:`nc4` and :func:`nc1_contributions`. The formulas themselves are in
:mod:`spa_jax.dynamics.collapse.measures`.
"""

import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from spa_jax.alignment.geometry import row_angles, row_cosines, row_norms, widen
from spa_jax.dynamics.collapse import measures
from spa_jax.dynamics.collapse.examples import nc1_contributions, nc4, nc4_agreement
from spa_jax.dynamics.collapse.faults import (
    Faults,
    any_of,
    check_bias,
    check_rows,
    refuse,
    where_sound,
)
from spa_jax.dynamics.collapse.measures import minority_collapse
from spa_jax.dynamics.collapse.rows import (
    centred,
    noise_level,
    product,
    scaled,
    total,
    weighted_mean,
)
from spa_jax.dynamics.collapse.state import NCState
from spa_jax.errors import InputError

__all__ = [
    "NCState",
    "centred_means",
    "metrics",
    "minority_collapse",
    "nc1_contributions",
    "nc4",
    "nc4_agreement",
    "whitening",
]

Center = Literal["class_means", "samples"]
Values = dict[str, Array]


def metrics(
    state: NCState,
    weights: Float[Array | np.ndarray, "C D"],
    bias: Float[Array | np.ndarray, " C"] | None = None,
    center: Center = "class_means",
    center_weights: bool = False,
) -> Values:
    r"""All neural-collapse metrics that one pass over the data allows.

    With n examples, centred means :math:`m_c = \mu_c - \mu_G`, their matrix M and weights W,

    .. math:: S_W = \tfrac{1}{n} \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top, \quad
       S_B = \tfrac{1}{C} \sum_c m_c m_c^\top

    ========================== ================================================================
    `nc1`                      :math:`\operatorname{tr}(S_W S_B^+)`
    `nc1_over_c`               the same divided by C
    `nc1_rank`                 int32, the rank of :math:`S_B` that its pseudo-inverse took
    `nc1_quotient`             :math:`\operatorname{tr} S_W / \operatorname{tr} S_B`
    `nc1_per_class`            `(C,)`, the quotient with each class's own scatter; its mean weighted
                               with the counts is `nc1_quotient`. The trace form for a class
                               needs a second pass, :func:`nc1_contributions`
    `cdnv`                     class-distance normalized variance; infinite if two means coincide
    `nc2_equinorm_*`           variation of the norms, of `means` (centred) and `weights`
    `nc2_equiangular_*`        mean distance of the cosines from -1 / (C - 1)
    `nc2_etf_*`                distance of the Gram matrix from that of a simplex ETF
    `nc3`                      :math:`\| W / \|W\|_F - M / \|M\|_F \|_F^2`
    `nc3_self_duality`         distance of :math:`W M^\top` from the Gram matrix of a simplex ETF
    `nc3_cosines`              `(C,)`, :math:`\cos(w_c, m_c)`
    `nc3_angles`               `(C,)`, the same in degrees
    `nc4_means`                share of the class means that the classifier gives to their class
    ========================== ================================================================

    Collapse is 0 for all but `nc1_rank`, `nc3_cosines` and `nc4_means`, where it is C - 1, 1 and 1.

    Args:
      state: of training or of held-out examples, each class with one or more.
      weights: `(C, D)` floating, the classifier's; a Flax kernel is `(D, C)`, pass its transpose.
      bias: `(C,)` floating, for `nc4_means`; None is 0.
      center: :math:`\mu_G`: "class_means", the mean of the class means, or "samples", the mean of
        all features, in which a class weighs as it is large. Static.
      center_weights: subtract the mean weight from W first, which leaves a softmax as it is. The
        published code does not. Static.

    Returns:
      Scalars, and `(C,)` arrays where said, float32 (float64 for a float64 state). A mean that lies
      on :math:`\mu_G` has cosine 0, and a zero weight row too. Singular values of M up to
      :math:`16 \varepsilon \sqrt C \max_c \|\mu_c\|` count as 0 in :math:`S_B^+`, as they are
      rounding noise: directions in which no mean differs are left out of `nc1`, and lower
      `nc1_rank`.

    Raises:
      InputError: shapes that do not fit; a class without examples; examples that were not finite;
        class means that all coincide; features that are too large or too small to be squared;
        weights that are not finite, or all zero. Where the values are traced and cannot be
        checked, each entry that is touched by one of these is NaN (`nc1_rank` is 0).

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> found = metrics(state, weights=jnp.array([[-1.0], [1.0]]))
      >>> round(float(found["nc1"]), 4), found["nc3_cosines"].tolist()
      (0.1667, [1.0, 1.0])

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    _check_center(center)
    num_classes, dim = state.mean.shape
    check_rows(weights, "weights", (num_classes, dim))
    check_bias(bias, num_classes)
    offsets = jnp.zeros(num_classes, jnp.float32) if bias is None else widen(bias)
    values, faults = _metrics(state, widen(weights), offsets, center, center_weights)
    refuse(faults)
    return values


def centred_means(state: NCState, center: Center = "class_means") -> Float[Array, "C D"]:
    r"""Class means minus the global mean, M of :func:`metrics`.

    Args:
      state: of one or more examples a class.
      center: as in :func:`metrics`.

    Returns:
      `(C, D)`; a mean that lies on the global mean, up to rounding, has a zero row.

    Raises:
      InputError: as :func:`metrics` for the state; if traced, the result is NaN.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> centred_means(state).tolist()
      [[-2.0], [2.0]]
    """
    _check_center(center)
    means, _, faults = _geometry(state, center)
    refuse(faults)
    return means


def whitening(state: NCState, center: Center = "class_means") -> Float[Array, "K D"]:
    r"""A square root of the pseudo-inverse of the scatter between classes.

    .. math:: A^\top A = S_B^+, \quad \operatorname{tr}(S S_B^+) = \operatorname{tr}(A S A^\top)

    Args:
      state: of one or more examples a class.
      center: as in :func:`metrics`.

    Returns:
      `(min(C - 1, D), D)`: A, with zero rows for what its cut-off leaves out.

    Raises:
      InputError: as :func:`metrics` for the state; if traced, the result is NaN.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> abs(whitening(state)).round(4).tolist()
      [[0.5]]
    """
    _check_center(center)
    _, root, faults = _geometry(state, center)
    refuse(faults)
    return root


@functools.partial(jax.jit, static_argnames=("center", "center_weights"))
def _metrics(
    state: NCState,
    weights: Float[Array, "C D"],
    bias: Float[Array, " C"],
    center: Center,
    center_weights: bool,
) -> tuple[Values, Faults]:
    """The metrics, NaN where they have no value, and what is at fault then."""
    means, root, faults = _geometry(state, center)
    variability = _variability(state, means, root)
    means = scaled(means)
    rows = (
        centred(weights, weighted_mean(weights, jnp.ones_like(bias))) if center_weights else weights
    )
    rows = scaled(rows)
    weight_faults = {
        "weights": ~(jnp.all(jnp.isfinite(weights), axis=1) & jnp.isfinite(bias)),
        "no_weights": ~jnp.any(rows != 0),
    }
    logits = product(state.mean, weights.T) + bias[None]
    own = jnp.argmax(logits, axis=1) == jnp.arange(len(bias))
    of_both = {
        "nc3": measures.duality_distance(rows, means),
        "nc3_self_duality": measures.etf_error(rows, means),
        "nc3_cosines": row_cosines(rows, means),
        "nc3_angles": jnp.degrees(row_angles(rows, means)),
        "nc4_means": jnp.mean(own, dtype=logits.dtype),
    }
    values = (
        where_sound(variability | _structure(means, "means"), faults)
        | where_sound(_structure(rows, "weights"), weight_faults)
        | where_sound(of_both, faults | weight_faults)
    )
    rank = jnp.sum(jnp.any(root != 0, axis=1), dtype=jnp.int32)
    values["nc1_rank"] = jnp.where(any_of(faults), 0, rank)
    return values, faults | weight_faults


@functools.partial(jax.jit, static_argnames="center")
def _geometry(
    state: NCState, center: Center
) -> tuple[Float[Array, "C D"], Float[Array, "K D"], Faults]:
    """Centred means and whitening, NaN where they have no value, and what is at fault then."""
    num_classes = len(state.counts)
    means = centred(state.mean, _global_mean(state, center))
    _, sizes, directions = jnp.linalg.svd(means, full_matrices=False)
    sizes, directions = sizes[: num_classes - 1], directions[: num_classes - 1]
    kept = sizes > noise_level(state.mean) * math.sqrt(num_classes)
    scales = jnp.where(kept, math.sqrt(num_classes) / jnp.where(kept, sizes, 1.0), 0.0)
    faults = {
        "left_out": state.not_finite,
        "empty": state.counts == 0,
        "range": _out_of_range(state),
        "coincide": ~jnp.any(kept),
    }
    sound = where_sound({"means": means, "root": scales[:, None] * directions}, faults)
    return sound["means"], sound["root"], faults


def _global_mean(state: NCState, center: Center) -> Float[Array, " D"]:
    counts = state.counts.astype(state.mean.dtype)
    return weighted_mean(state.mean, counts if center == "samples" else jnp.ones_like(counts))


def _variability(state: NCState, means: Float[Array, "C D"], root: Float[Array, "K D"]) -> Values:
    """NC1 in its forms."""
    num_classes = len(state.counts)
    counts = state.counts.astype(state.mean.dtype)
    between = total(jnp.square(means)) / num_classes
    trace = total(product(root, state.scatter) * root)
    trace = jnp.maximum(trace, 0.0) / jnp.sum(counts)
    variances = state.traces / counts
    return {
        "nc1": trace,
        "nc1_over_c": trace / num_classes,
        "nc1_quotient": jnp.sum(state.traces) / jnp.sum(counts) / between,
        "nc1_per_class": variances / between,
        "cdnv": measures.class_distance_normalized_variance(state.mean, variances),
    }


def _structure(rows: Float[Array, "C D"], of: str) -> Values:
    """NC2 in its forms."""
    return {
        f"nc2_equinorm_{of}": measures.equinorm(rows),
        f"nc2_equiangular_{of}": measures.equiangularity(rows),
        f"nc2_etf_{of}": measures.etf_error(rows, rows),
    }


def _out_of_range(state: NCState) -> Bool[Array, ""]:
    """Whether squares of the features overflow, or lose digits by underflow."""
    limits = jnp.finfo(state.mean.dtype)
    longest = jnp.max(row_norms(state.mean))
    smallest, largest = 1e4 * math.sqrt(limits.tiny), 1e-4 * math.sqrt(limits.max)
    in_range = (longest == 0) | ((longest > smallest) & (longest < largest))
    return ~(in_range & jnp.all(jnp.isfinite(state.scatter)) & jnp.all(jnp.isfinite(state.traces)))


def _check_center(center: str) -> None:
    if center not in get_args(Center):
        raise InputError(f'center must be "class_means" or "samples", got {center!r}.')

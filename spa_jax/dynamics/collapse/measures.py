r"""Neural collapse in NumPy float64: all that a state says of it, and the formulas by themselves.

The formulas take arrays with one row a class: centred class means or classifier weights, on the
device or fetched, but not traced; their scale does not matter. A row without a direction (shorter
than 1e-12 of the longest) has cosine 0 with all others. Where no row has one, a ratio of norms has
no value and is NaN: :func:`spa_jax.dynamics.collapse.metrics` refuses that.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.distance import pdist, squareform

from spa_jax.alignment.checks import is_known
from spa_jax.alignment.geometry import SHORTEST_ROW, Rows
from spa_jax.dynamics.collapse.nc_state import NCState
from spa_jax.dynamics.row_checks import check_each, check_finite, check_weights
from spa_jax.errors import InputError

Center = Literal["class_means", "samples"]

ROUNDING = 16
"""Differences of up to this many machine epsilons of the longest row are rounding noise."""


class PairwiseCosines(NamedTuple):
    """Mean and (population) standard deviation of the cosines of all pairs of some classes."""

    mean: float
    std: float


def metrics(
    state: NCState,
    weights: Float[Array | np.ndarray, "C D"],
    bias: Float[Array | np.ndarray, " C"] | None = None,
    center: Center = "class_means",
    center_weights: bool = False,
) -> dict[str, Any]:
    r"""All neural-collapse metrics that one pass over the data allows.

    With n examples, centred means :math:`m_c = \mu_c - \mu_G`, their matrix M and weights W,

    .. math:: S_W = \tfrac{1}{n} \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top, \quad
       S_B = \tfrac{1}{C} \sum_c m_c m_c^\top

    ========================== ================================================================
    `nc1`                      :math:`\operatorname{tr}(S_W S_B^+)`
    `nc1_over_c`               the same divided by C
    `nc1_rank`                 int, the rank of :math:`S_B` that its pseudo-inverse took
    `nc1_quotient`             :math:`\operatorname{tr} S_W / \operatorname{tr} S_B`
    `nc1_per_class`            `(C,)`, the quotient with each class's own scatter; its mean weighted
                               with the counts is `nc1_quotient`. The trace form for a class
                               needs a second pass, `collapse.nc1_contributions`
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
      state: of training or of held-out examples, each class with one or more; on the device or
        fetched from it, but not traced.
      weights: `(C, D)` floating, the classifier's; a Flax kernel is `(D, C)`, pass its transpose.
      bias: `(C,)` floating, for `nc4_means`; None is 0.
      center: :math:`\mu_G`: "class_means", the mean of the class means, or "samples", the mean of
        all features, in which a class weighs as it is large.
      center_weights: subtract the mean weight from W first, which leaves a softmax as it is. The
        published code does not.

    Returns:
      Python numbers, and `(C,)` NumPy float64 arrays where said. A mean that lies on
      :math:`\mu_G` has cosine 0, and a zero weight row too. Singular values of M up to
      :math:`16 \varepsilon \sqrt C \max_c \|\mu_c\|`, with :math:`\varepsilon` of the state's
      dtype, count as 0 in :math:`S_B^+`, as they are rounding noise: directions in which no mean
      differs are left out of `nc1`, and lower `nc1_rank`.

    Raises:
      InputError: shapes that do not fit; a class without examples; examples that were not finite;
        class means that all coincide; features that are too large or too small to be squared;
        weights that are not finite, or all zero; traced values, as under `jax.jit`.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> found = metrics(state, weights=jnp.array([[-1.0], [1.0]]))
      >>> round(found["nc1"], 4), found["nc3_cosines"].tolist()
      (0.1667, [1.0, 1.0])

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    check_weights(weights, bias, state.mean.shape)
    known, means, root = _geometry(state, center)
    offsets = np.zeros(len(means)) if bias is None else on_host(bias, "bias")
    rows = on_host(weights, "weights")
    check_finite(np.column_stack([rows, offsets]), "weights and bias", "classes")
    own = np.argmax(known.mean @ rows.T + offsets[None], axis=1) == np.arange(len(rows))
    if center_weights:
        rows = _centred(weights, rows.mean(axis=0))
    if not np.any(rows):
        raise InputError(
            "All weights are zero, or the same with center_weights=True, and point nowhere: "
            "measure after the first step."
        )
    number, variances = known.counts.sum(), known.traces / known.counts
    between = np.sum(np.square(means)) / len(means)
    trace = max(float(np.sum((root @ known.scatter) * root) / number), 0.0)
    found = {
        "nc1": trace,
        "nc1_over_c": trace / len(means),
        "nc1_rank": int(np.any(root, axis=1).sum()),
        "nc1_quotient": float(known.traces.sum() / number / between),
        "nc1_per_class": variances / between,
        "cdnv": class_distance_normalized_variance(state.mean, variances),
        "nc3": duality_distance(rows, means),
        "nc3_self_duality": etf_error(rows, means),
        "nc3_cosines": row_cosines(rows, means),
        "nc3_angles": np.degrees(row_angles(rows, means)),
        "nc4_means": float(own.mean()),
    }
    for name, of in {"means": means, "weights": rows}.items():
        found[f"nc2_equinorm_{name}"] = equinorm(of)
        found[f"nc2_equiangular_{name}"] = equiangularity(of)
        found[f"nc2_etf_{name}"] = etf_error(of, of)
    return found


def centred_means(state: NCState, center: Center = "class_means") -> Float[np.ndarray, "C D"]:
    r"""Class means minus the global mean, M of :func:`metrics`.

    Args:
      state: of one or more examples a class, not traced.
      center: as in :func:`metrics`.

    Returns:
      `(C, D)` NumPy float64; a mean that lies on the global mean, up to rounding, has a zero row.

    Raises:
      InputError: as :func:`metrics` for the state.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> centred_means(state).tolist()
      [[-2.0], [2.0]]
    """
    return _geometry(state, center)[1]


def whitening(state: NCState, center: Center = "class_means") -> Float[np.ndarray, "K D"]:
    r"""A square root of the pseudo-inverse of the scatter between classes.

    .. math:: A^\top A = S_B^+, \quad \operatorname{tr}(S S_B^+) = \operatorname{tr}(A S A^\top)

    Args:
      state: of one or more examples a class, not traced.
      center: as in :func:`metrics`.

    Returns:
      `(min(C - 1, D), D)` NumPy float64: A, with zero rows for what its cut-off leaves out.

    Raises:
      InputError: as :func:`metrics` for the state.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [6.0]]), jnp.array([0, 0, 1]))
      >>> abs(whitening(state)).round(4).tolist()
      [[0.5]]
    """
    return _geometry(state, center)[2]


def equinorm(rows: Rows) -> float:
    r"""Coefficient of variation of the norms (NC2), 0 for equal norms.

    .. math:: \operatorname{std}_c \|x_c\| / \operatorname{mean}_c \|x_c\|

    with the unbiased standard deviation, which divides by C - 1.

    Args:
      rows: `(C, D)` floating, C >= 2.

    Returns:
      A number, >= 0.

    Example:
      >>> round(equinorm(jnp.array([[1.0, 0.0], [0.0, 3.0]])), 3)
      0.707

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    norms = row_norms(_scaled(rows))
    with np.errstate(invalid="ignore"):
        return float(np.std(norms, ddof=1) / np.mean(norms))


def equiangularity(rows: Rows) -> float:
    r"""Mean distance of the pairwise cosines from those of a simplex ETF (NC2).

    .. math:: \operatorname{mean}_{c \ne c'} \left| \cos(x_c, x_{c'}) + \tfrac{1}{C - 1} \right|

    Args:
      rows: `(C, D)` floating, C >= 2.

    Returns:
      A number, >= 0.

    Example:
      >>> equiangularity(jnp.array([[1.0, 0.0], [0.0, 3.0]]))
      1.0

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    return float(np.mean(np.abs(_pair_cosines(_scaled(rows)) + 1.0 / (len(rows) - 1))))


def etf_error(a: Rows, b: Rows) -> float:
    r"""Distance of the products of two sets of rows from the Gram matrix of a simplex ETF.

    .. math:: \left\| \frac{A B^\top}{\|A B^\top\|_F}
       - \frac{1}{\sqrt{C - 1}} (I - \tfrac{1}{C} 1 1^\top) \right\|_F

    Of centred means with themselves it is the ETF error (NC2); of weights with centred means it is
    the self-duality error (NC3).

    Args:
      a: `(C, D)` floating, C >= 2.
      b: `(C, D)` floating.

    Returns:
      A number in [0, 2]; 1 if all products are 0.

    Example:
      >>> frame = jnp.array([[2.0], [-2.0]])
      >>> etf_error(frame, frame), etf_error(frame, -frame)
      (0.0, 2.0)

    Reference:
      Zhu et al., "A Geometric Analysis of Neural Collapse with Unconstrained Features",
      NeurIPS 2021.
    """
    num_classes = len(a)
    products = _scaled(a) @ _scaled(b).T
    ideal = (np.eye(num_classes) - 1.0 / num_classes) / np.sqrt(num_classes - 1)
    return float(np.linalg.norm(_normalised(products) - ideal))


def duality_distance(weights: Rows, means: Rows) -> float:
    r"""Squared distance of weights and centred means, each scaled to Frobenius norm 1 (NC3).

    .. math:: \left\| W / \|W\|_F - M / \|M\|_F \right\|_F^2

    Args:
      weights: `(C, D)` floating.
      means: `(C, D)` floating, centred.

    Returns:
      A number in [0, 4].

    Example:
      >>> round(duality_distance(jnp.array([[3.0], [-3.0]]), jnp.array([[-1.0], [1.0]])), 5)
      4.0

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    difference = _normalised(_scaled(weights)) - _normalised(_scaled(means))
    return float(np.sum(np.square(difference)))


def class_distance_normalized_variance(
    means: Rows, variances: Float[Array | np.ndarray, " C"]
) -> float:
    r"""Class-distance normalized variance (CDNV), a form of NC1 without a matrix inverse.

    .. math:: \operatorname{mean}_{c \ne c'} \frac{v_c + v_{c'}}{2 \|\mu_c - \mu_{c'}\|^2}

    Args:
      means: `(C, D)` floating, C >= 2.
      variances: `(C,)`, v: mean squared distance of a class's features from their mean.

    Returns:
      A number, >= 0; infinite if two means are the same up to rounding, as :func:`noise_level` has
      it.

    Example:
      >>> means, variances = jnp.array([[0.0], [2.0]]), jnp.array([1.0, 3.0])
      >>> class_distance_normalized_variance(means, variances)
      0.5

    Reference:
      Galanti, György and Hutter, "On the Role of Neural Collapse in Transfer Learning", ICLR 2022.
    """
    known, spread = on_host(means, "means"), on_host(variances, "variances")
    # From differences: distances taken from products would cancel for means that are close.
    squares = squareform(pdist(known, "sqeuclidean"))
    np.fill_diagonal(squares, np.inf)
    if squares.min() <= noise_level(means) ** 2:
        return np.inf  # and not 0 times infinity: no collapse, even without variance
    num_classes = len(known)
    return float(spread @ (1.0 / squares).sum(axis=1)) / (num_classes * (num_classes - 1))


def minority_collapse(rows: Rows, classes: Sequence[int] | np.ndarray) -> PairwiseCosines:
    r"""Pairwise cosines within a group of classes, such as the few-shot group.

    In minority collapse the weights of rare classes become one: the mean goes to 1 and the standard
    deviation to 0, where a simplex ETF has -1 / (C - 1) and 0.

    Args:
      rows: `(C, D)` floating: classifier weights, or centred means of all C classes.
      classes: two or more different class numbers in [0, C).

    Returns:
      Mean and (population) standard deviation of :math:`\cos(x_k, x_{k'})` over the pairs.

    Raises:
      InputError: fewer than two classes, a class twice, or one outside [0, C); rows that are not
        finite, or traced.

    Example:
      >>> rows = jnp.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
      >>> minority_collapse(rows, [1, 2]).mean, minority_collapse(rows, [0, 2]).mean
      (1.0, 0.0)

    Reference:
      Fang, He, Long and Su, "Exploring deep neural networks via layer-peeled model: Minority
      collapse in imbalanced training", PNAS 2021.
    """
    scaled, group = _scaled(rows), np.asarray(classes)
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
    cosines = _pair_cosines(scaled[group])
    return PairwiseCosines(float(cosines.mean()), float(cosines.std()))


def row_cosines(
    a: Float[np.ndarray, "C D"], b: Float[np.ndarray, "C D"]
) -> Float[np.ndarray, " C"]:
    """Cosine of every row of `a` and the same row of `b`, 0 where either has no direction."""
    return np.clip(np.sum(_unit_rows(a) * _unit_rows(b), axis=1), -1.0, 1.0)


def row_angles(a: Float[np.ndarray, "C D"], b: Float[np.ndarray, "C D"]) -> Float[np.ndarray, " C"]:
    r"""The same angles in radians, accurate near 0 and near pi; pi / 2 for a cosine of 0.

    .. math:: \theta_c = 2 \operatorname{atan2}(\|\hat a_c - \hat b_c\|, \|\hat a_c + \hat b_c\|)
    """
    a, b = _unit_rows(a), _unit_rows(b)
    apart, together = row_norms(a - b), row_norms(a + b)
    return np.where(apart + together > 0, 2.0 * np.arctan2(apart, together), np.pi / 2)


def row_norms(rows: Float[np.ndarray, "C D"]) -> Float[np.ndarray, " C"]:
    """Euclidean norm of every row."""
    return np.linalg.norm(rows, axis=1)


def noise_level(rows: Rows) -> float:
    r"""The length below which a difference of rows is rounding noise.

    .. math:: 16 \, \varepsilon \max_c \|x_c\|

    Args:
      rows: `(C, D)` floating.

    Returns:
      A number, >= 0, with :math:`\varepsilon` of the rows' dtype (of float32 for shorter ones).

    Example:
      >>> noise_level(jnp.array([[0.5], [-2.0]])) == 32 * 2.0**-23
      True
    """
    epsilon = float(jnp.finfo(jnp.promote_types(rows.dtype, jnp.float32)).eps)
    return ROUNDING * epsilon * float(row_norms(on_host(rows, "rows")).max())


def on_host(values: Any, name: str) -> Float[np.ndarray, "..."]:
    """Values as NumPy float64; InputError if they are traced."""
    if not is_known(values):
        raise InputError(
            f"{name} must be known here, where neural collapse is finished in NumPy, but is traced "
            "or spread over processes: gather the state in the compiled function, return it, "
            "and measure outside of jax.jit and jax.vmap."
        )
    return np.asarray(values, np.float64)


def _scaled(rows: Rows) -> Float[np.ndarray, "C D"]:
    """Finite rows in float64 with the largest entry 1, so that no product leaves the range."""
    known = on_host(rows, "rows")
    check_finite(known, "rows")
    return known / (np.abs(known).max() or 1.0)


def _unit_rows(rows: Float[np.ndarray, "C D"]) -> Float[np.ndarray, "C D"]:
    norms = row_norms(rows)[:, None]
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > SHORTEST_ROW * norms.max())


def _pair_cosines(rows: Float[np.ndarray, "C D"]) -> Float[np.ndarray, " P"]:
    unit = _unit_rows(rows)
    return np.clip(unit @ unit.T, -1.0, 1.0)[np.triu_indices(len(rows), k=1)]


def _normalised(matrix: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "N M"]:
    return matrix / (np.linalg.norm(matrix) or 1.0)


def _geometry(state: NCState, center: Center) -> tuple[NCState, np.ndarray, np.ndarray]:
    """A sound state in float64, its centred means, and the root of the pseudo-inverse of S_B."""
    if center not in get_args(Center):
        raise InputError(f'center must be "class_means" or "samples", got {center!r}.')
    known = NCState(**{name: on_host(value, "state") for name, value in vars(state).items()})
    _check_sound(known, jnp.finfo(state.mean.dtype))
    middle = np.average(known.mean, axis=0, weights=known.counts if center == "samples" else None)
    means = _centred(state.mean, middle)
    num_classes = len(means)
    _, sizes, directions = np.linalg.svd(means, full_matrices=False)
    sizes, directions = sizes[: num_classes - 1], directions[: num_classes - 1]
    kept = sizes > noise_level(state.mean) * math.sqrt(num_classes)
    if not np.any(kept):
        raise InputError(
            "All class means coincide up to rounding, so that nothing is measured against: does "
            "the backbone give the same features for every image?"
        )
    scales = np.divide(math.sqrt(num_classes), sizes, out=np.zeros_like(sizes), where=kept)
    return known, means, scales[:, None] * directions


def _check_sound(known: NCState, limits: Any) -> None:
    """Raises InputError unless metrics of a fetched state mean something."""
    if known.not_finite:
        raise InputError(
            f"{int(known.not_finite)} examples were left out, as their features hold NaN or "
            "infinity: has the training diverged? Metrics of the rest would mislead."
        )
    check_each(
        known.counts > 0,
        "Neural collapse needs examples of every class, but there are none",
        "classes",
        "update the state with all of the data, and check num_classes.",
    )
    longest = row_norms(known.mean).max()
    in_range = 1e4 * math.sqrt(limits.tiny) < longest < 1e-4 * math.sqrt(limits.max)
    sums = known.scatter, known.traces
    if not ((in_range or longest == 0) and all(np.isfinite(sum_).all() for sum_ in sums)):
        raise InputError(
            "The features are too large or too small to be squared in their dtype: scale them, or "
            "use float64. The metrics do not depend on the scale."
        )


def _centred(
    rows: Float[Array | np.ndarray, "C D"], middle: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "C D"]:
    """Rows minus a centre; a row that is left with rounding noise only becomes a zero row."""
    difference = on_host(rows, "rows") - middle[None]
    distinct = row_norms(difference) > noise_level(rows)
    return np.where(distinct[:, None], difference, 0.0)

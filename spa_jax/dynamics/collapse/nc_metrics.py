"""All that one pass over the data says of neural collapse, finished on the host in float64."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spa_jax.dynamics.collapse import measures
from spa_jax.dynamics.collapse.measures import noise_level, on_host, row_norms
from spa_jax.dynamics.collapse.nc_state import NCState
from spa_jax.dynamics.row_checks import check_each, check_finite, check_weights
from spa_jax.errors import InputError

Center = Literal["class_means", "samples"]


class _Geometry(NamedTuple):
    """A sound state in float64, its centred means, and the root of the pseudo-inverse of S_B."""

    state: NCState
    means: Float[np.ndarray, "C D"]
    root: Float[np.ndarray, "K D"]


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
        "cdnv": measures.class_distance_normalized_variance(state.mean, variances),
        "nc3": measures.duality_distance(rows, means),
        "nc3_self_duality": measures.etf_error(rows, means),
        "nc3_cosines": measures.row_cosines(rows, means),
        "nc3_angles": np.degrees(measures.row_angles(rows, means)),
        "nc4_means": float(own.mean()),
    }
    for name, of in {"means": means, "weights": rows}.items():
        found[f"nc2_equinorm_{name}"] = measures.equinorm(of)
        found[f"nc2_equiangular_{name}"] = measures.equiangularity(of)
        found[f"nc2_etf_{name}"] = measures.etf_error(of, of)
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
    return _geometry(state, center).means


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
    return _geometry(state, center).root


def _geometry(state: NCState, center: Center) -> _Geometry:
    if center not in get_args(Center):
        raise InputError(f'center must be "class_means" or "samples", got {center!r}.')
    known = _sound_state(state)
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
    return _Geometry(known, means, scales[:, None] * directions)


def _sound_state(state: NCState) -> NCState:
    """The state in NumPy float64, if metrics of it mean something."""
    known = NCState(**{name: on_host(value, "state") for name, value in vars(state).items()})
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
    limits, longest = jnp.finfo(state.mean.dtype), row_norms(known.mean).max()
    in_range = 1e4 * math.sqrt(limits.tiny) < longest < 1e-4 * math.sqrt(limits.max)
    sums = known.scatter, known.traces
    if not ((in_range or longest == 0) and all(np.isfinite(sum_).all() for sum_ in sums)):
        raise InputError(
            "The features are too large or too small to be squared in their dtype: scale them, or "
            "use float64. The metrics do not depend on the scale."
        )
    return known


def _centred(
    rows: Float[Array | np.ndarray, "C D"], middle: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "C D"]:
    """Rows minus a centre; a row that is left with rounding noise only becomes a zero row."""
    difference = on_host(rows, "rows") - middle[None]
    distinct = row_norms(difference) > noise_level(rows)
    return np.where(distinct[:, None], difference, 0.0)

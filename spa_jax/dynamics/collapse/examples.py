"""Neural-collapse quantities of each example: a second pass, once the class means are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from spa_jax.alignment.checks import is_known
from spa_jax.alignment.geometry import widen, widen_labels
from spa_jax.dynamics import row_checks
from spa_jax.dynamics.collapse.nc_state import product
from spa_jax.errors import InputError

Features = Float[Array | np.ndarray, "B D"]
Rows = Float[Array | np.ndarray, "C D"]
Bias = Float[Array | np.ndarray, " C"]
Mask = Shaped[Array | np.ndarray, " B"]


def nc4(
    features: Features,
    means: Rows,
    weights: Rows,
    bias: Bias | None = None,
    mask: Mask | None = None,
) -> Float[Array, ""]:
    r"""Share of the examples that the classifier gives to the class with the nearest mean (NC4).

    .. math:: \frac{1}{B} \# \left\{ i : \arg\max_c (\langle w_c, h_i \rangle + b_c) =
       \arg\min_c \|h_i - \mu_c\| \right\}

    For a data set in several batches add up :func:`nc4_agreement`. Some codes report 1 minus this.

    Args:
      features: `(B, D)` floating.
      means: `(C, D)` floating, the class means themselves, not centred: `state.mean`.
      weights: `(C, D)` floating.
      bias: `(C,)` floating; None is 0.
      mask: `(B,)`, 0 or False for padding; None: all count.

    Returns:
      Scalar in [0, 1].

    Raises:
      InputError: as :func:`nc4_agreement`; a known mask that leaves no example (if traced: NaN).

    Example:
      >>> means = jnp.array([[0.0, 1.0], [4.0, 0.0]])
      >>> features = jnp.array([[3.0, 0.0], [1.0, 0.5]])
      >>> nc4(features, means, weights=jnp.array([[0.0, 1.0], [1.0, 0.0]])).item()
      0.5

    Reference:
      Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020.
    """
    row_checks.check_batch(features, means.shape[1], mask=mask)
    used = jnp.ones(len(features), jnp.bool_) if mask is None else jnp.asarray(mask) != 0
    if is_known(used) and not np.any(used):
        raise InputError("There is no example to compare: features are empty or all masked out.")
    features = jnp.where(used[:, None], features, 0.0)
    agrees = nc4_agreement(features, means, weights, bias)
    return jnp.sum(agrees & used, dtype=jnp.float32) / jnp.sum(used, dtype=jnp.float32)


def nc4_agreement(
    features: Features, means: Rows, weights: Rows, bias: Bias | None = None
) -> Bool[Array, " B"]:
    """Whether the classifier and the nearest class mean give an example to the same class.

    Of two classes that are equally near, or equally likely, the first is taken.

    Args:
      features: `(B, D)` floating.
      means: `(C, D)` floating, not centred: `state.mean`. A zero row is a class without examples.
      weights: `(C, D)` floating; a Flax kernel is `(D, C)`, pass its transpose.
      bias: `(C,)` floating; None is 0.

    Returns:
      `(B,)` bool.

    Raises:
      InputError: shapes that do not fit; known values that are not finite, or a class without
        examples. Where the values are traced, an example that is not finite does not agree, and a
        class without examples is never the nearest.

    Example:
      >>> means = jnp.array([[0.0, 1.0], [4.0, 0.0]])
      >>> features = jnp.array([[3.0, 0.0], [1.0, 0.5]])
      >>> nc4_agreement(features, means, weights=jnp.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
      [True, False]
    """
    row_checks.check_batch(features, means.shape[1])
    row_checks.check_array(means, "means", jnp.floating, means.shape, "pass the means of a state")
    row_checks.check_weights(weights, bias, means.shape)
    bias = jnp.zeros(len(means)) if bias is None else bias
    features, means, weights, bias = _finite(
        features=features, means=means, weights=weights, bias=bias
    )
    if is_known(means):
        row_checks.check_each(
            np.any(np.asarray(means) != 0, axis=1),
            "Class means must not be zero rows, which are classes without examples, got zero rows",
            "class means",
            "take the means of a state that was updated with all of the data.",
        )
    likeliest = jnp.argmax(product(features, weights.T) + bias[None], axis=1)
    finite = jnp.all(jnp.isfinite(features), axis=1)
    return finite & (likeliest == _nearest(features, means))


@jax.jit
def _nearest(features: Float[Array, "B D"], means: Float[Array, "C D"]) -> Int[Array, " B"]:
    seen = jnp.any(means != 0, axis=1)
    # Distances from products, as all differences would take (B, C, D); about the means' middle,
    # so that an offset that all features share does not cancel.
    middle = jnp.mean(means, axis=0)
    means = means - middle[None]
    halves = 0.5 * jnp.sum(jnp.square(means), axis=1)
    nearness = product(features - middle[None], means.T) - halves[None]
    return jnp.argmax(jnp.where(seen[None], nearness, -jnp.inf), axis=1)


def nc1_contributions(
    features: Features,
    labels: Shaped[Array | np.ndarray, " B"],
    means: Rows,
    whitening: Float[Array | np.ndarray, "K D"],
) -> Float[Array, " B"]:
    r"""What each example adds to NC1, for the NC1 of a class or of a group of classes.

    .. math:: (h_i - \mu_{y_i})^\top S_B^+ (h_i - \mu_{y_i}) = \|A (h_i - \mu_{y_i})\|^2

    The mean over all examples is `nc1` of :func:`spa_jax.dynamics.collapse.metrics`; the mean over
    the examples of class c is :math:`\operatorname{tr}(S_{W,c} S_B^+)`, NC1 with the scatter of the
    class in place of that of all.

    Args:
      features: `(B, D)` floating.
      labels: `(B,)` integers; an example outside [0, C) gets 0.
      means: `(C, D)` floating, not centred: `state.mean`.
      whitening: `(K, D)` floating, A, from :func:`spa_jax.dynamics.collapse.whitening`.

    Returns:
      `(B,)` float32 (float64 for float64 features), >= 0.

    Raises:
      InputError: shapes that do not fit; known features, means or a known whitening that are not
        finite. If they are traced, NaN in them is NaN in the result.

    Example:
      >>> means, whitening = jnp.array([[2.0], [6.0]]), jnp.array([[0.5]])
      >>> features = jnp.array([[1.0], [3.0], [6.0]])
      >>> nc1_contributions(features, jnp.array([0, 0, 1]), means, whitening).tolist()
      [0.25, 0.25, 0.0]
    """
    num_classes, dim = means.shape
    row_checks.check_batch(features, dim, labels)
    row_checks.check_array(means, "means", jnp.floating, means.shape, "pass the means of a state")
    row_checks.check_array(
        whitening, "whitening", jnp.floating, (len(whitening), dim), "as wide as the means"
    )
    features, means, whitening = _finite(features=features, means=means, whitening=whitening)
    labels = widen_labels(labels)
    wanted = (labels >= 0) & (labels < num_classes)
    differences = features - means[jnp.where(wanted, labels, 0)]
    squares = jnp.sum(jnp.square(product(differences, whitening.T)), axis=1)
    return jnp.where(wanted, squares, 0.0)


def _finite(**named: Any) -> list[Array]:
    """The rows in float32 at least; InputError if a known one is not finite."""
    for name, values in named.items():
        row_checks.check_finite(widen(values), name)
    return [widen(values) for values in named.values()]

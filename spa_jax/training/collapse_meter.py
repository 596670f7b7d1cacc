"""What a run records of neural collapse on its training and test images, finished on the host."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import unit_rows
from spa_jax.alignment.kernels import as_rows, find_kernels
from spa_jax.dynamics.collapse import metrics
from spa_jax.dynamics.collapse.measures import equiangularity, equinorm, etf_error
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method

PARTS = ("train", "test")
"""What it is measured on."""

MEASURES = (
    *("nc1", "nc1_over_c", "nc1_rank", "nc1_quotient", "cdnv"),
    *(
        f"nc2_{measure}_{rows}"
        for rows in ("means", "weights")
        for measure in ("equinorm", "equiangular", "etf")
    ),
    *("nc3", "nc3_self_duality", "nc4_means"),
)
"""The scalars of :func:`spa_jax.dynamics.collapse.metrics`, which are recorded at each epoch."""


def collapse_measures(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Finishes what the report of an evaluation has in `collapse`, once it is fetched, in float64.

    Returns:
      `train` and `test`: the :data:`MEASURES` of the classifier that is used at test, `nc4`, and
      `mean_cosine` of the weights that SpA acts on; NaN where there is no value, as where a class
      has no example or all class means coincide.
    """
    weights, bias = found["tested"]
    measures = {}
    for part in PARTS:
        state = found[part]["state"]
        try:
            values = metrics(state, weights, bias)
        except InputError:  # of the weights alone there may be some
            values = _of_weights(weights)
        measures[part] = {name: float(values.get(name, np.nan)) for name in MEASURES}
        measures[part]["nc4"] = float(found[part]["agreeing"] / max(np.sum(state.counts), 1))
        measures[part]["mean_cosine"] = float(found[part]["mean_cosine"])
    return measures


def _of_weights(weights: Float[np.ndarray, "C D"]) -> dict[str, float]:
    """The measures that need no class means, if the weights point somewhere."""
    if not (np.isfinite(weights).all() and weights.any()):
        return {}
    return {
        "nc2_equinorm_weights": equinorm(weights),
        "nc2_equiangular_weights": equiangularity(weights),
        "nc2_etf_weights": etf_error(weights, weights),
    }


def collapse_geometry(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `geometry.npz` holds: `weights` `(H, C, D)` of all heads, and both `(C, D)` means."""
    means = {f"{part}_means": found[part]["state"].mean for part in PARTS}
    return {"weights": found["heads"], **means}


def kernel_rows(variables: PyTree, path: str) -> Float[Array, "C D"]:
    """The class weights that a path names, trained or constant."""
    (position,) = find_kernels(variables, path)
    return as_rows(jax.tree.leaves(variables)[position], first=False)


def tested_classifier(
    variables: PyTree, method: Method
) -> tuple[Float[Array, "C D"], Float[Array, " C"]]:
    """Weights and bias of the classifier that is used at test; a cosine head's weights are unit."""
    (position,) = find_kernels(variables, method.tested)
    (*places, _), _ = jax.tree_util.tree_leaves_with_path(variables)[position]
    layer = functools.reduce(lambda tree, place: tree[place.key], places, variables)
    weights = kernel_rows(variables, method.tested)
    if method.head == "cosine":
        weights = unit_rows(weights)
    return weights, layer.get("bias", jnp.zeros(len(weights)))

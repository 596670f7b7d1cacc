"""Neural collapse of a network on its training and test images, unaugmented, in evaluation mode."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import unit_rows
from spa_jax.alignment.kernels import as_rows, find_kernels
from spa_jax.dynamics.collapse import NCState, metrics, nc4_agreement
from spa_jax.dynamics.collapse.measures import equiangularity, equinorm, etf_error
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method
from spa_jax.models.classifier import Classifier
from spa_jax.training.devices import OWN, Layout
from spa_jax.training.feeds import Feed
from spa_jax.training.feeds.batch import Batch
from spa_jax.training.metrics import alignment_metrics, known_cosines
from spa_jax.training.variants import Aligned

MEASURES = (
    "nc1",
    "nc1_over_c",
    "nc1_rank",
    "nc1_quotient",
    "cdnv",
    "nc2_equinorm_means",
    "nc2_equiangular_means",
    "nc2_etf_means",
    "nc2_equinorm_weights",
    "nc2_equiangular_weights",
    "nc2_etf_weights",
    "nc3",
    "nc3_self_duality",
    "nc4_means",
)
"""The scalars of :func:`spa_jax.dynamics.collapse.metrics`, which are recorded at each epoch."""

_PARTS = ("train", "test")


class CollapseMeter:
    """Compiled functions that go over the training and the test set twice: means, then NC4."""

    def __init__(
        self,
        layout: Layout,
        feed: Feed,
        model: Classifier,
        method: Method,
        aligned: Aligned,
        num_classes: int,
    ) -> None:
        """Prepares; nothing is compiled yet."""
        self._layout, self._feed = layout, feed
        self._model, self._method, self._aligned = model, method, aligned
        self._empty = layout.make(lambda: NCState.create(num_classes, model.backbone.dim))
        self._zero = layout.make(lambda: jnp.zeros((), jnp.int32))
        self._finish = layout.make(self._finish_part, (OWN, OWN))
        inputs = feed.evaluation_places
        self._gather = layout.compile(self._gather_batch, (OWN, OWN, inputs))
        self._agree = layout.compile(self._agree_batch, (OWN, OWN, OWN, inputs))

    def measure(self, variables: PyTree) -> dict[str, Any]:
        """What :func:`collapse_measures` finishes on the host, still on the device."""
        found: dict[str, Any] = {}
        for part in _PARTS:
            state, agreeing = self._empty(), self._zero()
            for inputs in self._feed.evaluation(part):
                state = self._gather(variables, state, inputs)
            for inputs in self._feed.evaluation(part):
                agreeing = self._agree(variables, state.mean, agreeing, inputs)
            cosine, found["tested"], found["heads"] = self._finish(variables, state.mean)
            found[part] = {"state": state, "agreeing": agreeing, "mean_cosine": cosine}
        return found

    def _features(self, variables: PyTree, inputs: Any) -> tuple[Array, Batch]:
        batch = self._feed.evaluation_batch(inputs)
        images = self._feed.normalize(batch.images)
        applied: Any = self._model.apply(variables, images, train=False)
        return applied[0], batch

    def _gather_batch(self, variables: PyTree, state: NCState, inputs: Any) -> NCState:
        features, batch = self._features(variables, inputs)
        of_batch = NCState.create(*state.mean.shape).update(features, batch.labels, batch.mask)
        if self._layout.axis_name is not None:
            of_batch = of_batch.merge_over(self._layout.axis_name)
        return state.merge(of_batch)

    def _agree_batch(self, variables: PyTree, means: Array, agreeing: Array, inputs: Any) -> Array:
        features, batch = self._features(variables, inputs)
        weights, bias = tested_classifier(variables, self._method)
        agrees = nc4_agreement(features, means, weights, bias) & (batch.mask != 0)
        count = jnp.sum(agrees, dtype=jnp.int32)
        if self._layout.axis_name is not None:
            count = jax.lax.psum(count, self._layout.axis_name)
        return agreeing + count

    def _finish_part(
        self, variables: PyTree, means: Array
    ) -> tuple[Array, tuple[Array, Array], Float[Array, "H C D"]]:
        """Mean cosine of the aligned weights; the tested classifier; all heads."""
        cosines = known_cosines(variables, means, **self._aligned)
        heads = jnp.stack([kernel_rows(variables, path) for path in self._method.kernels])
        tested = tested_classifier(variables, self._method)
        return alignment_metrics(cosines)["mean_cosine"], tested, heads


def collapse_measures(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Finishes what :meth:`CollapseMeter.measure` found, once it is fetched, in float64.

    Returns:
      `train` and `test`: the :data:`MEASURES` of the classifier that is used at test, `nc4`, and
      `mean_cosine` of the weights that SpA acts on; NaN where there is no value, as where a class
      has no example or all class means coincide.
    """
    weights, bias = found["tested"]
    measures = {}
    for part in _PARTS:
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
    means = {f"{part}_means": found[part]["state"].mean for part in _PARTS}
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
    (*places, _), kernel = jax.tree_util.tree_leaves_with_path(variables)[position]
    weights = as_rows(kernel, first=False)
    if method.head == "cosine":
        weights = unit_rows(weights)
    layer = variables
    for place in places:
        layer = layer[place.key]
    return weights, layer.get("bias", jnp.zeros(len(weights)))

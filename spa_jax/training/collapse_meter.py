"""Neural collapse of a network on its training and test images, unaugmented, in evaluation mode."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import unit_rows
from spa_jax.alignment.kernels import as_rows, find_kernels
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.dynamics.collapse import NCState, metrics, nc4_agreement
from spa_jax.longtail.method import Method
from spa_jax.models.classifier import Classifier
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.feeds.resident import Feed
from spa_jax.training.method import spa_options
from spa_jax.training.metrics import alignment_metrics, known_cosines
from spa_jax.training.state import TrainState


class CollapseMeter:
    """Compiled functions that go over the training and the test set twice: means, then NC4."""

    def __init__(
        self,
        config: Config,
        model: Classifier,
        method: Method,
        layout: Layout,
        feed: Feed,
        data: LongTailedDataset,
    ) -> None:
        """Prepares; nothing is compiled yet."""
        self._model, self._method, self._layout, self._feed = model, method, layout, feed
        self._data, self._options = data, spa_options(config)
        self._empty = layout.make(lambda: NCState.create(data.num_classes, model.backbone.dim))
        self._zero = layout.make(lambda: jnp.zeros((), jnp.int32))
        self._report = layout.make(self._make_report)
        num_inputs = feed.num_evaluation_inputs
        self._gather = self._compile(self._gather_batch, 3 + num_inputs)
        self._agree = self._compile(self._agree_batch, 4 + num_inputs)

    def measure(self, state: TrainState) -> dict[str, Any]:
        """The measures of a state, still on the device.

        Returns:
          `train` and `test`: the scalars of :func:`spa_jax.dynamics.collapse.metrics` for the
          classifier that is used at test, `nc4`, and `mean_cosine` of the weights that SpA acts on;
          NaN where there is no value. `geometry`: `weights` `(H, C, D)` of all the method's heads,
          `train_means` and `test_means` `(C, D)`.
        """
        found: dict[str, Any] = {}
        geometry: dict[str, Array] = {}
        for name, examples in (("train", self._data.train), ("test", self._data.test)):
            means, agreeing = self._pass_twice(state, examples)
            found[name], geometry["weights"] = self._report(state.variables, means, agreeing)
            geometry[f"{name}_means"] = means.mean
        return found | {"geometry": geometry}

    def _pass_twice(self, state: TrainState, examples: LabelledImages) -> tuple[NCState, Array]:
        means, number = self._empty(), self._zero()
        for inputs in self._feed.evaluation(examples):
            means, number = self._gather(state.variables, means, number, *inputs)
        agreeing, number = self._zero(), self._zero()
        for inputs in self._feed.evaluation(examples):
            agreeing, number = self._agree(state.variables, means, agreeing, number, *inputs)
        return means, agreeing

    def _compile(self, function: Any, num_args: int) -> Any:
        num_inputs = self._feed.num_evaluation_inputs
        inputs = tuple(range(num_args - num_inputs, num_args))
        split = inputs if self._feed.split else ()
        return self._layout.compile(function, num_args, split=split, shared=inputs)

    def _features(
        self, take_part: TakePart, variables: PyTree, number: Array, inputs: tuple[Array, ...]
    ) -> tuple[Float[Array, "B D"], Any]:
        batch = self._feed.evaluation_batch(take_part, number, *inputs)
        applied: Any = self._model.apply(variables, self._feed.normalize(batch.images), train=False)
        return applied[0], batch

    def _gather_batch(
        self, take_part: TakePart, variables: PyTree, means: NCState, number: Array, *inputs: Array
    ) -> tuple[NCState, Array]:
        features, batch = self._features(take_part, variables, number, inputs)
        of_batch = NCState.create(*means.mean.shape).update(features, batch.labels, batch.mask)
        if self._layout.axis_name is not None:
            of_batch = of_batch.merge_over(self._layout.axis_name)
        return means.merge(of_batch), number + 1

    def _agree_batch(
        self,
        take_part: TakePart,
        variables: PyTree,
        means: NCState,
        agreeing: Array,
        number: Array,
        *inputs: Array,
    ) -> tuple[Array, Array]:
        features, batch = self._features(take_part, variables, number, inputs)
        weights, bias = tested_classifier(variables, self._method)
        agrees = nc4_agreement(features, means.mean, weights, bias) & (batch.mask != 0)
        count = jnp.sum(agrees, dtype=jnp.int32)
        if self._layout.axis_name is not None:
            count = jax.lax.psum(count, self._layout.axis_name)
        return agreeing + count, number + 1

    def _make_report(
        self, variables: PyTree, means: NCState, agreeing: Array
    ) -> tuple[dict[str, Array], Float[Array, "H C D"]]:
        weights, bias = tested_classifier(variables, self._method)
        found = metrics(means, weights, bias)
        scalars = {name: value for name, value in found.items() if value.ndim == 0}
        scalars["nc4"] = agreeing / jnp.sum(means.counts)
        cosines = known_cosines(variables, means.mean, **self._options)
        scalars["mean_cosine"] = alignment_metrics(cosines)["mean_cosine"]
        heads = [kernel_rows(variables, path) for path in self._method.kernels]
        return scalars, jnp.stack(heads)


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

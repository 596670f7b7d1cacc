"""Which arrays of a run are cut over the devices of a mesh, so that none of them has all.

Class weights, their biases and scales, what an optimiser keeps of them, and class means are cut by
class, over the axis `classes`: a device updates the means and turns the weights of its own classes,
for which it gets the features of the whole batch, `(B, D)`, and never the weights, `(C, D)`. All
parameters and what an optimiser keeps of them may be cut over `data` besides (as ZeRO and FSDP do);
a step puts them together before it uses them.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, PyTree, Shaped

from spa_jax.alignment.kernels import path_names
from spa_jax.training.devices import AXIS, CLASSES, OWN, Layout

_OVER_DATA = ("params/", "opt_state/", "average/")


class Shards:
    """Where the arrays of a run lie, by their paths; of a run that nothing is cut of, nowhere else.

    Attributes:
      by_class: the place of what has a class in each row.
    """

    def __init__(self, layout: Layout, kernels: Sequence[str], num_classes: int) -> None:
        """Plans.

        Args:
          layout: the devices.
          kernels: paths of class weights, `(D, C)`.
          num_classes: C.
        """
        self._layout, self._num_classes = layout, num_classes
        self._heads = tuple("/" + path.rpartition("/")[0] for path in kernels)
        self._cut = layout.options.classes > 1
        self.by_class: Any = layout.sharding(CLASSES) if self._cut else OWN

    def places(self, tree: PyTree) -> Any:
        """The places of a state's arrays, or of variables, of which only shapes need be known."""
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def together(self, variables: PyTree) -> Any:
        """Traced: variables that are cut by class alone, to be used."""
        if not self._layout.options.fsdp:
            return variables

        def gather(path: Any, leaf: Any) -> Array:
            axes = [None if axis == AXIS else axis for axis in self._sharding(path, leaf).spec]
            return self._constrained(leaf, *axes)

        return jax.tree_util.tree_map_with_path(gather, variables)

    def whole(self, tree: PyTree) -> Any:
        """Traced: of features and labels those of the whole batch, where classes are cut."""
        return self._constrained(tree) if self._cut else tree

    def of_own_classes(self, targets: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
        """Traced: labels as they are; soft ones `(B, C)` of the whole batch, cut by class."""
        soft = self._cut and targets.ndim == 2
        return self._constrained(targets, None, CLASSES) if soft else targets

    def share_features(self, features: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Traced: features for a head, of which devices that share examples cut the classes."""
        if len(features) % self._layout.num_devices:  # one image, that variables are made for
            return features
        # In two steps, of which the first says how their gradient is cut for the network.
        return self._constrained(self._constrained(features, (AXIS, CLASSES)), AXIS)

    def _constrained(self, tree: PyTree, *axes: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, self._layout.sharding(*axes))

    def _sharding(self, path: Any, leaf: Any) -> NamedSharding:
        name, shape, options = path_names(path)[1], leaf.shape, self._layout.options
        axes: list[str | None] = [None] * len(shape)
        module = "/" + name.rpartition("/")[0]
        if self._cut and name.startswith("class_means/"):
            axes[0] = CLASSES
        elif self._cut and module.endswith(self._heads) and shape[-1:] == (self._num_classes,):
            axes[-1] = CLASSES
        if options.fsdp and len(shape) > 1 and name.startswith(_OVER_DATA):
            parts = self._layout.mesh.shape[AXIS]
            free = [i for i, side in enumerate(shape) if not (axes[i] or side % parts)]
            if free:
                axes[max(free, key=lambda i: shape[i])] = AXIS
        return self._layout.sharding(*axes)

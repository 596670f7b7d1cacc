"""Finds classifier kernels in a params tree: the one place that knows paths and the class axis."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment.class_means import ClassMeans, centred_means
from spa_jax.alignment.geometry import RowPairs, row_norms, widen

DEFAULT_CLASSIFIER = "head/kernel"


def path_names(path: tuple[Any, ...]) -> tuple[str, str]:
    """A leaf's path as printed, and the same without the final `/value` of Flax NNX."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name, name.removesuffix("/value")


def find_kernels(tree: PyTree, classifier: str | Sequence[str]) -> list[int]:
    """Positions, among the leaves of a tree, of the kernels that `classifier` names.

    Args:
      tree: params, or gradients or updates of the same structure.
      classifier: a path, or a tuple of paths for several heads. A path names a leaf if it is the
        whole of the leaf's path or its end on a key boundary: `head/kernel` finds
        `params/head/kernel` but not `overhead/kernel`, and `fc.weight` finds `module.fc.weight`.
        Where a leaf's whole path is named, ends are not looked at.

    Returns:
      One leaf position for each path.

    Raises:
      ValueError: a path matches no leaf, several leaves, or a leaf that is not 2-D; the message
        lists the 2-D leaves.

    Example:
      >>> head = {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}
      >>> params = {"body": jnp.zeros((4, 3)), "head": head}
      >>> find_kernels(params, "head/kernel")
      [2]
    """
    paths = classifier_paths(classifier)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = [_find_kernel(leaves, path) for path in paths]
    if len(set(found)) < len(found):
        raise ValueError(f"classifier names the same kernel more than once: {paths}.")
    return found


def classifier_paths(classifier: str | Sequence[str]) -> tuple[str, ...]:
    """The paths of `classifier` as a tuple; ValueError if there is none."""
    several = isinstance(classifier, tuple | list)
    paths: tuple[Any, ...] = tuple(classifier) if several else (classifier,)
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(
            f"classifier must be a path such as {DEFAULT_CLASSIFIER!r} or a tuple of such paths, "
            f"got {classifier!r}."
        )
    return paths


def _find_kernel(leaves: Sequence[tuple[tuple[Any, ...], Any]], path: str) -> int:
    names = [path_names(keys) for keys, _ in leaves]
    ends = ("/" + path, "." + path)
    matches = [i for i, name in enumerate(names) if path in name] or [
        i for i, (whole, short) in enumerate(names) if whole.endswith(ends) or short.endswith(ends)
    ]
    if len(matches) != 1:
        how = "matches no leaf" if not matches else f"matches {len(matches)} leaves"
        raise ValueError(
            f"classifier={path!r} {how} of the params. Name one of the 2-D leaves, by its whole "
            f"path or its end: {_list_matrices(leaves)}."
        )
    leaf = leaves[matches[0]][1]
    if np.ndim(leaf) != 2:
        raise ValueError(
            f"classifier={path!r} names a leaf of shape {np.shape(leaf)}, but a classifier kernel "
            f"is 2-D. The 2-D leaves are: {_list_matrices(leaves)}."
        )
    return matches[0]


def _list_matrices(leaves: Sequence[tuple[tuple[Any, ...], Any]]) -> str:
    matrices = [
        f"{path_names(keys)[1]} {tuple(np.shape(leaf))}"
        for keys, leaf in leaves
        if np.ndim(leaf) == 2
    ]
    return ", ".join(matrices) if matrices else "(there is none)"


def entries_axis(class_axis: int | None) -> int:
    """The other axis of kernels: 1 where they are `(C, D)`, 0 where they are `(D, C)`, the default.

    Args:
      class_axis: None, 1 or -1 for the last axis, 0 or -2 for the first; a static integer.

    Raises:
      ValueError: anything else, an array in particular.
    """
    if isinstance(class_axis, jax.Array | np.ndarray):
        raise ValueError(
            "class_axis must be a static integer, got an array: optax.inject_hyperparams traces "
            'integers, so wrap with inject_hyperparams(..., static_args=("class_axis",)).'
        )
    if isinstance(class_axis, bool) or class_axis not in (None, 0, 1, -1, -2):
        raise ValueError(
            "class_axis must be None (the last axis, Flax and Haiku kernels) or 0 (the first, "
            f"Equinox and PyTorch weights), got {class_axis!r}."
        )
    return 1 if class_axis in (0, -2) else 0


def read_heads(
    params: PyTree,
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"],
    *,
    classifier: str | Sequence[str],
    class_axis: int | None,
    center: bool,
) -> list[RowPairs]:
    """The kernels that `classifier` names, each with the class means that its rows should point at.

    Both are in the layout of the kernel, in float32 at least. A class has a direction if its mean
    has one and its weight row is not shorter than 1e-12.

    Raises:
      ValueError: as :func:`find_kernels` and :func:`entries_axis`, or if the means' `(C, D)` does
        not fit a kernel.
    """
    axis = entries_axis(class_axis)
    centred, norms = centred_means(class_means, center, axis)
    paths, kernels = classifier_paths(classifier), kernels_in(params, classifier)
    heads = []
    for path, kernel in zip(paths, kernels, strict=True):
        weights = widen(kernel)
        if weights.shape != centred.shape:
            num_classes, dim = centred.shape[1 - axis], centred.shape[axis]
            raise ValueError(
                f"class_means of {num_classes} classes and {dim} features do not fit the kernel "
                f"{path!r} of shape {weights.shape}, read as {weights.shape[1 - axis]} "
                f"classes and {weights.shape[axis]} features with class_axis={class_axis}. Check "
                "num_classes and dim of ClassMeans.create, and class_axis (None for (D, C) "
                "kernels, 0 for (C, D))."
            )
        targets, lengths = centred.astype(weights.dtype), norms.astype(weights.dtype)
        heads.append(RowPairs(weights, targets, axis, row_norms(weights, axis), lengths))
    return heads


def kernels_in(tree: PyTree, classifier: str | Sequence[str]) -> list[Any]:
    """The leaves that `classifier` names, see :func:`find_kernels`."""
    leaves = jax.tree.leaves(tree)
    return [leaves[position] for position in find_kernels(tree, classifier)]


def with_kernels(tree: PyTree, classifier: str | Sequence[str], kernels: Sequence[Any]) -> PyTree:
    """A copy of the tree with other leaves in the places that `classifier` names."""
    leaves, structure = jax.tree.flatten(tree)
    for position, kernel in zip(find_kernels(tree, classifier), kernels, strict=True):
        leaves[position] = kernel
    return structure.unflatten(leaves)

"""The per-class feature means that all three SpA variants steer by."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Shaped

from spa_jax.alignment.checks import is_known
from spa_jax.alignment.geometry import as_one, over_norms, row_norms, widen, widen_labels

SHORTEST_MEAN = 1e-6
"""A (centred) mean shorter than this share of the longest raw mean is rounding noise."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["mean", "seen"],
    meta_fields=["decay", "min_count"],
)
@dataclasses.dataclass(frozen=True)
class ClassMeans:
    r"""Exponential moving averages of the features of each class, carried in the train state.

    With :math:`n_c` the (soft) number of examples of class c in the batch and :math:`\bar h_c`
    their mean feature,

    .. math:: \mu_c \leftarrow \mu_c + (1 - \text{decay}) \min(n_c, 1) (\bar h_c - \mu_c)

    A class's first batch sets its mean, so that there is no bias towards zero; a class that is
    absent from the batch keeps its mean bit for bit. A pytree of two arrays: it can be jitted,
    vmapped, sharded, donated and checkpointed.

    Attributes:
      mean: `(C, D)` float32, zero rows for classes not seen yet.
      seen: `(C,)` bool.
      decay: static float in [0, 1).
      min_count: static float >= 0, what a class's summed weight has to exceed in a batch.

    Example:
      >>> means = ClassMeans.create(num_classes=2, dim=3, decay=0.9)
      >>> means = means.update(jnp.ones((4, 3)), jnp.array([0, 0, 0, 0]))
      >>> means.mean.tolist(), means.seen.tolist()
      ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [True, False])

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters: The Missing Piece for Inducing Neural Collapse
      in Long-Tailed Learning", AAAI 2026.
    """

    # Any, because JAX also fills pytrees with abstract shapes, batched arrays and placeholders.
    mean: Any
    seen: Any
    decay: float = 0.9
    min_count: float = 0.0

    @classmethod
    def create(
        cls, num_classes: int, dim: int, decay: float = 0.9, min_count: float = 0.0
    ) -> "ClassMeans":
        """Class means before any batch: nothing seen, all rows zero.

        Args:
          num_classes: C, 2 or more.
          dim: D, the feature width, 1 or more.
          decay: share of the old mean that a batch leaves, in [0, 1).
          min_count: a class moves, and counts as seen, only in a batch in which its summed weight
            exceeds this, >= 0. With soft labels every class has some weight: label smoothing gives
            an absent class the mean of the others, which `min_count=0.5` or so leaves out.

        Returns:
          A :class:`ClassMeans` with `mean` `(C, D)` float32 and `seen` `(C,)`.

        Raises:
          ValueError: a number outside its range.

        Example:
          >>> ClassMeans.create(num_classes=10, dim=64).mean.shape
          (10, 64)
        """
        if num_classes < 2 or dim < 1:
            raise ValueError(
                f"ClassMeans needs num_classes >= 2 and dim >= 1, got num_classes={num_classes}, "
                f"dim={dim}."
            )
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay must be in [0, 1), got {decay}: it is the share of the old mean that is "
                "kept at each update."
            )
        if not 0 <= min_count < float("inf"):
            raise ValueError(
                f"min_count must be 0 or more, got {min_count}: it is the weight that a class must "
                "exceed in a batch to be moved."
            )
        mean = jnp.zeros((num_classes, dim), jnp.float32)
        seen = jnp.zeros((num_classes,), jnp.bool_)
        return cls(mean, seen, decay=float(decay), min_count=float(min_count))

    def update(
        self,
        features: Float[Array | np.ndarray, "B D"] | Sequence[Any],
        labels: Shaped[Array | np.ndarray, " B"]
        | Shaped[Array | np.ndarray, "B C"]
        | Sequence[Any],
        axis_name: str | None = None,
    ) -> "ClassMeans":
        """Moves the means of the classes in a batch towards their batch means.

        Args:
          features: `(B, D)` floating; this device's part of the batch under `axis_name`.
          labels: `(B,)` integers in [0, C), or `(B, C)` floating weights >= 0 (soft labels). An
            integer outside [0, C) is refused when its value is known and contributes nothing when
            it is traced. Neither does an example with a feature that is not finite.
          axis_name: name of the mapped axis under `jax.pmap` or `jax.shard_map`: sums and counts
            are added over it in one `psum`, so that every device gets the same means.

        Returns:
          The updated :class:`ClassMeans`.

        Raises:
          ValueError: integer features, an empty batch, shapes that do not fit, labels out of range.

        Note:
          Of several micro-batches before one optimiser step (`optax.MultiSteps`), add up
          :func:`spa_jax.class_sums` and call :meth:`update_from_sums` once: an update for each of
          them would take a step of the average for each. `spa_slerp` too belongs to the optimiser
          step. Over a mesh with explicit axes, features and labels are gathered first.

        Example:
          >>> means = ClassMeans.create(num_classes=2, dim=1, decay=0.9)
          >>> means = means.update(jnp.array([[1.0]]), jnp.array([1]))
          >>> means.update(jnp.array([[2.0]]), jnp.array([1])).mean.round(3).tolist()
          [[0.0], [1.100000023841858]]
        """
        num_classes, dim = self.mean.shape
        rows = _as_array(features)
        check_features(rows, dim)
        totals = class_sums(rows, labels, num_classes)
        if axis_name is not None:
            totals = jax.lax.psum(totals, axis_name)
        return self.update_from_sums(*totals)

    def update_from_sums(
        self, sums: Float[Array, "C D"], counts: Float[Array, " C"]
    ) -> "ClassMeans":
        """The same update from feature sums and counts that were already added up.

        Args:
          sums: `(C, D)` floating, see :func:`class_sums`.
          counts: `(C,)` floating, >= 0.

        Returns:
          The updated :class:`ClassMeans`.

        Example:
          >>> means, sums = ClassMeans.create(num_classes=2, dim=1), jnp.array([[6.0], [0.0]])
          >>> means.update_from_sums(sums, counts=jnp.array([3.0, 0.0])).mean.tolist()
          [[2.0], [0.0]]
        """
        batch_mean = sums / jnp.where(counts > 0, counts, 1.0)[:, None]
        step = (1.0 - self.decay) * jnp.minimum(counts, 1.0)[:, None]
        moved = self.mean + step * (batch_mean - self.mean)
        moved = jnp.where(self.seen[:, None], moved, batch_mean).astype(self.mean.dtype)
        # A sum or a step that overflows would leave the mean of its class broken for good.
        present = (counts > self.min_count) & jnp.all(jnp.isfinite(moved), axis=1)
        mean = jnp.where(present[:, None], moved, self.mean)
        return dataclasses.replace(self, mean=mean, seen=self.seen | present)

    def directions(self, center: bool = True) -> Float[Array, "C D"]:
        r"""Unit directions of the class means.

        .. math:: \hat\mu_c = (\mu_c - \mu_G) / \|\mu_c - \mu_G\|, \quad
           \mu_G = \operatorname{mean}_{c\,\text{seen}} \mu_c

        Args:
          center: subtract the mean over the seen classes, :math:`\mu_G`, first.

        Returns:
          `(C, D)` float32: unit rows, and zero rows for classes without a direction: not seen yet,
          or with a (centred) mean shorter than 1e-6 of the longest raw mean.

        Example:
          >>> means = ClassMeans.create(num_classes=3, dim=2)
          >>> means = means.update(jnp.array([[3.0, 0.0], [1.0, 0.0]]), jnp.array([0, 2]))
          >>> means.directions().tolist()
          [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]
        """
        return directions_of(self, center)


def centred_means(
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"], center: bool, axis: int = 1
) -> tuple[Float[Array, "_ _"], Float[Array, " C"]]:
    """Class means from their middle, in units of twice the longest, and how long they are.

    Args:
      class_means: a `ClassMeans`, or a floating `(C, D)` array whose rows that are zero or not
        finite are unseen classes.
      center: measure from the mean over the seen classes, and not from the origin.
      axis: 1 for `(C, D)`, 0 for `(D, C)`, the layout of most kernels.

    Returns:
      Means in that layout and `(C,)` norms, 0 for a class without a direction.
    """
    mean, seen = _mean_and_seen(class_means)
    return _centred(mean if axis else _transposed(mean), seen, center, axis)


@functools.partial(as_one, static_argnames=("center", "axis"))
def _centred(
    mean: Float[Array, "_ _"], seen: Bool[Array, " C"], center: bool, axis: int
) -> tuple[Float[Array, "_ _"], Float[Array, " C"]]:
    norms = row_norms(mean, axis)
    seen = seen & jnp.isfinite(norms)
    kept = jnp.expand_dims(seen, axis)
    longest = jax.lax.stop_gradient(jnp.max(jnp.where(seen, norms, 0.0), keepdims=True))
    longest = jnp.expand_dims(longest, axis)  # no direction depends on it
    centred = jnp.where(kept, over_norms(mean, longest, 0.5, minimum=0.0), 0.0)
    if center:
        # Not by a product, whose rounding gives coinciding means of many classes a direction.
        middle = jnp.sum(centred, 1 - axis, keepdims=True) / jnp.maximum(jnp.sum(seen), 1)
        centred = jnp.where(kept, centred - middle.astype(mean.dtype), 0.0)
    norms = row_norms(centred, axis)
    # Coinciding means leave rounding noise after centring, which would normalise to unit vectors.
    return centred, jnp.where(norms >= SHORTEST_MEAN / 2, norms, 0.0)


def _transposed(mean: Float[Array, "C D"]) -> Float[Array, "D C"]:
    """`(D, C)` in memory too, once: each loop that uses it would else read the means across."""
    if jax.device_count() > 1:
        return mean.T  # of means sharded over classes, the constraint below gathers all
    return with_layout_constraint(mean.T, Layout(major_to_minor=(0, 1)))


def _mean_and_seen(class_means: Any) -> tuple[Float[Array, "C D"], Bool[Array, " C"]]:
    if isinstance(class_means, ClassMeans):
        return widen(class_means.mean), jnp.asarray(class_means.seen)
    shape = tuple(np.shape(class_means))
    dtype = getattr(class_means, "dtype", None)
    if len(shape) != 2 or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            "class_means must be a spa_jax.ClassMeans or a floating (C, D) array of class means, "
            f"got {type(class_means).__name__} with shape {shape} and dtype {dtype}."
        )
    mean = widen(class_means)
    return mean, jnp.any(mean != 0, axis=1)


def directions_of(
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"], center: bool
) -> Float[Array, "C D"]:
    """Directions of a `ClassMeans` or of a plain `(C, D)` array, whose rows that are
    zero or not finite are unseen classes."""
    centred, norms = centred_means(class_means, center)
    return over_norms(centred, norms[:, None])


def class_sums(
    features: Float[Array | np.ndarray, "B D"] | Sequence[Any],
    labels: Shaped[Array | np.ndarray, " B"] | Shaped[Array | np.ndarray, "B C"] | Sequence[Any],
    num_classes: int,
) -> tuple[Float[Array, "C D"], Float[Array, " C"]]:
    r"""Feature sums and counts per class; they merge over batches and devices by addition.

    .. math:: s_c = \sum_i p_{ic} h_i, \quad n_c = \sum_i p_{ic}

    Args:
      features: `(B, D)` floating.
      labels: `(B,)` integers in [0, C), or `(B, C)` floating weights >= 0. An integer outside
        [0, C) is refused when its value is known and contributes nothing when it is traced.
      num_classes: C.

    Returns:
      sums `(C, D)` and counts `(C,)`, float32 (float64 for float64 features). An example with a
      feature that is not finite contributes nothing.

    Raises:
      ValueError: integer features, an empty batch, shapes that do not fit, labels out of range.

    Note:
      Soft labels of label smoothing give every class some of every feature, absent classes too; see
      `min_count` of :meth:`ClassMeans.create`. Mixed labels (mixup, CutMix) are what they are for.

    Example:
      >>> sums, counts = class_sums(jnp.ones((3, 2)), jnp.array([0, 0, 1]), num_classes=2)
      >>> sums.tolist(), counts.tolist()
      ([[2.0, 2.0], [1.0, 1.0]], [2.0, 1.0])

      Two micro-batches of one optimiser step, and one update of the class means:

      >>> parts = [class_sums(jnp.full((1, 1), x), jnp.array([0]), 2) for x in (1.0, 3.0)]
      >>> sums, counts = jax.tree.map(jnp.add, *parts)
      >>> ClassMeans.create(2, 1).update_from_sums(sums, counts).mean.tolist()
      [[2.0], [0.0]]
    """
    rows, weights = _as_array(features), _as_array(labels)
    check_features(rows)
    check_labels(weights, len(rows), num_classes)
    rows, weights = widen(rows), widen_labels(weights)
    finite = jnp.all(jnp.isfinite(rows), axis=1)
    rows = jnp.where(finite[:, None], rows, 0.0)
    if weights.ndim == 1:
        # Out of range is one past the end, which is dropped; a negative index would wrap to the
        # last class, which is the rarest.
        counted = finite & (weights >= 0) & (weights < num_classes)
        segments = jnp.where(counted, weights, num_classes)
        columns = (rows, jnp.ones(len(segments), rows.dtype))
        return jax.tree.map(lambda x: jax.ops.segment_sum(x, segments, num_classes), columns)
    # In the product below 0 times infinity would reach every class.
    weights = jnp.where(finite[:, None], weights, 0.0).astype(rows.dtype)
    sums = jnp.matmul(weights.T, rows, precision=jax.lax.Precision.HIGHEST)
    return sums, jnp.sum(weights, axis=0)


def _as_array(values: Any) -> Any:
    """An array of a list, and one that is not split over a mesh with explicit axes."""
    if not hasattr(values, "dtype"):
        return np.asarray(values)
    if not isinstance(values, jax.Array):
        return values
    sharding: Any = jax.typeof(values).sharding
    if all(axis is None for axis in sharding.spec):
        return values
    return jax.reshard(values, jax.NamedSharding(sharding.mesh, jax.P()))


def check_features(features: Shaped[Array | np.ndarray, "..."], dim: int | None = None) -> None:
    """Raises ValueError unless the features are a non-empty floating `(B, D)` array, of the width
    `dim` if it is given."""
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(
            f"features must be floating, got dtype {features.dtype}: pass the backbone's features, "
            "not images or labels, or convert with features.astype(jnp.float32)."
        )
    if features.ndim != 2 or dim not in (None, features.shape[1]):
        wanted = "(B, D)" if dim is None else f"(B, {dim}) to fit these class means"
        raise ValueError(f"features must have shape {wanted}, got {features.shape}.")
    if features.shape[0] == 0:
        raise ValueError("features hold no example (B = 0): skip the update of an empty batch.")


def check_labels(labels: Shaped[Array | np.ndarray, "..."], batch: int, num_classes: int) -> None:
    """Raises ValueError unless labels are `(batch,)` integers in range or `(batch, C)` weights."""
    integer = jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == (batch,)
    soft = jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape == (batch, num_classes)
    if not integer and not soft:
        raise ValueError(
            f"labels must be integers of shape ({batch},) or floating weights of shape "
            f"({batch}, {num_classes}), got shape {labels.shape} and dtype {labels.dtype}."
        )
    if not is_known(labels):
        return
    values = np.asarray(labels)
    if integer and (values.min() < 0 or values.max() >= num_classes):
        outside = np.unique(values[(values < 0) | (values >= num_classes)])
        raise ValueError(
            f"labels must be in [0, {num_classes}), got {outside[:5].tolist()}: check that the "
            "number of classes fits the data set and that no ignore label is left."
        )
    if soft and not np.all(values.astype(np.float32) >= 0):
        raise ValueError("soft labels must be >= 0 and not NaN, got a value that is not.")

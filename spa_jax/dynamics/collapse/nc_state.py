"""What neural-collapse metrics need to know of the features, gathered in one pass over batches."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Shaped

from spa_jax.alignment.geometry import widen, widen_labels
from spa_jax.dynamics.row_checks import check_batch
from spa_jax.errors import InputError

# No accelerator may round these products to a shorter format.
product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.tree_util.register_dataclass)
@dataclasses.dataclass(frozen=True)
class NCState:
    r"""Counts, means and scatter of the features of each class, exact over any split in batches.

    .. math:: \mu_c = \frac{1}{n_c} \sum_{i: y_i = c} h_i, \quad
       S = \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top, \quad
       t_c = \sum_{i: y_i = c} \|h_i - \mu_c\|^2

    Two states are merged with their means' distances (Chan et al.), never by sums of squares, so
    that fully collapsed features give a scatter of 0 and not rounding noise. It takes `C D + D D`
    numbers: the scatter is kept whole for all classes together and as a trace for each class. A
    pytree of arrays: it can be jitted, vmapped, scanned, sharded, donated and checkpointed.

    Gather it in evaluation mode on clean examples, neither mixed nor augmented.

    Attributes:
      counts: `(C,)` int32 examples of each class.
      mean: `(C, D)` float32 or float64, zero rows for classes without examples.
      scatter: `(D, D)`, S, summed over the classes.
      traces: `(C,)`, t.
      not_finite: int32 examples left out, for a feature that is NaN or infinite.

    Example:
      >>> state = NCState.create(num_classes=2, dim=1)
      >>> state = state.update(jnp.array([[1.0], [3.0], [5.0]]), jnp.array([0, 0, 1]))
      >>> state.mean.tolist(), state.traces.tolist(), state.scatter.tolist()
      ([[2.0], [5.0]], [2.0, 0.0], [[2.0]])

    Reference:
      Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
      Variances", COMPSTAT 1982.
    """

    # Any, because JAX also fills pytrees with abstract shapes, batched arrays and placeholders.
    counts: Any
    mean: Any
    scatter: Any
    traces: Any
    not_finite: Any

    @classmethod
    def create(cls, num_classes: int, dim: int, dtype: DTypeLike = jnp.float32) -> "NCState":
        """The state before any example.

        Args:
          num_classes: C, 2 or more.
          dim: D, the feature width, 1 or more.
          dtype: float32 or float64. A float32 state becomes float64 at the first float64 features;
            say float64 here where the dtype may not change, as in `jax.lax.scan`.

        Returns:
          An :class:`NCState` of zeros.

        Raises:
          InputError: a number outside its range, another dtype, or float64 while JAX has it off.

        Example:
          >>> NCState.create(num_classes=10, dim=64).scatter.shape
          (64, 64)
        """
        if num_classes < 2 or dim < 1:
            raise InputError(
                f"Neural collapse needs num_classes >= 2 and dim >= 1, got "
                f"num_classes={num_classes}, dim={dim}: it is about how classes lie to each other."
            )
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise InputError(
                f"dtype must be float32 or float64, got {dtype.name}: shorter formats cannot hold "
                "a running sum. Features of any floating dtype may be passed to update."
            )
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise InputError(
                'dtype=float64 needs jax.config.update("jax_enable_x64", True) or '
                "JAX_ENABLE_X64=1, which is off."
            )
        return cls(
            counts=jnp.zeros(num_classes, jnp.int32),
            mean=jnp.zeros((num_classes, dim), dtype),
            scatter=jnp.zeros((dim, dim), dtype),
            traces=jnp.zeros(num_classes, dtype),
            not_finite=jnp.zeros((), jnp.int32),
        )

    def update(
        self,
        features: Float[Array | np.ndarray, "B D"],
        labels: Shaped[Array | np.ndarray, " B"],
        mask: Shaped[Array | np.ndarray, " B"] | None = None,
    ) -> "NCState":
        """Takes in a batch.

        Under `jax.jit` over a mesh of `AxisType.Auto`, features may be sharded over their examples.
        Under `jax.pmap` and `jax.shard_map` let each device take in its own examples and call
        :meth:`merge_over` once, after the last batch.

        Args:
          features: `(B, D)` floating; float16 and bfloat16 are widened.
          labels: `(B,)` integers. An example outside [0, C) contributes nothing, and neither does
            one with a feature that is not finite, which `not_finite` counts.
          mask: `(B,)`, 0 or False for padding, which contributes nothing. None: all count.

        Returns:
          The :class:`NCState` with the batch.

        Raises:
          InputError: shapes that do not fit, features not floating, labels not integers.

        Example:
          >>> state = NCState.create(num_classes=2, dim=1)
          >>> features, labels = jnp.array([[1.0], [2.0]]), jnp.array([1, 1])
          >>> state.update(features, labels, mask=jnp.array([1, 0])).counts.tolist()
          [0, 1]
        """
        num_classes, dim = self.mean.shape
        check_batch(features, dim, labels, mask)
        features, labels = widen(features), widen_labels(labels)
        features = features.astype(jnp.promote_types(features.dtype, self.mean.dtype))
        wanted = (labels >= 0) & (labels < num_classes)
        if mask is not None:
            wanted &= jnp.asarray(mask) != 0
        return self.merge(_moments(features, labels, wanted, num_classes))

    def merge(self, other: "NCState") -> "NCState":
        r"""The state of the examples of both, as of two files or two hosts.

        .. math:: S = S_a + S_b + \sum_c \frac{n_{ac} n_{bc}}{n_{ac} + n_{bc}}
           (\mu_{bc} - \mu_{ac})(\mu_{bc} - \mu_{ac})^\top

        Args:
          other: an :class:`NCState` of the same number of classes and width, of other examples.

        Returns:
          An :class:`NCState`, in float64 if either is.

        Raises:
          InputError: states of other shapes.

        Example:
          >>> one, two = (NCState.create(2, 1).update(jnp.array([[x]]), jnp.array([0]))
          ...     for x in (1.0, 5.0))
          >>> one.merge(two).mean.tolist(), one.merge(two).scatter.tolist()
          ([[3.0], [0.0]], [[8.0]])
        """
        if self.mean.shape != other.mean.shape:
            raise InputError(
                f"These two states cannot be merged: one is of (classes, width) {self.mean.shape}, "
                f"the other of {other.mean.shape}. Create both with the same num_classes and dim."
            )
        counts = self.counts + other.counts
        delta = other.mean - self.mean
        share = other.counts.astype(delta.dtype) / jnp.maximum(counts, 1).astype(delta.dtype)
        scatter, traces = _scatter(delta, self.counts * share)
        return NCState(
            counts=counts,
            mean=self.mean + share[:, None] * delta,
            scatter=self.scatter + other.scatter + scatter,
            traces=self.traces + other.traces + traces,
            not_finite=self.not_finite + other.not_finite,
        )

    def merge_over(self, axis_name: str) -> "NCState":
        """Merges the states of all devices of a mapped axis, the same result on each.

        Every device must have taken in other examples, from an empty state on: a state that was
        merged before would be counted once a device.

        Args:
          axis_name: name of the mapped axis under `jax.pmap`, `jax.shard_map` or `jax.vmap`.

        Returns:
          The merged :class:`NCState`.

        Example:
          >>> def one(features, labels):
          ...     return NCState.create(2, 1).update(features, labels).merge_over("data")
          >>> features, labels = jnp.array([[[1.0]], [[5.0]]]), jnp.array([[0], [0]])
          >>> jax.jit(jax.vmap(one, axis_name="data"))(features, labels).scatter.ravel().tolist()
          [8.0, 8.0]
        """
        own = self.counts.astype(self.mean.dtype)
        counts, sums = jax.lax.psum((self.counts, own[:, None] * self.mean), axis_name)
        mean = sums / jnp.maximum(counts, 1).astype(sums.dtype)[:, None]
        scatter, traces = _scatter(self.mean - mean, own)
        scatter, traces, not_finite = jax.lax.psum(
            (self.scatter + scatter, self.traces + traces, self.not_finite), axis_name
        )
        return NCState(counts, mean, scatter, traces, not_finite)


@functools.partial(jax.jit, static_argnames="num_classes")
def _moments(
    features: Float[Array, "B D"],
    labels: Shaped[Array, " B"],
    wanted: Bool[Array, " B"],
    num_classes: int,
) -> NCState:
    """The state of one batch; examples that are not wanted contribute nothing."""
    finite = jnp.all(jnp.isfinite(features), axis=1)
    used = wanted & finite
    # In the products below 0 times infinity would reach every class.
    features = jnp.where(used[:, None], features, 0.0)
    labels = jnp.where(used, labels, 0)
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=features.dtype) * used[:, None]
    counts = jnp.sum(one_hot, axis=0)
    shares = one_hot / jnp.maximum(counts, 1.0)[None]
    mean = product(shares.T, features)
    # Once more with what is left, so that the mean of equal features is that feature.
    mean = mean + product(shares.T, jnp.where(used[:, None], features - mean[labels], 0.0))
    scatter, squares = _scatter(features - mean[labels], used.astype(features.dtype))
    return NCState(
        counts=counts.astype(jnp.int32),
        mean=mean,
        scatter=scatter,
        traces=jnp.sum(one_hot * squares[:, None], axis=0),
        not_finite=jnp.sum(wanted & ~finite).astype(jnp.int32),
    )


def _scatter(
    rows: Float[Array, "N D"], weights: Float[Array, " N"]
) -> tuple[Float[Array, "D D"], Float[Array, " N"]]:
    """The weighted sum of the rows' outer products, and their weighted squared norms."""
    weighted = weights[:, None] * rows
    return product(weighted.T, rows), jnp.sum(weighted * rows, axis=1)

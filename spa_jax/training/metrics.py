"""What a step measures, running totals of it on the device, and the one way off the device."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.serialization import from_state_dict, to_state_dict
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.kernels import read_heads

STEP_METRICS = ("loss", "accuracy", "gradient_norm")
"""What every step measures; what is read off its state alone is measured where a line needs it."""


def fetch(tree: PyTree) -> PyTree:
    """Copies arrays to the host as NumPy: the one place where the loop waits for a device.

    One that is cut over processes is put together first, for which all of them have to call this.
    """
    return jax.device_get(jax.tree.map(_together, tree))


def is_spread(leaf: Any) -> bool:
    """Whether this process has only a part of an array."""
    if not isinstance(leaf, jax.Array):
        return False
    return not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _together(leaf: Any) -> Any:
    return multihost_utils.process_allgather(leaf, tiled=True) if is_spread(leaf) else leaf


def known_cosines(
    params: PyTree, class_means: ClassMeans | Float[Array, "C D"], **options: Any
) -> Float[Array, "H C"]:
    """Cosines of every head and class, NaN where a class has no direction."""
    heads = read_heads(params, class_means, class_axis=None, **options)
    return jnp.stack([jnp.where(head.has_direction, head.cosines(), jnp.nan) for head in heads])


def alignment_metrics(cosines: Float[Array, "H C"]) -> dict[str, Float[Array, ""]]:
    """Mean and lowest of :func:`known_cosines` over the known ones (NaN if there are none)."""
    return {"mean_cosine": jnp.nanmean(cosines), "min_cosine": jnp.nanmin(cosines)}


class Totals(flax.struct.PyTreeNode):
    """Running totals of an epoch's step metrics, on the device.

    Attributes:
      steps: int32 scalar, steps so far, but for those that were skipped.
      loss: sum of their losses.
      accuracy: sum of their accuracies.
      bad_step: int32 scalar, the first step (counted from 1) that stops the run, as its loss or
        gradient was not finite, or too many in a row were skipped; -1 if none was.
      last: metrics of the newest step.
    """

    steps: Any
    loss: Any
    accuracy: Any
    bad_step: Any
    last: dict[str, Any]

    @classmethod
    def create(cls, metric_names: tuple[str, ...]) -> "Totals":
        """Before any step."""
        zero = jnp.zeros((), jnp.float32)
        return cls(
            steps=jnp.zeros((), jnp.int32),
            loss=zero,
            accuracy=zero,
            bad_step=jnp.full((), -1, jnp.int32),
            last=dict.fromkeys(metric_names, zero),
        )

    def add(self, metrics: Mapping[str, Array], step: Array, limit: int) -> "Totals":
        """With one more step.

        Args:
          metrics: what it measured.
          step: its number, counted from 1.
          limit: of steps that are skipped in a row, where steps are skipped.
        """
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        in_a_row = metrics.get("skipped_in_a_row")
        taken, fine = (True, finite) if in_a_row is None else (in_a_row == 0, in_a_row < limit)
        bad_step = jnp.where((self.bad_step >= 0) | fine, self.bad_step, step)
        return Totals(
            steps=self.steps + taken,
            loss=self.loss + jnp.where(taken, metrics["loss"], 0.0),
            accuracy=self.accuracy + jnp.where(taken, metrics["accuracy"], 0.0),
            bad_step=bad_step.astype(jnp.int32),
            last=dict(metrics),
        )

    def to_lists(self) -> dict[str, Any]:
        """Fetched totals as JSON can hold them: a float32 comes back with the same bits."""
        lists: dict[str, Any] = jax.tree.map(lambda leaf: leaf.tolist(), to_state_dict(self))
        return lists

    def placed(self, lists: Mapping[str, Any]) -> "Totals":
        """What :meth:`to_lists` gave, on the devices of these totals."""

        def place(like: Array, found: Any) -> Array:
            return jax.device_put(np.asarray(found, like.dtype), like.sharding)

        return jax.tree.map(place, self, from_state_dict(self, dict(lists)))


def check_finite(totals: Totals) -> None:
    """Raises FloatingPointError naming the first step that stops the run, see :class:`Totals`.

    Args:
      totals: fetched totals.
    """
    if totals.bad_step >= 0:
        what, step = "The loss or its gradient was not finite at", int(totals.bad_step)
        if "skipped_in_a_row" in totals.last:
            what = (
                "As many steps in a row as config.guard.limit allows were skipped, as their loss "
                "or gradient was not finite or the gradient too long (config.guard.spike_factor "
                "says for how long it may be), up to"
            )
        raise FloatingPointError(
            f"{what} step {step}; the run stopped, and no checkpoint holds that step. Lower "
            "config.optimizer.learning_rate or config.spa.reg.weight, and start in a new workdir."
        )


def accuracy(correct: np.ndarray | np.floating, count: np.ndarray | np.floating) -> float | None:
    """Share of the counted examples that are correct; None if there are none."""
    total = float(np.sum(count, dtype=np.float64))
    return float(np.sum(correct, dtype=np.float64)) / total if total else None


def mean_class_accuracy(correct: np.ndarray, count: np.ndarray) -> float:
    """Accuracy averaged over the classes that have examples, all classes alike."""
    known = count > 0
    return float(np.mean(np.divide(correct[known], count[known], dtype=np.float64)))


def number(value: Any) -> float | None:
    """A fetched scalar as a Python float for JSON: null where there is no value."""
    value = float(value)
    return value if np.isfinite(value) else None

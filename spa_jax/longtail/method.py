"""What a long-tailed method is to the training step: a head, a loss, and logits for testing."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int

from spa_jax.longtail.losses import Targets

Logits = Float[Array, "B C"]


class Situation(NamedTuple):
    """What a loss may depend on besides logits and targets.

    Attributes:
      labels: `(B,)` integers, before any mixing; this device's part of the batch.
      class_counts: `(C,)` float32, training images of each class.
      epoch: int32 scalar, epochs completed before this step; traced.
      axis_name: the mapped axis in the per-device view; None in the global view.
    """

    labels: Int[Array, " B"]
    class_counts: Float[Array, " C"]
    epoch: Int[Array, ""]
    axis_name: str | None


def _unchanged(logits: Logits, class_counts: Float[Array, " C"]) -> Logits:
    del class_counts
    return logits


@dataclasses.dataclass(frozen=True)
class Method:
    """A long-tailed method.

    Attributes:
      head: "linear" or "cosine" (cosines in [-1, 1], scale 1).
      loss: `(logits, targets, situation)` -> scalar. Targets are labels `(B,)`, or shares `(B, C)`
        where images are mixed. In the per-device view it is this device's share: the mean over
        devices, and of its gradient, is the value for the whole batch.
      test_logits: `(logits, class_counts)` -> the logits that are predicted from.
    """

    head: str
    loss: Callable[[Logits, Targets, Situation], Float[Array, ""]]
    test_logits: Callable[[Logits, Float[Array, " C"]], Logits] = _unchanged

"""Which examples make up each global batch: a shuffled epoch, or weighted draws."""

import dataclasses
from typing import Any

import numpy as np

from spa_jax.errors import InputError

_ORDER_STREAM = 0x4F524452  # apart from the generators of the augmentation


@dataclasses.dataclass(frozen=True, eq=False)
class EpochOrder:
    """The order of a stream's examples, a function of the seed and the epoch.

    Without weights an epoch is a permutation of the examples, of which those that do not fill a
    batch are left out. With weights each place of an epoch is drawn with replacement, with
    probabilities proportional to the weights. It pickles without what it has computed.

    Attributes:
      seed: 0 or more.
      num_examples: N, as many as a batch has at least.
      batch_size: of the global batch.
      weights: `(N,)`, 0 or more each; None shuffles.
      stream: 0 or more; orders of the same seed and other streams have nothing to do with each
        other.

    Raises:
      InputError: values that do not fit each other.

    Example:
      >>> order = EpochOrder(seed=0, num_examples=7, batch_size=3)
      >>> order.epoch(0).shape
      (2, 3)
    """

    seed: int
    num_examples: int
    batch_size: int
    weights: np.ndarray | None = None
    stream: int = 0
    _newest: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.seed, self.stream) < 0 or not 1 <= self.batch_size <= self.num_examples:
            raise InputError(
                f"An order needs seed >= 0, stream >= 0 and 1 <= batch_size <= num_examples, got "
                f"seed={self.seed}, stream={self.stream}, batch_size={self.batch_size}, "
                f"num_examples={self.num_examples}."
            )
        weights = self.weights
        if weights is None:
            return
        if weights.shape != (self.num_examples,):
            raise InputError(
                f"The weights must be one a training example, ({self.num_examples},), got "
                f"{weights.shape}."
            )
        wrong = np.where(~(np.isfinite(weights) & (weights >= 0)))[0]
        if len(wrong) or not np.any(weights):
            raise InputError(
                "The weights must be finite, 0 or more, and not all 0: "
                f"{len(wrong)} are not, the first at the positions {wrong[:3].tolist()}."
            )

    def __reduce__(self) -> tuple[type["EpochOrder"], tuple[Any, ...]]:
        fields = (self.seed, self.num_examples, self.batch_size, self.weights, self.stream)
        return EpochOrder, fields

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.num_examples // self.batch_size

    def epoch(self, epoch: int) -> np.ndarray:
        """The positions of an epoch's examples, `(steps_per_epoch, batch_size)` int64.

        The newest one is kept, and must not be written to.
        """
        order = self._newest.get(epoch)
        if order is None:
            order = self._draw(epoch)
            self._newest.clear()
            self._newest[epoch] = order
        return order

    def batch(self, step: int) -> np.ndarray:
        """The positions of the examples of one step, counted over all epochs, `(batch_size,)`."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[step_in_epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        entropy = [self.seed, _ORDER_STREAM, epoch, *([self.stream] if self.stream else [])]
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        count = self.steps_per_epoch * self.batch_size
        if self.weights is None:
            chosen = generator.permutation(self.num_examples)[:count]
        else:
            share = self.weights / np.sum(self.weights, dtype=np.float64)
            chosen = generator.choice(self.num_examples, count, p=share)
        order = chosen.astype(np.int64).reshape(-1, self.batch_size)
        order.flags.writeable = False
        return order

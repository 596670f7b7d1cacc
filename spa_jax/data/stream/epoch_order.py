"""Which examples make up each global batch: a shuffled epoch, or weighted draws."""

import dataclasses
import functools

import numpy as np

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

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.num_examples // self.batch_size

    def epoch(self, epoch: int) -> np.ndarray:
        """The positions of an epoch's examples, `(steps_per_epoch, batch_size)` int64.

        The newest ones are kept, and must not be written to.
        """
        return _draw(self, epoch)

    def batch(self, step: int) -> np.ndarray:
        """The positions of the examples of one step, counted over all epochs, `(batch_size,)`."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[step_in_epoch]


@functools.lru_cache(maxsize=4)
def _draw(order: EpochOrder, epoch: int) -> np.ndarray:
    entropy = [order.seed, _ORDER_STREAM, epoch, *([order.stream] if order.stream else [])]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    count = order.steps_per_epoch * order.batch_size
    if order.weights is None:
        chosen = generator.permutation(order.num_examples)[:count]
    else:
        share = order.weights / np.sum(order.weights, dtype=np.float64)
        chosen = generator.choice(order.num_examples, count, p=share)
    positions = chosen.astype(np.int64).reshape(-1, order.batch_size)
    positions.flags.writeable = False
    return positions

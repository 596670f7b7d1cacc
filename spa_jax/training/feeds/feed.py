"""What a step gets its examples from, and what all feeds share."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from spa_jax.training.feeds.batch import Batch, Normalize
from spa_jax.training.state import TrainState


@runtime_checkable
class Feed(Protocol):
    """Where a step gets its examples from; its inputs are one pytree.

    Attributes:
      steps_per_epoch: full batches in an epoch; the rest of a shuffled epoch is left out.
      image_shape: `(H, W, channels)` that the network sees.
      normalize: uint8 images to the network's float32 input.
      places: a prefix tree of where the inputs of a step lie (:mod:`spa_jax.training.devices`).
      evaluation_places: the same for an evaluation batch.
    """

    steps_per_epoch: int
    image_shape: tuple[int, int, int]
    normalize: Normalize
    places: Any
    evaluation_places: Any

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[PyTree]:
        """The inputs of each step of an epoch, on the devices."""
        ...

    def batch(self, state: TrainState, inputs: Any) -> Batch:
        """Traced: this view's part of the batch of the state's step."""
        ...

    def evaluation(self, part: str) -> Iterator[PyTree]:
        """The inputs of each batch of the part "train", "test" or "validation"."""
        ...

    def evaluation_batch(self, number: Array, inputs: Any) -> Batch:
        """Traced: this view's part of an evaluation batch."""
        ...

    def close(self) -> None:
        """Ends what feeds."""
        ...


def channel_statistics(images: UInt8[np.ndarray, "N H W K"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel over all pixels, `(channels,)` float64, exactly."""
    values = np.arange(256.0)
    mean, deviation = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., 0].size
        mean.append(share @ values)
        deviation.append(np.sqrt(share @ (values - mean[-1]) ** 2))
    return np.array(mean), np.array(deviation)


def normalizer(mean: np.ndarray, deviation: np.ndarray) -> Normalize:
    """Scales each channel to mean 0 and deviation 1; a constant channel is only shifted."""
    mean = mean.astype(np.float32)[None, None, None]
    deviation = deviation.astype(np.float32)[None, None, None]
    deviation = np.where(deviation > 0, deviation, np.float32(1))

    def normalize(images: UInt8[Array, "B H W K"]) -> Float[Array, "B H W K"]:
        return (images.astype(jnp.float32) - mean) / deviation

    return normalize


def evaluation_batch_size(num_examples: int, batch_size: int, num_devices: int) -> int:
    """No more than there are examples, rounded up to what the devices can share evenly."""
    batch_size = min(batch_size, num_examples)
    return batch_size + -batch_size % num_devices

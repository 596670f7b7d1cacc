"""Batches of what does not fit on the device: images that are decoded on the host, or features.

What a batch holds depends on the seed, the step and the rows alone: not on how many workers,
devices or processes take part, nor on where a run was resumed.
"""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import NamedTuple

import numpy as np

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.on_host import test_image, train_image
from spa_jax.data.dataset import EncodedImages, LabelledImages
from spa_jax.data.features import Features
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.data.stream.worker_processes import read_in_order
from spa_jax.errors import InputError

_AUGMENT_STREAM = 0x4155474D  # apart from the generators of the epochs' order


class HostBatch(NamedTuple):
    """A process's part of a global batch, on the host.

    Attributes:
      images: `(rows, S, S, 3)` uint8; `(rows, V, S, S, 3)` if there are V > 1 views of each; or
        features `(rows, D)`.
      labels: `(rows,)` int32.
      positions: `(rows,)` int32, where in the global batch these rows stand.
      mask: `(rows,)` float32, 1 for an example and 0 for padding.
    """

    images: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    mask: np.ndarray


# An element is a whole batch, not an image: then nothing depends on how workers take turns, and
# the images are written once, into the array that is handed over.
@dataclasses.dataclass(frozen=True, eq=False)
class ImageBatches:
    """The images of each step; without an order every example once and unchanged, as it is tested.

    Attributes:
      examples: a training or test set; arrays in place of encoded images are not cropped.
      rows: `(rows,)` different integers in [0, batch size): the positions of the global batch that
        this process provides; all of them on a single process.
      options: the augmentation; what is the device's in training is not read.
      steps: that are read; resuming is starting at the number of completed steps.
      batch_size: of the global batch.
      order: which examples make up each global batch; its seed is the augmentation's too. None: all
        in turn, the last batch padded with black images.
      views: how often each image is augmented, each time anew.
    """

    examples: LabelledImages
    rows: np.ndarray
    options: AugmentOptions
    steps: range
    batch_size: int
    order: EpochOrder | None = None
    views: int = 1

    def __len__(self) -> int:
        return len(self.steps)

    def chosen(self, index: int) -> np.ndarray:
        """The examples at this process's rows; beyond the last one it is padded."""
        if self.order is None:
            return self.steps[index] * self.batch_size + self.rows.astype(np.int64)
        return self.order.batch(self.steps[index])[self.rows]

    def __getitem__(self, index: int) -> np.ndarray:
        stored = self.examples.images
        if isinstance(stored, Features):
            chosen = self.chosen(index)
            features = np.zeros((len(chosen), stored.shape[1]), stored.dtype)
            real = chosen < len(stored)
            features[real] = stored[chosen[real]]
            return features
        side = stream_side(self.examples, self.options)
        images = np.zeros((len(self.rows), self.views, side, side, 3), np.uint8)
        for views, row, example in zip(images, self.rows, self.chosen(index), strict=True):
            if example < len(self.examples):
                self._fill(views, self.steps[index], int(row), int(example))
        return images if self.views > 1 else images[:, 0]

    def _fill(self, views: np.ndarray, step: int, row: int, example: int) -> None:
        names = self.examples.names
        name = f"image {example}" if names is None else str(names[example])
        data = self.examples.images[example]
        for view in range(self.views):
            if self.order is None:
                views[view] = test_image(data, name, self.options)
            else:
                # The first view's generator is the same however many there are.
                seed, stream = self.order.seed, self.order.stream
                apart = [stream, view] if stream or view else []
                entropy = np.random.SeedSequence([seed, _AUGMENT_STREAM, step, row, *apart])
                generator = np.random.Generator(np.random.Philox(entropy))
                views[view] = train_image(generator, data, name, self.options)


def read_batches(batches: ImageBatches, workers: int) -> Generator[HostBatch, None, None]:
    """The batches of all steps, in order.

    Args:
      batches: what to read.
      workers: processes that decode; 0 decodes in threads of this one, as is always done for
        arrays and features, which need no decoding. A script that uses workers has to keep its
        top level behind `if __name__ == "__main__":`.

    Returns:
      The batches; padding has black images, label 0 and mask 0. Call its `close` when leaving it
      before the end (`contextlib.closing`), so that the workers end.

    Raises:
      InputError: while iterating, an image that cannot be read or decoded, or a worker that was
        killed.
    """
    labels = batches.examples.labels
    if not isinstance(batches.examples.images, EncodedImages):
        workers = 0
    with contextlib.closing(read_in_order(batches, workers)) as parts:
        for index, images in enumerate(parts):
            chosen = batches.chosen(index)
            real = chosen < len(labels)
            own_labels = np.where(real, labels[np.where(real, chosen, 0)], 0).astype(np.int32)
            positions = batches.rows.astype(np.int32)
            yield HostBatch(images, own_labels, positions, real.astype(np.float32))


def stream_side(examples: LabelledImages, options: AugmentOptions) -> int:
    """Pixels on each side of the images that a stream of these examples has.

    Args:
      examples: a training or test set, encoded or not.
      options: whose `image_size` counts for images that are still encoded.

    Raises:
      InputError: arrays that are not square or not grey or RGB.
    """
    images = examples.images
    if not isinstance(images, np.ndarray):
        return options.image_size
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(
            f"A stream needs images of 1 or 3 channels, (N, H, W, channels), got {images.shape}: "
            "convert them to grey or RGB."
        )
    if images.shape[1] != images.shape[2]:
        raise InputError(
            f"A stream makes square images, and these are {images.shape[1]} by {images.shape[2]} "
            "pixels: make them square, or keep them on the device with config.data.feed=device."
        )
    return images.shape[1]

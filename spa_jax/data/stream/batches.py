"""Batches of images that do not fit on the device: read, decoded and augmented on the host.

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
from spa_jax.data.dataset import LabelledImages
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.data.stream.worker_processes import read_in_order
from spa_jax.errors import InputError

_AUGMENT_STREAM = 0x4155474D  # apart from the generators of the epochs' order


class HostBatch(NamedTuple):
    """A process's part of a global batch, on the host.

    Attributes:
      images: `(rows, S, S, 3)` uint8; `(rows, V, S, S, 3)` if there are V > 1 views of each.
      labels: `(rows,)` int32.
      positions: `(rows,)` int32, where in the global batch these rows stand.
      mask: `(rows,)` float32, 1 for an example and 0 for padding.
    """

    images: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    mask: np.ndarray


def train_stream(
    examples: LabelledImages,
    order: EpochOrder,
    rows: np.ndarray,
    options: AugmentOptions,
    seed: int,
    start_step: int,
    total_steps: int,
    workers: int,
    views: int = 1,
) -> Generator[HostBatch, None, None]:
    """Augmented training batches, from a step on.

    Args:
      examples: the training set; arrays in place of encoded images are not cropped.
      order: which examples make up each global batch.
      rows: `(rows,)` integers in [0, batch size): the positions of the global batch that this
        process provides; all of them on a single process.
      options: the augmentation; what is the device's in training but for `flip` is not read.
      seed: of the augmentation, 0 or more.
      start_step: the number of completed steps; resuming is starting here.
      total_steps: the step before which the stream ends.
      workers: processes that decode; 0 decodes in threads of this one, as is always done for
        arrays, which would be copied into each process. A script that uses workers has to keep its
        top level behind `if __name__ == "__main__":`.
      views: how often each image is augmented, each time anew.

    Returns:
      The batches of the steps from `start_step` to `total_steps`. Call its `close` when leaving it
      before the end (`contextlib.closing`), so that the workers end.

    Raises:
      InputError: arguments that do not fit each other; later, while iterating, an image that
        cannot be read or decoded, or a worker that was killed.
    """
    side = stream_side(examples, options)
    if order.num_examples != len(examples):
        raise InputError(
            f"The order is of {order.num_examples} examples, but there are {len(examples)}: make "
            "the EpochOrder for this training set."
        )
    if seed < 0 or not 0 <= start_step <= total_steps:
        raise InputError(
            f"A stream needs seed >= 0 and 0 <= start_step <= total_steps, got seed={seed}, "
            f"start_step={start_step} and total_steps={total_steps}."
        )
    steps, size = range(start_step, total_steps), order.batch_size
    source = _Batches(examples, rows, options, side, steps, size, order, seed, views)
    return _start(source, workers)


def test_stream(
    examples: LabelledImages,
    batch_size: int,
    rows: np.ndarray,
    options: AugmentOptions,
    workers: int,
) -> Generator[HostBatch, None, None]:
    """Every example once, in order, without augmentation; the last batch is padded.

    Args:
      examples: the test set.
      batch_size: of the global batch.
      rows: `(rows,)` integers in [0, batch size): the positions of the global batch that this
        process provides.
      options: `resize` and `image_size` are read, for encoded images.
      workers: as in :func:`train_stream`.

    Returns:
      The batches, as many on each process; padding has black images, label 0 and mask 0.

    Raises:
      InputError: as in :func:`train_stream`.
    """
    side = stream_side(examples, options)
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}.")
    steps = range(-(-len(examples) // batch_size))
    return _start(_Batches(examples, rows, options, side, steps, batch_size), workers)


# Or pytest takes it for a test wherever it is imported.
test_stream.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def stream_side(examples: LabelledImages, options: AugmentOptions) -> int:
    """Pixels on each side of the images that a stream of these examples has.

    Args:
      examples: a training or test set.
      options: whose `image_size` counts for images that are still encoded.

    Raises:
      InputError: nothing to stream, or arrays that are not square or not grey or RGB.
    """
    images = examples.images
    if len(examples) == 0:
        raise InputError("There are no examples to stream: check how the data set was split.")
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


# An element is a whole batch, not an image: then nothing depends on how workers take turns, and
# the images are written once, into the array that is handed over.
@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """The images of each step; without an order every example once, as it is tested."""

    examples: LabelledImages
    rows: np.ndarray
    options: AugmentOptions
    side: int
    steps: range
    batch_size: int
    order: EpochOrder | None = None
    seed: int = 0
    views: int = 1

    def __len__(self) -> int:
        return len(self.steps)

    def chosen(self, index: int) -> np.ndarray:
        """The examples at this process's rows; beyond the last one it is padded."""
        if self.order is None:
            return self.steps[index] * self.batch_size + self.rows.astype(np.int64)
        return self.order.batch(self.steps[index])[self.rows]

    def __getitem__(self, index: int) -> np.ndarray:
        images = np.zeros((len(self.rows), self.views, self.side, self.side, 3), np.uint8)
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
                stream = self.order.stream
                apart = [stream, view] if stream or view else []
                entropy = np.random.SeedSequence([self.seed, _AUGMENT_STREAM, step, row, *apart])
                generator = np.random.Generator(np.random.Philox(entropy))
                views[view] = train_image(generator, data, name, self.options)


def _start(source: _Batches, workers: int) -> Generator[HostBatch, None, None]:
    """The stream, after a check of what it is asked for."""
    rows, batch_size = source.rows, source.batch_size
    if workers < 0:
        raise InputError(f"workers must be 0 or more, got {workers}.")
    integers = rows.ndim == 1 and np.issubdtype(rows.dtype, np.integer)
    if not integers or not 0 < len(rows) == len(np.intersect1d(rows, np.arange(batch_size))):
        raise InputError(
            f"rows must be different integers in [0, {batch_size}), at least one, as `(rows,)`: "
            f"got {rows.dtype} of shape {rows.shape}, beginning with {rows.ravel()[:3].tolist()}."
        )
    decoded = isinstance(source.examples.images, np.ndarray)
    return _stream(source, 0 if decoded else workers)


def _stream(source: _Batches, workers: int) -> Generator[HostBatch, None, None]:
    labels, positions = source.examples.labels, source.rows.astype(np.int32)
    with contextlib.closing(read_in_order(source, workers)) as batches:
        for index, images in enumerate(batches):
            chosen = source.chosen(index)
            real = chosen < len(labels)
            own_labels = np.where(real, labels[np.where(real, chosen, 0)], 0).astype(np.int32)
            yield HostBatch(images, own_labels, positions.copy(), real.astype(np.float32))

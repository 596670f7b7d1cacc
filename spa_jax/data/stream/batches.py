"""Batches of images that do not fit on the device: read, decoded and augmented on the host.

What a batch holds depends on the seed, the step and the rows alone: not on how many workers,
devices or processes take part, nor on where a run was resumed.
"""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any, NamedTuple

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
      options: the augmentation.
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
    _check_examples(examples)
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
    rows = _checked_rows(rows, order.batch_size)
    source = _TrainSource(examples, rows, options, order, seed, start_step, total_steps, views)
    return _stream(source, _checked_workers(workers))


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
      options: the size of the images.
      workers: as in :func:`train_stream`.

    Returns:
      The batches, as many on each process; padding has black images, label 0 and mask 0.

    Raises:
      InputError: as in :func:`train_stream`.
    """
    _check_examples(examples)
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, got {batch_size}.")
    source = _TestSource(examples, _checked_rows(rows, batch_size), options, batch_size)
    return _stream(source, _checked_workers(workers))


# Or pytest takes it for a test wherever it is imported.
test_stream.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


# An element is a whole batch, not an image: then nothing depends on how workers take turns, and
# the images are written once, into the array that is handed over.
@dataclasses.dataclass(frozen=True, eq=False)
class _TrainSource:
    examples: LabelledImages
    rows: np.ndarray
    options: AugmentOptions
    order: EpochOrder
    seed: int
    start_step: int
    total_steps: int
    views: int

    def __len__(self) -> int:
        return self.total_steps - self.start_step

    def chosen(self, index: int) -> np.ndarray:
        return self.order.batch(self.start_step + index)[self.rows]

    def __getitem__(self, index: int) -> np.ndarray:
        images = _empty_images(self, self.views)
        for i, (row, example) in enumerate(zip(self.rows, self.chosen(index), strict=True)):
            data, name = _encoded(self.examples, int(example))
            for view in range(self.views):
                generator = self._generator(self.start_step + index, int(row), view)
                images[i, view] = train_image(generator, data, name, self.options)
        return images if self.views > 1 else images[:, 0]

    def _generator(self, step: int, row: int, view: int) -> np.random.Generator:
        """That of one view of an example; the first view's is the same however many there are."""
        stream = self.order.stream
        entropy = [self.seed, _AUGMENT_STREAM, step, row]
        if stream or view:
            entropy += [stream, view]
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


@dataclasses.dataclass(frozen=True, eq=False)
class _TestSource:
    examples: LabelledImages
    rows: np.ndarray
    options: AugmentOptions
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def chosen(self, index: int) -> np.ndarray:
        return index * self.batch_size + self.rows.astype(np.int64)

    def __getitem__(self, index: int) -> np.ndarray:
        images = _empty_images(self, 1)[:, 0]
        for i, example in enumerate(self.chosen(index)):
            if example < len(self.examples):
                data, name = _encoded(self.examples, int(example))
                images[i] = test_image(data, name, self.options)
            else:
                images[i] = 0
        return images


def _empty_images(source: _TrainSource | _TestSource, views: int) -> np.ndarray:
    size = source.options.image_size
    return np.empty((len(source.rows), views, size, size, 3), np.uint8)


def _encoded(examples: LabelledImages, index: int) -> tuple[Any, str]:
    """The image as it is stored, and its name for errors."""
    name = f"image {index}" if examples.names is None else str(examples.names[index])
    return examples.images[index], name


def _stream(source: _TrainSource | _TestSource, workers: int) -> Generator[HostBatch, None, None]:
    if isinstance(source.examples.images, np.ndarray):
        workers = 0
    labels, num_examples = source.examples.labels, len(source.examples)
    with contextlib.closing(read_in_order(source, workers)) as batches:
        for index, images in enumerate(batches):
            chosen = source.chosen(index)
            real = chosen < num_examples
            own_labels = np.where(real, labels[np.where(real, chosen, 0)], 0).astype(np.int32)
            yield HostBatch(images, own_labels, source.rows.copy(), real.astype(np.float32))


def _check_examples(examples: LabelledImages) -> None:
    images = examples.images
    if len(examples) == 0:
        raise InputError("There are no examples to stream: check how the data set was split.")
    if isinstance(images, np.ndarray) and (images.ndim != 4 or images.shape[3] not in (1, 3)):
        raise InputError(
            f"A stream needs images of 1 or 3 channels, (N, H, W, channels), got {images.shape}: "
            "convert them to grey or RGB."
        )


def _checked_rows(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """As int32."""
    wrong = (
        rows.ndim != 1
        or len(rows) == 0
        or not np.issubdtype(rows.dtype, np.integer)
        or rows.min() < 0
        or rows.max() >= batch_size
    )
    if wrong or len(np.unique(rows)) != len(rows):
        raise InputError(
            f"rows must be different integers in [0, {batch_size}), at least one, as `(rows,)`: "
            f"got {rows.dtype} of shape {rows.shape}, beginning with {rows.ravel()[:3].tolist()}."
        )
    return rows.astype(np.int32)


def _checked_workers(workers: int) -> int:
    if workers < 0:
        raise InputError(f"workers must be 0 or more, got {workers}.")
    return workers

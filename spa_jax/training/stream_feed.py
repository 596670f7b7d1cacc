"""Data too large for the devices: decoded by worker processes, and put there batch by batch."""

import collections
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.host_augment import StreamOptions
from spa_jax.data.samplers import example_weights
from spa_jax.data.stream import EpochOrder, HostBatch, test_stream, train_stream
from spa_jax.errors import InputError
from spa_jax.training.batch import Batch, partner_order
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.feeds import channel_statistics, evaluation_batch_size, normalizer
from spa_jax.training.state import TrainState

# Pixel statistics of ImageNet, which the field uses for photographs at large.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53])
IMAGENET_DEVIATION = np.array([58.395, 57.12, 57.375])

# Batches that wait on the devices while one is worked on.
_AHEAD = 2


class StreamFeed:
    """A :class:`spa_jax.training.feeds.Feed` from grain; each process decodes its own rows.

    The order and the augmentation are functions of (seed, epoch, step, position in the batch), so
    that neither workers nor devices nor processes change them, and a step says where to go on.
    """

    num_inputs = 3
    num_evaluation_inputs = 3
    split = True

    def __init__(self, layout: Layout, config: Config, data: LongTailedDataset) -> None:
        """Prepares; nothing is read yet."""
        self._layout, self._config, self._data = layout, config, data
        self._options = stream_options(config, data.train)
        self._weights = example_weights(
            data.train.labels, config.data.sampler, config.data.sampler_power
        )
        self._rows = layout.local_rows(config.batch_size)
        self._stream: Generator[HostBatch, None, None] | None = None
        self._next: tuple[int, int] | None = None  # the seed and the epoch that the stream is at
        self.steps_per_epoch = len(data.train) // config.batch_size
        size = self._options.image_size
        self.image_shape: tuple[int, int, int] = (size, size, 3)  # a stream makes grey images RGB
        images, statistics = data.train.images, (IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.encoded = not isinstance(images, np.ndarray)
        if isinstance(images, np.ndarray):
            statistics = channel_statistics(images)
        self.normalize = normalizer(*statistics)

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Array, ...]]:
        """Images, labels and positions of each step, cut over the devices."""
        del state
        stream = self._stream
        if stream is None or self._next != (seed, epoch):
            self.close()
            stream = self._stream = self._open(seed, epoch)
        self._next = None  # until the epoch has been read to its end
        mine = itertools.islice(stream, self.steps_per_epoch)
        yield from _ahead(self._put(batch, self._rows, self._config.batch_size) for batch in mine)
        self._next = (seed, epoch + 1)

    def batch(self, take_part: TakePart, state: TrainState, *inputs: Array) -> Batch:
        """Traced: the batch as it came, with its partners where images are mixed."""
        images, labels, positions = inputs
        batch = Batch(images, labels, positions)
        if self._config.augment.mix == "none":
            return batch
        order = partner_order(state.rng, state.step, self._config.batch_size)
        partner = jax.tree.map(lambda part: take_part(self._layout.gather(part)[order]), batch)
        return batch.replace(partner=partner)

    def evaluation(self, examples: LabelledImages) -> Iterator[tuple[Array, ...]]:
        """Images, labels and weights of each batch, cut over the devices."""
        size = evaluation_batch_size(
            len(examples), self._config.eval_batch_size, self._layout.num_devices
        )
        rows = self._layout.local_rows(size)
        stream = test_stream(examples, size, rows, self._options, self._config.loader.workers)
        return _ahead(
            self._layout.split(rows, size, (batch.images, batch.labels, batch.mask))
            for batch in stream
        )

    def evaluation_batch(self, take_part: TakePart, number: Array, *inputs: Array) -> Batch:
        """Traced: the batch as it came."""
        del take_part, number
        images, labels, mask = inputs
        return Batch(images, labels, labels, mask)

    def close(self) -> None:
        """Ends the worker processes."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._next = None

    def _open(self, seed: int, epoch: int) -> Generator[HostBatch, None, None]:
        order = EpochOrder(seed, len(self._data.train), self._config.batch_size, self._weights)
        return train_stream(
            self._data.train,
            order,
            self._rows,
            self._options,
            seed,
            start_step=epoch * self.steps_per_epoch,
            total_steps=self._config.epochs * self.steps_per_epoch,
            workers=self._config.loader.workers,
        )

    def _put(self, batch: HostBatch, rows: np.ndarray, size: int) -> tuple[Array, ...]:
        return self._layout.split(rows, size, (batch.images, batch.labels, batch.positions))


def stream_options(config: Config, examples: LabelledImages) -> StreamOptions:
    """What happens to an image on the host; flip, policy, cutout and mixing are the device's."""
    augment = config.augment
    images = examples.images
    decoded = isinstance(images, np.ndarray)
    if decoded and images.shape[1] != images.shape[2]:
        raise InputError(
            f"A stream makes square images, and these are {images.shape[1]} by {images.shape[2]} "
            "pixels: make them square, or keep them on the device with config.data.feed=device."
        )
    return StreamOptions(
        image_size=images.shape[1] if decoded else augment.image_size,
        resize=images.shape[1] if decoded else augment.resize,
        min_area=augment.min_area,
        color_jitter=augment.color_jitter,
        grey=augment.grey,
        blur=augment.blur,
        flip=False,
    )


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, with a few more put on their way before each is asked for."""
    waiting = collections.deque(itertools.islice(batches, _AHEAD))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))

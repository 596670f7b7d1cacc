"""Data too large for the devices: decoded by worker processes, and put there batch by batch."""

import collections
import contextlib
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from spa_jax.data.augment.on_host import StreamOptions
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.splits.samplers import draw_probabilities
from spa_jax.data.stream.batches import EpochOrder, HostBatch, test_stream, train_stream
from spa_jax.errors import InputError
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.feeds.batch import Batch, partner_order
from spa_jax.training.feeds.resident import channel_statistics, evaluation_batch_size, normalizer
from spa_jax.training.method import views_of
from spa_jax.training.state import TrainState

# Pixel statistics of ImageNet, which the field uses for photographs at large.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53])
IMAGENET_DEVIATION = np.array([58.395, 57.12, 57.375])

# Batches that wait on the devices while one is worked on.
_AHEAD = 2


class StreamFeed:
    """A feed from grain; each process decodes its own rows.

    The order and the augmentation are functions of (seed, epoch, step, position in the batch), so
    that neither workers nor devices nor processes change them, and a step says where to go on.
    """

    num_shared_inputs = 0
    num_evaluation_inputs = 3
    split = True

    def __init__(self, layout: Layout, config: Config, data: LongTailedDataset) -> None:
        """Prepares; nothing is read yet."""
        self._layout, self._config, self._data = layout, config, data
        self._options = stream_options(config, data.train)
        self._views = views_of(config)
        samplers = [(config.data.sampler, config.data.sampler_power)]
        if self._views.sampler_power is not None:
            samplers.append(("power", self._views.sampler_power))
        self._weights = [draw_probabilities(data.train.labels, *sampler) for sampler in samplers]
        self.num_inputs = 3 * len(samplers)
        self._rows = layout.local_rows(config.batch_size)
        self._stream: Generator[tuple[HostBatch, ...], None, None] | None = None
        self._next: tuple[int, int] | None = None  # the seed and the epoch that the stream is at
        self.steps_per_epoch = len(data.train) // config.batch_size
        size = self._options.image_size
        self.image_shape: tuple[int, int, int] = (size, size, 3)  # a stream makes grey images RGB
        images, statistics = data.train.images, (IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.encoded = not isinstance(images, np.ndarray)
        if isinstance(images, np.ndarray):
            statistics = channel_statistics(images)
        self.normalize = normalizer(*statistics)
        # What is random here is so in a second view too, which then has to be made here.
        options = self._options
        random_here = self.encoded or options.color_jitter or options.grey or options.blur
        self._host_views = 2 if random_here and self._views.mix == "glmc" else 1

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Array, ...]]:
        """Images, labels and positions of each step's draws, cut over the devices."""
        del state
        stream = self._stream
        if stream is None or self._next != (seed, epoch):
            self.close()
            stream = self._stream = self._open(seed, epoch)
        self._next = None  # until the epoch has been read to its end
        mine = itertools.islice(stream, self.steps_per_epoch)
        yield from _ahead(self._put(batches) for batches in mine)
        self._next = (seed, epoch + 1)

    def batch(self, take_part: TakePart, state: TrainState, *inputs: Array) -> Batch:
        """Traced: the batch as it came, with its partners where images are mixed."""
        batch, *drawn = [self._arrived(*inputs[i : i + 3]) for i in range(0, len(inputs), 3)]
        if self._views.mix == "none":
            return batch
        if drawn:  # other examples than the batch's, so that their randomness is their own
            (other,) = drawn
            offset = self._config.batch_size
            return batch.replace(partner=other.replace(positions=offset + other.positions))
        order = partner_order(state.rng, state.step, self._config.batch_size)
        partner = jax.tree.map(lambda part: take_part(self._layout.gather(part)[order]), batch)
        return batch.replace(partner=partner)

    def _arrived(self, images: Array, labels: Array, positions: Array) -> Batch:
        if self._host_views == 1:
            return Batch(images, labels, positions)
        return Batch(images[:, 0], labels, positions, second_images=images[:, 1])

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

    def _open(self, seed: int, epoch: int) -> Generator[tuple[HostBatch, ...], None, None]:
        """For each step a batch from every sampler."""
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(contextlib.closing(self._open_one(seed, epoch, sampler)))
                for sampler in range(len(self._weights))
            ]
            yield from zip(*streams, strict=True)

    def _open_one(self, seed: int, epoch: int, sampler: int) -> Generator[HostBatch, None, None]:
        """The batches of one sampler."""
        config, train = self._config, self._data.train
        weights, workers = self._weights[sampler], config.loader.workers
        return train_stream(
            train,
            EpochOrder(seed, len(train), config.batch_size, weights, stream=sampler),
            self._rows,
            self._options,
            seed,
            start_step=epoch * self.steps_per_epoch,
            total_steps=config.epochs * self.steps_per_epoch,
            workers=workers and max(1, workers // len(self._weights)),
            views=self._host_views,
        )

    def _put(self, batches: tuple[HostBatch, ...]) -> tuple[Array, ...]:
        """Cut over the devices."""
        arrays = [(batch.images, batch.labels, batch.positions) for batch in batches]
        flat = tuple(array for of_one in arrays for array in of_one)
        return self._layout.split(self._rows, self._config.batch_size, flat)


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

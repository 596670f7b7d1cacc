"""Data too large for the devices: decoded by worker processes, and put there batch by batch."""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.dataset import LongTailedDataset
from spa_jax.data.splits.samplers import draw_probabilities
from spa_jax.data.stream.batches import (
    EpochOrder,
    HostBatch,
    test_stream,
    train_stream,
)
from spa_jax.longtail.method import Views
from spa_jax.training.devices import SPLIT, Layout
from spa_jax.training.feeds.batch import (
    Batch,
    channel_statistics,
    evaluation_batch_size,
    normalizer,
    partner_order,
)
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

    places = SPLIT
    evaluation_places = SPLIT

    def __init__(
        self,
        layout: Layout,
        data: LongTailedDataset,
        batch_size: int,
        eval_batch_size: int,
        sampler: tuple[str, float],
        views: Views,
        augment: AugmentOptions,
        workers: int,
        epochs: int,
    ) -> None:
        """Prepares; nothing is read yet. As :class:`ResidentFeed`, and

        Args:
          augment: what is done to an image on the host.
          workers: processes that decode.
          epochs: of the run.
        """
        self._layout, self._data, self._views = layout, data, views
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._workers, self._epochs = workers, epochs
        # Flip, policy, cutout and mixing are the device's.
        self._options = dataclasses.replace(augment, flip=False)
        samplers = [sampler]
        if views.sampler_power is not None:
            samplers.append(("power", views.sampler_power))
        self._weights = [draw_probabilities(data.train.labels, *drawn) for drawn in samplers]
        self._rows = layout.local_rows(batch_size)
        self._stream: Generator[tuple[HostBatch, ...], None, None] | None = None
        self._next: tuple[int, int] | None = None  # the seed and the epoch that the stream is at
        self.steps_per_epoch = len(data.train) // batch_size
        images, statistics = data.train.images, (IMAGENET_MEAN, IMAGENET_DEVIATION)
        encoded = not isinstance(images, np.ndarray)
        if isinstance(images, np.ndarray):
            statistics = channel_statistics(images)
        self.normalize = normalizer(*statistics)
        # What is random here is so in a second view too, which then has to be made here.
        random_here = encoded or augment.color_jitter or augment.grey or augment.blur
        self._host_views = 2 if random_here and views.mix == "glmc" else 1

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Batch, ...]]:
        """A batch of each sampler for every step, cut over the devices."""
        del state
        stream = self._stream
        if stream is None or self._next != (seed, epoch):
            self.close()
            stream = self._stream = self._open(seed, epoch)
        self._next = None  # until the epoch has been read to its end
        mine = itertools.islice(stream, self.steps_per_epoch)
        yield from _ahead(
            self._layout.split(self._batch_size, tuple(map(self._arrived, batches)))
            for batches in mine
        )
        self._next = (seed, epoch + 1)

    def batch(self, state: TrainState, inputs: tuple[Batch, ...]) -> Batch:
        """Traced: the batch as it came, with its partners where images are mixed."""
        batch, *drawn = inputs
        if self._views.mix == "none":
            return batch
        if drawn:  # other examples than the batch's, so that their randomness is their own
            (other,) = drawn
            return batch.replace(
                partner=other.replace(positions=self._batch_size + other.positions)
            )
        order = partner_order(state.rng, state.step, self._batch_size)

        def look_up(part: Array) -> Array:
            return self._layout.take_part(self._layout.gather(part)[order])

        return batch.replace(partner=jax.tree.map(look_up, batch))

    def evaluation(self, part: str) -> Iterator[Batch]:
        """Each batch, cut over the devices."""
        examples = getattr(self._data, part)
        size = evaluation_batch_size(len(examples), self._eval_batch_size, self._layout.num_devices)
        rows = self._layout.local_rows(size)
        stream = test_stream(examples, size, rows, self._options, self._workers)
        return _ahead(
            # Nothing is random here, so that a position says nothing.
            self._layout.split(size, Batch(batch.images, batch.labels, batch.labels, batch.mask))
            for batch in stream
        )

    def evaluation_batch(self, inputs: Batch) -> Batch:
        """Traced: the batch as it came."""
        return inputs

    def close(self) -> None:
        """Ends the worker processes."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._next = None

    def _arrived(self, batch: HostBatch) -> Batch:
        if self._host_views == 1:
            return Batch(batch.images, batch.labels, batch.positions)
        first, second = batch.images[:, 0], batch.images[:, 1]
        return Batch(first, batch.labels, batch.positions, second_images=second)

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
        train, weights = self._data.train, self._weights[sampler]
        return train_stream(
            train,
            EpochOrder(seed, len(train), self._batch_size, weights, stream=sampler),
            self._rows,
            self._options,
            seed,
            start_step=epoch * self.steps_per_epoch,
            total_steps=self._epochs * self.steps_per_epoch,
            workers=self._workers and max(1, self._workers // len(self._weights)),
            views=self._host_views,
        )


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, with a few more put on their way before each is asked for."""
    waiting = collections.deque(itertools.islice(batches, _AHEAD))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))

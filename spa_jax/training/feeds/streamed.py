"""Data too large for the devices: read or decoded on the host, and put there batch by batch."""

import collections
import contextlib
import itertools
from collections.abc import Generator, Iterator
from typing import Any

import jax
from jaxtyping import Array

from spa_jax.data.dataset import EncodedImages
from spa_jax.data.splits.samplers import draw_probabilities
from spa_jax.data.stream.batches import HostBatch, ImageBatches, read_batches
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.training.checking import PreparedRun
from spa_jax.training.devices import SPLIT
from spa_jax.training.feeds.batch import (
    Batch,
    evaluation_batch_size,
    normalizer,
    partner_order,
    samplers_of,
)
from spa_jax.training.state import TrainState

# Batches that wait on the devices while one is worked on.
_AHEAD = 2


class StreamFeed:
    """A feed from grain; each process decodes its own rows.

    The order and the augmentation are functions of (seed, epoch, step, position in the batch), so
    that neither workers nor devices nor processes change them, and a step says where to go on.
    """

    places = SPLIT
    evaluation_places = SPLIT

    def __init__(self, run: PreparedRun) -> None:
        """Prepares; nothing is read yet."""
        self._layout, self.data, self._options = run.layout, run.data, run.options
        train, augment = run.data.train, run.options.augment
        self._weights = [
            draw_probabilities(train.labels, *sampler) for sampler in samplers_of(run.options)
        ]
        self._stream: Generator[tuple[HostBatch, ...], None, None] | None = None
        self._next: tuple[int, int] | None = None  # the seed and the epoch that the stream is at
        self.steps_per_epoch = len(train) // run.options.batch_size
        self.normalize = normalizer(train.images, run.options.augment.normalization)
        # What is random here is so in a second view too, which then has to be made here.
        encoded = isinstance(train.images, EncodedImages)
        random_here = encoded or augment.color_jitter or augment.grey or augment.blur
        self._host_views = 2 if random_here and run.options.views.two else 1

    def batches(
        self, state: TrainState, seed: int, epoch: int, done: int = 0
    ) -> Iterator[tuple[Batch, ...]]:
        """A batch of each sampler for every step, cut over the devices."""
        stream = self._stream
        if stream is None or done or self._next != (seed, epoch):
            self.close()
            stream = self._stream = self._open(seed, epoch, done)
        self._next = None  # until the epoch has been read to its end
        mine = itertools.islice(stream, self.steps_per_epoch - done)
        yield from _ahead(
            self._layout.split(self._options.batch_size, tuple(map(self._arrived, batches)))
            for batches in mine
        )
        self._next = (seed, epoch + 1)

    def batch(self, state: TrainState, inputs: tuple[Batch, ...]) -> Batch:
        """Traced: the batch as it came, with its partners where images are mixed."""
        batch, *drawn = inputs
        batch_size = self._options.batch_size
        if self._options.views.mix == "none":
            return batch
        if drawn:  # other examples than the batch's, so that their randomness is their own
            (other,) = drawn
            return batch.replace(partner=other.replace(positions=batch_size + other.positions))
        order = partner_order(state.rng, state.step, batch_size)

        def look_up(part: Array) -> Array:
            return self._layout.take_part(self._layout.gather(part)[order])

        return batch.replace(partner=jax.tree.map(look_up, batch))

    def evaluation(self, part: str) -> Iterator[Batch]:
        """Each batch, cut over the devices."""
        examples, options = getattr(self.data, part), self._options
        count = len(examples)
        size = evaluation_batch_size(count, options.eval_batch_size, self._layout.num_devices)
        rows, steps = self._layout.local_rows(size), range(-(-count // size))
        batches = ImageBatches(examples, rows, options.augment, steps, size)
        return _ahead(
            # Nothing is random here, so that a position says nothing.
            self._layout.split(size, Batch(batch.images, batch.labels, batch.labels, batch.mask))
            for batch in read_batches(batches, options.loader.workers)
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

    def _open(
        self, seed: int, epoch: int, done: int
    ) -> Generator[tuple[HostBatch, ...], None, None]:
        """For each step a batch from every sampler."""
        train, options, size = self.data.train, self._options, self._options.batch_size
        rows, spe = self._layout.local_rows(size), self.steps_per_epoch
        steps = range(epoch * spe + done, options.epochs * spe)
        workers = options.loader.workers and max(1, options.loader.workers // len(self._weights))
        with contextlib.ExitStack() as stack:
            streams = []
            for stream, weights in enumerate(self._weights):
                order = EpochOrder(seed, len(train), size, weights, stream)
                batches = ImageBatches(
                    train, rows, options.augment, steps, size, order, self._host_views
                )
                opened = contextlib.closing(read_batches(batches, workers))
                streams.append(stack.enter_context(opened))
            yield from zip(*streams, strict=True)


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, with a few more put on their way before each is asked for."""
    waiting = collections.deque(itertools.islice(batches, _AHEAD))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))

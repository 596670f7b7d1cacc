"""Data that live on the devices: replicated as they are, shuffled and cut into batches there."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.features import Features
from spa_jax.data.splits.samplers import class_probabilities
from spa_jax.training.checking import PreparedRun
from spa_jax.training.devices import OWN, SHARED
from spa_jax.training.feeds.batch import (
    Batch,
    evaluation_batch_size,
    normalizer,
    partner_order,
    samplers_of,
)
from spa_jax.training.state import STATE_PLACES, TrainState

# Streams of the seed's key that steps, which count up from 0, never reach: of an epoch's sampler,
# and of one for what is mixed in.
_ORDER_STREAMS = (2**32 - 2, 2**32 - 3)

Draw = Callable[[Key[Array, ""]], Int[Array, " N"]]


class ResidentFeed:
    """A feed whose data stay on every device."""

    # Of the training set all images, all labels, and the positions of each step's examples.
    places = (SHARED, SHARED, OWN)
    evaluation_places = SHARED

    def __init__(self, run: PreparedRun) -> None:
        """Places the data of a run: features, or images that are decoded and of one size."""
        self._layout, self._options = run.layout, run.options
        train = run.data.train
        self._full, self._rest = divmod(len(train), run.options.batch_size)
        self.steps_per_epoch = self._full
        if self._rest and not run.options.data.drop_last:
            self.steps_per_epoch += 1
        self.normalize = normalizer(train.images, run.options.augment.normalization)
        self.place(run.data)
        self._draws = [_make_draw(train.labels, *sampler) for sampler in samplers_of(run.options)]
        places = (STATE_PLACES.rng, STATE_PLACES.step)
        self._orders = run.layout.compile(self.draw_orders, places)

    def place(self, data: LongTailedDataset) -> None:
        """Takes the place of the data so far, whose labels and normalisation it has."""
        self.data = data
        self._arrays = self._layout.replicate(_arrays_of(data.train))
        self._evaluation: dict[str, list[Batch]] = {}

    def batches(self, state: TrainState, seed: int, epoch: int, done: int = 0) -> Iterator[Any]:
        """Images, labels and the epoch's orders, the same for each of its full batches."""
        whole, last = self._orders(state.rng, state.step)
        inputs = [(*self._arrays, whole)] * self._full + [(*self._arrays, last)]
        yield from inputs[done : self.steps_per_epoch]

    def batch(self, state: TrainState, inputs: Any) -> Batch:
        """Traced: looks the state's step up in the orders."""
        images, labels, orders = inputs
        # The last batch, if it is smaller, comes as the only one.
        row = jnp.minimum(state.step % self.steps_per_epoch, len(orders[0]) - 1)
        chosen, *drawn = [order[row] for order in orders]
        batch_size, take_part = len(chosen), self._layout.take_part
        positions = jnp.arange(batch_size)

        def look_up(examples: Array, places: Array, partner: Batch | None = None) -> Batch:
            own = take_part(examples)
            return Batch(images[own], labels[own], take_part(places), partner=partner)

        if self._options.views.mix == "none":
            return look_up(chosen, positions)
        if drawn:  # other examples than the batch's, so that their randomness is their own
            partner = look_up(drawn[0], batch_size + positions)
        else:
            partners = partner_order(state.rng, state.step, batch_size)
            partner = look_up(chosen[partners], partners)
        return look_up(chosen, positions, partner)

    def evaluation(self, part: str) -> Iterator[Batch]:
        """All images and labels, and each batch's positions and weights, 0 for padding."""
        if part not in self._evaluation:
            self._evaluation[part] = self._place(part)
        yield from self._evaluation[part]

    def evaluation_batch(self, inputs: Batch) -> Batch:
        """Traced: looks the batch's positions up."""
        chosen, mask = map(self._layout.take_part, (inputs.positions, inputs.mask))
        return Batch(inputs.images[chosen], inputs.labels[chosen], chosen, mask)

    def close(self) -> None:
        """Nothing runs."""

    def _place(self, part: str) -> list[Batch]:
        examples = getattr(self.data, part)
        size = self._options.eval_batch_size
        rows = evaluation_order(len(examples), size, self._layout.num_devices)
        arrays = self._arrays  # of the training set, which need not be there twice
        if part != "train":
            arrays = self._layout.replicate(_arrays_of(examples))
        rows = self._layout.replicate([*zip(*rows, strict=True)])
        return [Batch(*arrays, *row) for row in rows]

    def draw_orders(self, rng: Key[Array, ""], step: Array) -> tuple[list[Array], list[Array]]:
        """Traced: positions of the step's epoch, of every sampler.

        Those of full batches `(batches, batch)`, and `(1, rest)` of what does not fill the last.
        """
        epoch, count = step // self.steps_per_epoch, self._full * self._options.batch_size
        whole, rest = [], []
        for stream, draw in zip(_ORDER_STREAMS, self._draws, strict=False):
            drawn = draw(jax.random.fold_in(jax.random.fold_in(rng, stream), epoch))
            whole.append(drawn[:count].reshape(self._full, -1))
            rest.append(drawn[None, count:])
        return whole, rest


def _arrays_of(examples: LabelledImages) -> tuple[Any, np.ndarray]:
    """Images or features, and labels, as arrays in memory."""
    images = examples.images
    return images[:] if isinstance(images, Features) else images, examples.labels


def evaluation_order(
    num_examples: int, batch_size: int, num_devices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Example positions and weights of every evaluation batch; the last is padded with weight 0."""
    size = evaluation_batch_size(num_examples, batch_size, num_devices)
    padding = (0, -num_examples % size)
    positions = np.pad(np.arange(num_examples, dtype=np.int32), padding)
    mask = np.pad(np.ones(num_examples, np.float32), padding)
    return positions.reshape(-1, size), mask.reshape(-1, size)


def _make_draw(labels: np.ndarray, sampler: str, power: float) -> Draw:
    """A function from an epoch's key to as many positions as there are examples."""
    num_examples = len(labels)
    if sampler == "shuffle":
        return lambda key: jax.random.permutation(key, num_examples)
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable").astype(np.int32)
    first = (np.cumsum(counts) - counts).astype(np.int32)
    chances = class_probabilities(counts.tolist(), sampler, power)
    # Of a class without images the step is empty, so that no draw falls on it.
    steps = np.cumsum(chances)[:-1].astype(np.float32)

    def draw(key: Key[Array, ""]) -> Array:
        class_key, place_key = jax.random.split(key)
        uniform = jax.random.uniform(class_key, (num_examples,))
        drawn = jnp.searchsorted(jnp.asarray(steps), uniform, side="right")
        sizes = jnp.asarray(counts.astype(np.int32))[drawn]
        places = jax.random.randint(place_key, (num_examples,), 0, sizes)
        return jnp.asarray(by_class)[jnp.asarray(first)[drawn] + places]

    return draw

"""Data that live on the devices: replicated as uint8, shuffled and cut into batches there."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.splits.samplers import class_probabilities
from spa_jax.errors import InputError
from spa_jax.longtail.method import Views
from spa_jax.training.devices import OWN, SHARED, Layout
from spa_jax.training.feeds.batch import (
    Batch,
    channel_statistics,
    evaluation_batch_size,
    normalizer,
    partner_order,
)
from spa_jax.training.state import STATE_PLACES, TrainState

# Streams of the seed's key that steps, which count up from 0, never reach.
_ORDER_STREAM = 2**32 - 2
_PARTNER_ORDER_STREAM = 2**32 - 3

Draw = Callable[[Key[Array, ""]], Int[Array, " N"]]


class TrainInputs(NamedTuple):
    """What the steps of an epoch share.

    Attributes:
      images: `(N, H, W, channels)` uint8, all of the training set.
      labels: `(N,)` int32.
      orders: `(steps, B)` positions of each step's examples; a second one for what is mixed in
        where that is drawn anew.
    """

    images: Any
    labels: Any
    orders: Any


class EvaluationInputs(NamedTuple):
    """All images and labels of a part; positions of a batch, and their weights, 0 for padding."""

    images: Any
    labels: Any
    positions: Any
    mask: Any


class ResidentFeed:
    """A feed whose data stay on every device."""

    places = TrainInputs(SHARED, SHARED, OWN)
    evaluation_places = SHARED

    def __init__(
        self,
        layout: Layout,
        data: LongTailedDataset,
        batch_size: int,
        eval_batch_size: int,
        sampler: tuple[str, float],
        views: Views,
    ) -> None:
        """Places the data.

        Args:
          layout: of the devices.
          data: with images of one size, decoded.
          batch_size: of a step, over all devices.
          eval_batch_size: of an evaluation batch, at most.
          sampler: its name and its power.
          views: what the network is shown.
        """
        self._layout, self._views = layout, views
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._data = data
        images = resident_images(data.train)
        self.steps_per_epoch = len(data.train) // batch_size
        self.normalize = normalizer(*channel_statistics(images))
        self._arrays = layout.replicate((images, data.train.labels))
        streams = {_ORDER_STREAM: sampler}
        if views.sampler_power is not None:
            streams[_PARTNER_ORDER_STREAM] = ("power", views.sampler_power)
        orders = [
            self._make_order(stream, _make_draw(data.train.labels, *drawn))
            for stream, drawn in streams.items()
        ]
        self._orders = layout.compile(
            lambda rng, step: tuple(order(rng, step) for order in orders),
            (STATE_PLACES.rng, STATE_PLACES.step),
        )
        self._evaluation: dict[str, list[EvaluationInputs]] = {}

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[TrainInputs]:
        """Images, labels and the epoch's orders, the same for each of its steps."""
        del seed, epoch  # the state knows both
        images, labels = self._arrays
        inputs = TrainInputs(images, labels, self._orders(state.rng, state.step))
        for _ in range(self.steps_per_epoch):
            yield inputs

    def batch(self, state: TrainState, inputs: TrainInputs) -> Batch:
        """Traced: looks the state's step up in the orders."""
        images, labels, orders = inputs
        chosen, *drawn = [order[state.step % self.steps_per_epoch] for order in orders]
        positions = jnp.arange(self._batch_size)
        take_part = self._layout.take_part

        def look_up(examples: Array, places: Array, partner: Batch | None = None) -> Batch:
            own = take_part(examples)
            return Batch(images[own], labels[own], take_part(places), partner=partner)

        if self._views.mix == "none":
            return look_up(chosen, positions)
        if drawn:  # other examples than the batch's, so that their randomness is their own
            partner = look_up(drawn[0], self._batch_size + positions)
        else:
            partners = partner_order(state.rng, state.step, self._batch_size)
            partner = look_up(chosen[partners], partners)
        return look_up(chosen, positions, partner)

    def evaluation(self, part: str) -> Iterator[EvaluationInputs]:
        """All images and labels, and each batch's positions and weights."""
        if part not in self._evaluation:
            self._evaluation[part] = self._place(part)
        yield from self._evaluation[part]

    def evaluation_batch(self, inputs: EvaluationInputs) -> Batch:
        """Traced: looks the batch's positions up."""
        images, labels, positions, mask = inputs
        chosen = self._layout.take_part(positions)
        return Batch(images[chosen], labels[chosen], chosen, self._layout.take_part(mask))

    def close(self) -> None:
        """Nothing runs."""

    def _place(self, part: str) -> list[EvaluationInputs]:
        examples = getattr(self._data, part)
        order, mask = evaluation_order(
            len(examples), self._eval_batch_size, self._layout.num_devices
        )
        images, labels = self._arrays  # of the training set, which need not be there twice
        if part != "train":
            images, labels = self._layout.replicate((resident_images(examples), examples.labels))
        rows = self._layout.replicate((list(order), list(mask)))
        return [EvaluationInputs(images, labels, *row) for row in zip(*rows, strict=True)]

    def _make_order(self, stream: int, draw: Draw) -> Callable[[Key[Array, ""], Array], Array]:
        """A function `(rng, step) -> (steps_per_epoch, batch)` positions of the step's epoch."""
        spe, batch_size = self.steps_per_epoch, self._batch_size

        def order(rng: Key[Array, ""], step: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(rng, stream), step // spe)
            return draw(key)[: spe * batch_size].reshape(spe, batch_size)

        return order


def resident_images(examples: LabelledImages) -> np.ndarray:
    """The images as an array; InputError if they are encoded."""
    if not isinstance(examples.images, np.ndarray):
        raise InputError(
            "config.data.feed='device' needs images of one size that are decoded already; these "
            "are JPEG or PNG files of any size: set config.data.feed=stream."
        )
    return examples.images


def evaluation_order(
    num_examples: int, batch_size: int, num_devices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Example positions and weights of every evaluation batch; the last is padded with weight 0."""
    batch_size = evaluation_batch_size(num_examples, batch_size, num_devices)
    batches = -(-num_examples // batch_size)
    positions = np.zeros(batches * batch_size, np.int32)
    positions[:num_examples] = np.arange(num_examples)
    mask = np.zeros(batches * batch_size, np.float32)
    mask[:num_examples] = 1.0
    return positions.reshape(batches, batch_size), mask.reshape(batches, batch_size)


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

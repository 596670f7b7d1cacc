"""Data that live on the devices: replicated as uint8, shuffled and cut into batches there."""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.splits.samplers import class_probabilities
from spa_jax.errors import InputError
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout, TakePart
from spa_jax.training.feeds.batch import Batch, Normalize, partner_order
from spa_jax.training.method import views_of
from spa_jax.training.state import TrainState

DEVICE_BYTES = 2 * 2**30
"""What the images may take up to live on the devices."""

# Streams of the seed's key that steps, which count up from 0, never reach.
_ORDER_STREAM = 2**32 - 2
_PARTNER_ORDER_STREAM = 2**32 - 3

Draw = Callable[[Key[Array, ""]], Int[Array, " N"]]


@runtime_checkable
class Feed(Protocol):
    """Where a step gets its examples from.

    Attributes:
      steps_per_epoch: full batches in an epoch; the rest of a shuffled epoch is left out.
      image_shape: `(H, W, channels)` that the network sees.
      normalize: uint8 images to the network's float32 input.
      num_inputs: arrays that :meth:`batches` yields for each step.
      num_shared_inputs: how many of these, the first, are the same for runs of any seed.
      num_evaluation_inputs: arrays that :meth:`evaluation` yields for each batch.
      split: whether these arrays are cut over the devices already.
      encoded: whether it decodes files.
    """

    steps_per_epoch: int
    image_shape: tuple[int, int, int]
    normalize: Normalize
    num_inputs: int
    num_shared_inputs: int
    num_evaluation_inputs: int
    split: bool
    encoded: bool

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Array, ...]]:
        """The inputs of each step of an epoch, on the devices."""
        ...

    def batch(self, take_part: TakePart, state: TrainState, *inputs: Array) -> Batch:
        """Traced: this view's part of the batch of the state's step."""
        ...

    def evaluation(self, examples: LabelledImages) -> Iterator[tuple[Array, ...]]:
        """The inputs of each evaluation batch, on the devices; every example comes once."""
        ...

    def evaluation_batch(self, take_part: TakePart, number: Array, *inputs: Array) -> Batch:
        """Traced: this view's part of an evaluation batch."""
        ...

    def close(self) -> None:
        """Ends what feeds."""
        ...


class ResidentFeed:
    """A :class:`Feed` whose data stay on every device."""

    num_shared_inputs = 2
    num_evaluation_inputs = 4
    split = False
    encoded = False

    def __init__(self, layout: Layout, config: Config, data: LongTailedDataset) -> None:
        """Places the data; InputError if the images are encoded."""
        self._layout, self._config = layout, config
        self._train = data.train
        images = _arrays(data.train)
        self.steps_per_epoch = len(data.train) // config.batch_size
        self.image_shape = images.shape[1:]
        self.normalize = normalizer(*channel_statistics(images))
        self._arrays = layout.replicate((images, data.train.labels))
        self._views = views_of(config)
        draw = self._make_draw(config.data.sampler, config.data.sampler_power)
        self._orders = [layout.make(self._make_order(_ORDER_STREAM, draw))]
        if self._views.sampler_power is not None:
            draw = self._make_draw("power", self._views.sampler_power)
            self._orders.append(layout.make(self._make_order(_PARTNER_ORDER_STREAM, draw)))
        self.num_inputs = 2 + len(self._orders)
        # With the examples, so that none is freed and its identity given to others.
        self._evaluation: dict[int, tuple[LabelledImages, tuple[Array, ...]]] = {}

    def batches(self, state: TrainState, seed: int, epoch: int) -> Iterator[tuple[Array, ...]]:
        """Images, labels and the epoch's orders, the same for each of its steps."""
        del seed, epoch  # the state knows both
        orders = [order(state.rng, state.step) for order in self._orders]
        inputs = (*self._arrays, *orders)
        for _ in range(self.steps_per_epoch):
            yield inputs

    def batch(self, take_part: TakePart, state: TrainState, *inputs: Array) -> Batch:
        """Traced: looks the state's step up in the orders."""
        images, labels, *orders = inputs
        chosen, *drawn = [order[state.step % self.steps_per_epoch] for order in orders]
        positions = jnp.arange(self._config.batch_size)

        def look_up(examples: Array, places: Array, partner: Batch | None = None) -> Batch:
            own = take_part(examples)
            return Batch(images[own], labels[own], take_part(places), partner=partner)

        if self._views.mix == "none":
            return look_up(chosen, positions)
        if drawn:  # other examples than the batch's, so that their randomness is their own
            partner = look_up(drawn[0], self._config.batch_size + positions)
        else:
            partners = partner_order(state.rng, state.step, self._config.batch_size)
            partner = look_up(chosen[partners], partners)
        return look_up(chosen, positions, partner)

    def evaluation(self, examples: LabelledImages) -> Iterator[tuple[Array, ...]]:
        """Images, labels, order and weights, the same for each batch."""
        if id(examples) not in self._evaluation:
            self._evaluation[id(examples)] = (examples, self._place(examples))
        _, inputs = self._evaluation[id(examples)]
        for _ in range(inputs[2].shape[0]):
            yield inputs

    def evaluation_batch(self, take_part: TakePart, number: Array, *inputs: Array) -> Batch:
        """Traced: looks the batch's number up in the order."""
        images, labels, order, mask = inputs
        chosen = take_part(order[number])
        return Batch(images[chosen], labels[chosen], chosen, take_part(mask[number]))

    def close(self) -> None:
        """Nothing runs."""

    def _place(self, examples: LabelledImages) -> tuple[Array, ...]:
        order, mask = evaluation_order(
            len(examples), self._config.eval_batch_size, self._layout.num_devices
        )
        arrays = self._arrays  # of the training set, which need not be there twice
        if examples is not self._train:
            arrays = self._layout.replicate((_arrays(examples), examples.labels))
        return (*arrays, *self._layout.replicate((order, mask)))

    def _make_order(self, stream: int, draw: Draw) -> Callable[[Key[Array, ""], Array], Array]:
        """A function `(rng, step) -> (steps_per_epoch, batch)` positions of the step's epoch."""
        spe, batch_size = self.steps_per_epoch, self._config.batch_size

        def order(rng: Key[Array, ""], step: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(rng, stream), step // spe)
            return draw(key)[: spe * batch_size].reshape(spe, batch_size)

        return order

    def _make_draw(self, sampler: str, power: float) -> Draw:
        """A function from an epoch's key to as many positions as there are examples."""
        num_examples = len(self._train)
        if sampler == "shuffle":
            return lambda key: jax.random.permutation(key, num_examples)
        counts = np.bincount(self._train.labels)
        by_class = np.argsort(self._train.labels, kind="stable").astype(np.int32)
        first = (np.cumsum(counts) - counts).astype(np.int32)
        chances = class_probabilities(counts.tolist(), sampler, power)
        # Of a class without images the step is empty, so that no draw falls on it.
        steps = np.cumsum(chances)[:-1].astype(np.float32)

        def draw(key: Key[Array, ""]) -> Array:
            class_key, place_key = jax.random.split(key)
            uniform = jax.random.uniform(class_key, (num_examples,))
            labels = jnp.searchsorted(jnp.asarray(steps), uniform, side="right")
            sizes = jnp.asarray(counts.astype(np.int32))[labels]
            places = jax.random.randint(place_key, (num_examples,), 0, sizes)
            return jnp.asarray(by_class)[jnp.asarray(first)[labels] + places]

        return draw


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


def evaluation_batch_size(num_examples: int, batch_size: int, num_devices: int) -> int:
    """No more than there are examples, rounded up to what the devices can share evenly."""
    batch_size = min(batch_size, num_examples)
    return batch_size + -batch_size % num_devices


def _arrays(examples: LabelledImages) -> np.ndarray:
    if not isinstance(examples.images, np.ndarray):
        raise InputError(
            "config.data.feed='device' needs images of one size that are decoded already; these "
            "are JPEG or PNG files of any size: set config.data.feed=stream."
        )
    return examples.images

"""A training batch, and what the network is given of it: augmented, mixed, normalised."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num, UInt8

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.mixing import box_share, cutmix, cutmix_box, mix_coefficient, mixup
from spa_jax.data.augment.normalization import IMAGENET, NORMALIZATIONS, OF_DATA_SET
from spa_jax.data.augment.spatial import augment_one
from spa_jax.data.features import Features
from spa_jax.longtail.losses import mix_targets
from spa_jax.longtail.method import Views
from spa_jax.training.config import RunOptions

Normalize = Callable[[Num[Array, "B ..."]], Float[Array, "B ..."]]

# Streams of a step's key that positions in a batch, which count up from 0, never reach.
_PARTNER_STREAM = 2**32 - 1
_MIX_STREAM = 2**32 - 2
_SECOND_VIEW_STREAM = 2**32 - 3


class Batch(flax.struct.PyTreeNode):
    """Examples, and where each stands in the global batch (its randomness belongs to it).

    Attributes:
      images: `(B, H, W, channels)` uint8, or features `(B, D)`.
      labels: `(B,)` int32.
      positions: `(B,)` int32, place in the global batch.
      mask: `(B,)` float32, 0 for padding; None: every example counts.
      partner: the examples that these are mixed with; None without mixing.
      second_images: like `images`, where the second view is of another crop that was made on the
        host; None: it is made of `images`.
    """

    images: Any
    labels: Any
    positions: Any
    mask: Any = None
    partner: "Batch | None" = None
    second_images: Any = None


class Inputs(flax.struct.PyTreeNode):
    """What the network sees of a batch, and the labels that it stands for.

    Attributes:
      images: `(B, H, W, channels)` float32, normalised; or features `(B, D)`, as they are.
      labels: `(B,)` int32.
      partner_labels: `(B,)` int32, of the examples mixed in; None without mixing.
      share: f32 scalar, the share of `labels` in a mixed image; None without mixing.
      second_images: like `images`, the second view of a method that has two; None otherwise.
      clean_images: like `images`, before mixing, for the class means; None: these are of `images`.
    """

    images: Any
    labels: Any
    partner_labels: Any = None
    share: Any = None
    second_images: Any = None
    clean_images: Any = None

    def over_labels(
        self, function: Callable[[Array, Array], Array], logits: Float[Array, "B C"]
    ) -> Float[Array, " B"]:
        """`function(logits, labels)`, averaged over both labels of a mixed image by share."""
        own = function(logits, self.labels)
        if self.partner_labels is None:
            return own
        return self.share * own + (1.0 - self.share) * function(logits, self.partner_labels)

    def targets(self, num_classes: int) -> Int[Array, " B"] | Float[Array, "B C"]:
        """Labels `(B,)`, or `(B, C)` shares where images are mixed."""
        if self.partner_labels is None:
            return self.labels
        return mix_targets(self.labels, self.partner_labels, self.share, num_classes)


def partner_order(rng: Key[Array, ""], step: Int[Array, ""], batch_size: int) -> Array:
    """A permutation of the global batch: which example each one is mixed with."""
    key = jax.random.fold_in(jax.random.fold_in(rng, step), _PARTNER_STREAM)
    return jax.random.permutation(key, batch_size)


def prepare(
    rng: Key[Array, ""],
    step: Int[Array, ""],
    batch: Batch,
    augment: AugmentOptions,
    views: Views,
    normalize: Normalize,
) -> Inputs:
    """Augments each example with the key of (seed, step, position), and mixes it with its partner.

    One coefficient, and for CutMix one box, serves the whole batch; both belong to (seed, step).
    Features are not augmented, but may be mixed.
    """
    step_key = jax.random.fold_in(rng, step)

    def seen(key: Key[Array, ""], part: Batch, images: Any) -> Float[Array, "B ..."]:
        if images.ndim == 2:
            return normalize(images)

        def one(position: Array, image: Array) -> Array:
            return augment_one(jax.random.fold_in(key, position), image, augment)

        return normalize(jax.vmap(one)(part.positions, images))

    def seen_again(part: Batch) -> Float[Array, "B ..."]:
        key = jax.random.fold_in(step_key, _SECOND_VIEW_STREAM)
        return seen(key, part, part.images if part.second_images is None else part.second_images)

    if batch.partner is None:
        second = seen_again(batch) if views.second else None
        return Inputs(seen(step_key, batch, batch.images), batch.labels, second_images=second)
    parts = (batch, batch.partner)
    own, other = (seen(step_key, part, part.images) for part in parts)
    share_key, box_key = jax.random.split(jax.random.fold_in(step_key, _MIX_STREAM))
    share = mix_coefficient(share_key, augment.mix_alpha)
    inputs = Inputs(
        mixup(own, other, share),
        batch.labels,
        batch.partner.labels,
        share,
        clean_images=own if views.clean_means else None,
    )
    if views.mix == "mixup":
        return inputs
    height, width = own.shape[1:3]
    paste = jax.vmap(cutmix, in_axes=(0, 0, None))
    if views.mix == "glmc":
        box = cutmix_box(box_key, height, width, share, rounding="ceil")
        own, other = map(seen_again, parts)
        return inputs.replace(second_images=paste(own, other, box))
    box = cutmix_box(box_key, height, width, share)
    return inputs.replace(images=paste(own, other, box), share=box_share(box, height, width))


def channel_statistics(images: UInt8[np.ndarray, "N H W K"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel over all pixels, `(channels,)` float64, exactly."""
    values = np.arange(256.0)
    mean, deviation = [], []
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., 0].size
        mean.append(share @ values)
        deviation.append(np.sqrt(share @ (values - mean[-1]) ** 2))
    return np.array(mean), np.array(deviation)


def normalizer(images: Any, normalization: str = OF_DATA_SET) -> Normalize:
    """Scales each channel, of the data set to mean 0 and deviation 1; a constant one is shifted.

    Args:
      images: of the training set. Features are left as they are, in float32.
      normalization: of :class:`spa_jax.data.augment.augment_options.AugmentOptions`; of images that
        are still encoded the data set's is ImageNet's, as the field has it for photographs at
        large.
    """
    if isinstance(images, Features):
        return lambda features: features.astype(jnp.float32)
    if normalization == OF_DATA_SET and isinstance(images, np.ndarray):
        statistics = channel_statistics(images)
    else:
        published = NORMALIZATIONS[IMAGENET if normalization == OF_DATA_SET else normalization]
        statistics = tuple(np.array(part) for part in published)
    mean, deviation = (part.astype(np.float32)[None, None, None] for part in statistics)
    deviation = np.where(deviation > 0, deviation, np.float32(1))

    def normalize(images: UInt8[Array, "B H W K"]) -> Float[Array, "B H W K"]:
        return (images.astype(jnp.float32) - mean) / deviation

    return normalize


def samplers_of(options: RunOptions) -> list[tuple[str, float]]:
    """Name and power of an epoch's sampler, and of one for what is mixed in if drawn anew."""
    power = options.views.sampler_power
    own = (options.data.sampler, options.data.sampler_power)
    return [own] if power is None else [own, ("power", power)]


def evaluation_batch_size(num_examples: int, batch_size: int, num_devices: int) -> int:
    """No more than there are examples, rounded up to what the devices can share evenly."""
    batch_size = min(batch_size, num_examples)
    return batch_size + -batch_size % num_devices

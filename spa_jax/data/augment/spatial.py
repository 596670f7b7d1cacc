"""Augmentations as pure functions of one example's key: images `(H, W, channels)` in and out.

:func:`augment_one` is what happens to one training image on the device.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.mixing import cutmix
from spa_jax.data.augment.policies import autoaugment_cifar, randaugment
from spa_jax.errors import InputError

# Not 0 and 1: folding these in gives the two keys of a split, which crop and flip have.
_POLICY, _CUTOUT = 2, 3


def random_crop(
    key: Key[Array, ""], image: Num[Array, "H W K"], padding: int
) -> Num[Array, "H W K"]:
    """Pads with zeros on every side and cuts a window of the old size at a uniform place.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, any dtype.
      padding: pixels on each side, 0 or more; 0 gives the image back.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones((4, 4, 1)), 0).shape
      (4, 4, 1)
    """
    if padding == 0:
        return image
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_flip(key: Key[Array, ""], image: Num[Array, "H W K"]) -> Num[Array, "H W K"]:
    """Mirrors left and right with probability one half.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, any dtype.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> random_flip(jax.random.key(0), jnp.ones((4, 4, 1))).shape
      (4, 4, 1)
    """
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def cutout(
    key: Key[Array, ""], image: Num[Array, "H W K"], side: int, fill: float = 0
) -> Num[Array, "H W K"]:
    """Blanks out a square whose centre is uniform over the image; what leaves the image is cut off.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, any dtype.
      side: of the square in pixels, 0 or more; 0 gives the image back.
      fill: value of the square in every channel.

    Returns:
      `(H, W, channels)` of the same dtype.

    Raises:
      InputError: a negative side.

    Example:
      >>> int(cutout(jax.random.key(0), jnp.ones((4, 4, 1)), 8).sum())
      0

    Reference:
      DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
      2017.
    """
    if side < 0:
        raise InputError(f"The side of the square must be 0 or more pixels, got {side}.")
    if side == 0:
        return image
    height, width, _ = image.shape
    top, left = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - side // 2
    blank = jnp.full_like(image, fill)
    return cutmix(image, blank, (top, top + side, left, left + side))


def augment_one(
    key: Key[Array, ""], image: Num[Array, "H W K"], options: AugmentOptions
) -> Num[Array, "H W K"]:
    """Augments one image: crop, flip, policy, cutout, those that the options switch on.

    What is switched on draws the same whatever else is.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, uint8 if there is a policy.
      options: what to do; those of streams and of mixing are not used.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> options = AugmentOptions(crop_padding=4, flip=True, cutout=16)
      >>> augment_one(jax.random.key(0), jnp.ones((32, 32, 3), jnp.uint8), options).shape
      (32, 32, 3)
    """
    crop_key, flip_key = jax.random.split(key)
    image = random_crop(crop_key, image, options.crop_padding)
    if options.flip:
        image = random_flip(flip_key, image)
    policy_key = jax.random.fold_in(key, _POLICY)
    if options.policy == "randaugment":
        layers, magnitude = options.randaugment_layers, options.randaugment_magnitude
        image = randaugment(policy_key, image, layers, magnitude)
    elif options.policy == "autoaugment_cifar":
        image = autoaugment_cifar(policy_key, image)
    return cutout(jax.random.fold_in(key, _CUTOUT), image, options.cutout)

"""Augmentations as pure functions of one example's key: images `(H, W, channels)` in and out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

from spa_jax.errors import InputError


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
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    return jnp.where(inside, jnp.asarray(fill, image.dtype), image)

"""Augmentations as pure functions of one example's key: images `(H, W, channels)` in and out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num


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

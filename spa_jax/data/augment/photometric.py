"""PIL's colour operations on uint8 images as JAX functions, equal to PIL bit for bit.

Images are `(H, W, 3)` or `(H, W, 1)` (PIL's modes "RGB" and "L") with values from 0 to 255. Every
function raises InputError for other types and shapes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num, UInt8

from spa_jax.errors import InputError

Image = UInt8[Array, "H W K"]
Amount = float | Num[Array, ""]

_LUMA = np.array([19595, 38470, 7471], np.int32)  # 65536 (0.299, 0.587, 0.114), as PIL rounds them


def invert(image: Image) -> Image:
    """Turns each value v into 255 - v.

    Args:
      image: `(H, W, channels)` uint8.

    Returns:
      An image of the same shape.

    Example:
      >>> print(invert(jnp.array([[[0], [200]]], jnp.uint8))[..., 0])
      [[255  55]]
    """
    check_image(image)
    return 255 - image


def posterize(image: Image, bits: int | Int[Array, ""]) -> Image:
    """Keeps the `bits` most significant bits of each value.

    Args:
      image: `(H, W, channels)` uint8.
      bits: from 1 to 8; 8 gives the image back.

    Returns:
      An image of the same shape.

    Raises:
      InputError: bits out of range; a traced value is not checked.

    Example:
      >>> print(posterize(jnp.array([[[100], [200]]], jnp.uint8), 2)[..., 0])
      [[ 64 192]]
    """
    check_image(image)
    if isinstance(bits, int) and not 1 <= bits <= 8:
        raise InputError(f"bits must be from 1 to 8, got {bits}: 8 keeps every value as it is.")
    return image & jnp.asarray(255 << (8 - bits)).astype(jnp.uint8)


def solarize(image: Image, threshold: Amount) -> Image:
    """Inverts the values that are not below a threshold.

    Args:
      image: `(H, W, channels)` uint8.
      threshold: 0 inverts everything, 256 nothing.

    Returns:
      An image of the same shape.

    Example:
      >>> print(solarize(jnp.array([[[100], [200]]], jnp.uint8), 128)[..., 0])
      [[100  55]]
    """
    check_image(image)
    return jnp.where(image.astype(jnp.float32) < threshold, image, 255 - image)


def autocontrast(image: Image) -> Image:
    r"""Stretches the values of each channel to the whole range.

    .. math:: v \mapsto \lfloor 255 \, (v - v_{\min}) / (v_{\max} - v_{\min}) \rfloor

    A channel of one value stays. In PIL's float64 some integers come out too small and are rounded
    down; so they are here.

    Args:
      image: `(H, W, channels)` uint8.

    Returns:
      An image of the same shape.

    Example:
      >>> print(autocontrast(jnp.array([[[100], [120], [151]]], jnp.uint8))[..., 0])
      [[  0 100 255]]
    """
    check_image(image)
    low, high = (edge.astype(jnp.int32)[:, None] for edge in (image.min((0, 1)), image.max((0, 1))))
    span = jnp.maximum(high - low, 1)
    values = jnp.arange(256)[None]
    scaled = 255 * jnp.clip(values - low, 0, span)
    levels = scaled // span
    part = jnp.minimum(levels * jnp.asarray(np.gcd(255, range(256)))[span] // 255, 31)
    lost = (jnp.asarray(_lost_levels())[low, high] >> part.astype(jnp.uint32)) & 1
    levels = levels - jnp.where(scaled % span == 0, lost.astype(jnp.int32), 0)
    return _look_up(jnp.where(high > low, levels, values), image)


def equalize(image: Image) -> Image:
    r"""Spreads the values of each channel so that equal ranges get about as many pixels.

    .. math::
      v \mapsto \lfloor (\lfloor s / 2 \rfloor + |\{u < v\}|) / s \rfloor, \quad
      s = \lfloor |\{u < v_{\max}\}| / 255 \rfloor

    u runs over the pixels of the channel. A channel with s = 0 stays.

    Args:
      image: `(H, W, channels)` uint8.

    Returns:
      An image of the same shape.

    Example:
      >>> equalize(jnp.full((32, 32, 1), 7, jnp.uint8)).max()
      Array(7, dtype=uint8)
    """
    check_image(image)
    values = jnp.arange(256)[None]
    # Comparisons fuse into one pass; a scatter would be slow on TPUs.
    is_value = image[..., None] == values.astype(jnp.uint8)[None, None]
    counts = jnp.sum(is_value, (0, 1), dtype=jnp.int32)
    below = jnp.cumsum(counts, axis=1) - counts
    brightest = image.max((0, 1)).astype(jnp.int32)[:, None]
    step = jnp.take_along_axis(below, brightest, axis=1) // 255
    levels = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return _look_up(jnp.where(step > 0, levels, values), image)


def color(image: Image, factor: Amount) -> Image:
    """Strengthens or weakens the colours: `blend` with the image in grey.

    Grey by PIL's integer weights of red, green and blue.

    Args:
      image: `(H, W, channels)` uint8; one of 1 channel comes back as it is.
      factor: 0 gives grey, 1 the image, more than 1 stronger colours.

    Returns:
      An image of the same shape.

    Example:
      >>> print(color(jnp.array([[[200, 100, 0]]], jnp.uint8), 0.0))
      [[[118 118 118]]]
    """
    grey = jnp.broadcast_to(_grey(image).astype(jnp.uint8), image.shape)
    return blend(grey, image, factor)


def contrast(image: Image, factor: Amount) -> Image:
    """Strengthens or weakens the contrast: `blend` with the image's mean grey.

    Args:
      image: `(H, W, channels)` uint8.
      factor: 0 gives an even grey, 1 the image, more than 1 a stronger contrast.

    Returns:
      An image of the same shape.

    Example:
      >>> print(contrast(jnp.array([[[100], [200]]], jnp.uint8), 0.5)[..., 0])
      [[125 175]]
    """
    grey = _grey(image)
    mean, rest = jnp.divmod(jnp.sum(grey), grey.size)  # rounded half up
    even = jnp.full_like(image, (mean + (2 * rest >= grey.size)).astype(jnp.uint8))
    return blend(even, image, factor)


def brightness(image: Image, factor: Amount) -> Image:
    """Makes the image brighter or darker: `blend` with black.

    Args:
      image: `(H, W, channels)` uint8.
      factor: 0 gives black, 1 the image, more than 1 a brighter one.

    Returns:
      An image of the same shape.

    Example:
      >>> print(brightness(jnp.array([[[100], [200]]], jnp.uint8), 1.5)[..., 0])
      [[150 255]]
    """
    return blend(jnp.zeros_like(image), image, factor)


def sharpness(image: Image, factor: Amount) -> Image:
    """Makes the image sharper or softer: `blend` with the smoothed image.

    It is smoothed by the 3 by 3 kernel of ones with 5 in its middle; the rim stays.

    Args:
      image: `(H, W, channels)` uint8.
      factor: 0 gives the smoothed image, 1 the image, more than 1 a sharper one.

    Returns:
      An image of the same shape; the outermost pixels stay.

    Example:
      >>> print(sharpness(jnp.full((3, 3, 1), 7, jnp.uint8).at[1, 1].set(137), 0)[1, 1])
      [57]
    """
    check_image(image)
    values = image.astype(jnp.int32)
    padded = jnp.pad(values, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    neighbourhood = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (2 * (neighbourhood + 4 * values) + 13) // 26  # nearest; 13 is odd: no ties
    interior = np.zeros((*image.shape[:2], 1), bool)
    interior[1:-1, 1:-1] = True
    return blend(jnp.where(interior, smooth.astype(jnp.uint8), image), image, factor)


def blend(degenerate: Image, image: Image, factor: Amount) -> Image:
    r"""Goes from one image to another, or beyond it, as PIL's `Image.blend` does.

    .. math:: \lfloor d + f \, (v - d) \rfloor, \text{ clipped to } [0, 255], \text{ in float32}

    Args:
      degenerate: `(H, W, channels)` uint8, d.
      image: `(H, W, channels)` uint8, v.
      factor: f, of any size and sign.

    Returns:
      An image of the same shape.

    Example:
      >>> grey, white = jnp.full((1, 1, 1), 100, jnp.uint8), jnp.full((1, 1, 1), 255, jnp.uint8)
      >>> blend(grey, white, 0.25).item()
      138
    """
    check_image(image)
    start = degenerate.astype(jnp.float32)
    change = jnp.asarray(factor, jnp.float32) * (image.astype(jnp.float32) - start)
    # The inner bounds change nothing. They keep compilers from fusing product and sum, which would
    # round once where PIL rounds twice.
    return jnp.clip(start + jnp.clip(change, -512.0, 512.0), 0.0, 255.0).astype(jnp.uint8)


def check_image(image: Array) -> None:
    """Raises InputError unless an image is `(H, W, channels)` uint8 with 1 or 3 channels."""
    if image.dtype != jnp.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise InputError(
            "Colour operations and policies work on uint8 images of shape (H, W, 3) or (H, W, 1), "
            f"got {image.dtype} of shape {image.shape}. Apply them one image at a time (jax.vmap) "
            "and before the images are normalised."
        )


def _grey(image: Image) -> Int[Array, "H W 1"]:
    check_image(image)
    values = image.astype(jnp.int32)
    if image.shape[2] == 1:
        return values
    return (jnp.sum(values * _LUMA[None, None], axis=2, keepdims=True) + 0x8000) >> 16


def _look_up(table: Int[Array, "K 256"], image: Image) -> Image:
    return jax.vmap(lambda row, channel: row[channel], (0, 2), 2)(table.astype(jnp.uint8), image)


@functools.cache
def _lost_levels() -> np.ndarray:
    """Where PIL's autocontrast rounds an integer down: bit j of the word of (darkest, brightest) is
    for the value at j / gcd(255, span) of the way between them."""
    words = np.zeros((256, 256), np.uint32)
    for span in range(1, 256):
        parts = int(np.gcd(255, span))
        part = np.arange(1, min(parts, 31) + 1)  # none is lost at a later part
        low = np.arange(256 - span)
        scale = 255.0 / span
        level = (low[:, None] + part * span // parts) * scale + (-low * scale)[:, None]
        words[low, low + span] = np.sum((level < 255 * part // parts) << part, axis=1)
    return words

"""PIL's affine operations with nearest sampling, as JAX functions of one image.

An output pixel takes the value of the input pixel that its centre is mapped to; what falls outside
gets the fill value. Coordinates are 32-bit fixed point with 16 bits after the point, as in PIL, so
that the pixels are PIL's too. Amounts that are Python numbers are computed with in float64, as PIL
does; traced ones in float32, which can change the last bit of the matrix, and with it a pixel now
and then.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Num

Image = Num[Array, "H W K"]
Amount = float | Num[Array, ""]
Matrix = Int32[Array, "6"] | Int32[np.ndarray, "6"]


def shear_x(image: Image, shear: Amount, fill: Amount = 0) -> Image:
    """Shifts each row sideways in proportion to its height: samples at (x + shear y, y).

    Args:
      image: `(H, W, channels)`, any dtype.
      shear: pixels to the left for each row further down.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> print(shear_x(jnp.arange(1, 10).reshape(3, 3, 1), 1.0)[..., 0])
      [[2 3 0]
       [6 0 0]
       [0 0 0]]
    """
    return warp(image, shear_x_matrix(shear), fill)


def shear_y(image: Image, shear: Amount, fill: Amount = 0) -> Image:
    """Shifts each column up or down in proportion to its place: samples at (x, y + shear x).

    Args:
      image: `(H, W, channels)`, any dtype.
      shear: pixels upwards for each column further right.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> print(shear_y(jnp.arange(1, 10).reshape(3, 3, 1), 1.0)[..., 0])
      [[4 8 0]
       [7 0 0]
       [0 0 0]]
    """
    return warp(image, shear_y_matrix(shear), fill)


def translate_x(image: Image, pixels: Amount, fill: Amount = 0) -> Image:
    """Moves the image to the left: samples at (x + pixels, y).

    Args:
      image: `(H, W, channels)`, any dtype.
      pixels: how far, rounded half up; negative to the right.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> print(translate_x(jnp.arange(1, 4).reshape(1, 3, 1), 1)[..., 0])
      [[2 3 0]]
    """
    return warp(image, translate_matrix(pixels, 0), fill)


def translate_y(image: Image, pixels: Amount, fill: Amount = 0) -> Image:
    """Moves the image up: samples at (x, y + pixels).

    Args:
      image: `(H, W, channels)`, any dtype.
      pixels: how far, rounded half up; negative downwards.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> print(translate_y(jnp.arange(1, 4).reshape(3, 1, 1), -1)[:, 0, 0])
      [0 1 2]
    """
    return warp(image, translate_matrix(0, pixels), fill)


def rotate(image: Image, degrees: Amount, fill: Amount = 0) -> Image:
    """Turns the image counterclockwise about its centre, keeping its size.

    Args:
      image: `(H, W, channels)`, any dtype.
      degrees: the angle.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> print(rotate(jnp.arange(1, 5).reshape(2, 2, 1), 90)[..., 0])
      [[2 4]
       [1 3]]
    """
    return warp(image, rotate_matrix(degrees, *image.shape[:2]), fill)


def warp(image: Image, matrix: Matrix, fill: Amount = 0) -> Image:
    """Samples an image at the nearest pixels of an affine map of the output's coordinates.

    Args:
      image: `(H, W, channels)`, any dtype.
      matrix: `(6,)` int32 as `fixed_point` gives it.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.
    """
    height, width, _ = image.shape
    across, down = jnp.arange(width)[None], jnp.arange(height)[:, None]
    column = (matrix[0] * across + matrix[1] * down + matrix[2]) >> 16
    row = (matrix[3] * across + matrix[4] * down + matrix[5]) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    sampled = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], sampled, jnp.asarray(fill).astype(image.dtype))


def shear_x_matrix(shear: Amount) -> Matrix:
    """The matrix of `shear_x`."""
    return fixed_point(1.0, shear, 0.0, 0.0, 1.0, 0.0)


def shear_y_matrix(shear: Amount) -> Matrix:
    """The matrix of `shear_y`."""
    return fixed_point(1.0, 0.0, 0.0, shear, 1.0, 0.0)


def translate_matrix(right: Amount, down: Amount) -> Matrix:
    """The matrix of a translation; PIL samples translations at whole pixels."""
    module = _array_module(right, down)
    far = 1 << 14  # no image is as wide, and fixed point reaches twice as far
    shifts = (module.clip(module.floor(shift + 0.5), -far, far) for shift in (right, down))
    shift_x, shift_y = shifts
    return fixed_point(1.0, 0.0, shift_x, 0.0, 1.0, shift_y)


def rotate_matrix(degrees: Amount, height: int, width: int) -> Matrix:
    """The matrix of `rotate` for images of this size."""
    module = _array_module(degrees)
    angle = -module.radians(module.mod(degrees, 360.0))
    cos, sin = module.cos(angle), module.sin(angle)
    x, y = width / 2, height / 2
    return fixed_point(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def fixed_point(*matrix: Amount) -> Matrix:
    """PIL's fixed-point form of the map (x, y) -> (a x + b y + c, d x + e y + f).

    Args:
      *matrix: a, b, c, d, e, f; every coordinate that it gives must stay below 32,768.

    Returns:
      `(6,)` int32 in units of 1/65536, where c and f are for the centre of the first pixel.

    Example:
      >>> fixed_point(1.0, 0.25, 0.0, 0.0, 1.0, 0.0).tolist()
      [65536, 16384, 40960, 0, 65536, 32768]
    """
    a, b, c, d, e, f = matrix
    module = _array_module(*matrix)
    values = module.stack([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5])
    return module.floor(values * 65536.0 + 0.5).astype(module.int32)


def _array_module(*values: Amount) -> Any:
    """NumPy for numbers, which it computes with in float64; JAX if one is an array."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np

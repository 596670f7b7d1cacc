"""PIL's affine operations with nearest sampling, as JAX functions of one image.

An output pixel takes the value of the input pixel that its centre is mapped to; what falls outside
gets the fill value. Coordinates are 32-bit fixed point with 16 bits after the point, as in PIL, so
that the pixels are PIL's too.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Num


def warp(
    image: Num[Array, "H W K"],
    matrix: Int32[Array, "6"] | Int32[np.ndarray, "6"],
    fill: float | Num[Array, ""] = 0,
) -> Num[Array, "H W K"]:
    """Samples an image at the nearest pixels of an affine map of the output's coordinates.

    Args:
      image: `(H, W, channels)`, any dtype.
      matrix: `(6,)` int32 as `fixed_point` gives it.
      fill: value of the pixels that come from outside.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> shear = fixed_point(1.0, 1.0, 0.0, 0.0, 1.0, 0.0)  # samples at (x + y, y)
      >>> print(warp(jnp.arange(1, 10).reshape(3, 3, 1), shear)[..., 0])
      [[2 3 0]
       [6 0 0]
       [0 0 0]]
    """
    height, width, _ = image.shape
    across, down = jnp.arange(width)[None], jnp.arange(height)[:, None]
    column = (matrix[0] * across + matrix[1] * down + matrix[2]) >> 16
    row = (matrix[3] * across + matrix[4] * down + matrix[5]) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    sampled = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], sampled, jnp.asarray(fill).astype(image.dtype))


def rotate_matrix(degrees: float, height: int, width: int) -> Int32[np.ndarray, "6"]:
    """The matrix of a turn counterclockwise about the centre of images of this size.

    Example:
      >>> print(warp(jnp.arange(1, 5).reshape(2, 2, 1), rotate_matrix(90, 2, 2))[..., 0])
      [[2 4]
       [1 3]]
    """
    angle = -np.radians(np.mod(degrees, 360.0))
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = width / 2, height / 2
    return fixed_point(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def fixed_point(*matrix: float) -> Int32[np.ndarray, "6"]:
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
    values = np.array([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5])
    return np.floor(values * 65536.0 + 0.5).astype(np.int32)

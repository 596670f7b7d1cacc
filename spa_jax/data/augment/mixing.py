"""Mixup and CutMix of an image with its partner, as JAX functions of one pair's key."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from spa_jax.errors import InputError

Box = tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]


def mix_coefficient(key: Key[Array, ""], alpha: float | Num[Array, ""]) -> Float[Array, ""]:
    r"""Draws how much of the image stays, :math:`\lambda \sim \text{Beta}(\alpha, \alpha)`.

    Args:
      key: of the pair, or of the batch if one coefficient is for all.
      alpha: above 0; 1 is uniform, less favours coefficients near 0 and 1.

    Returns:
      float32 scalar in [0, 1].

    Raises:
      InputError: alpha is not a positive number; a traced one is not checked.

    Example:
      >>> bool(0 <= mix_coefficient(jax.random.key(0), 0.2) <= 1)
      True
    """
    if isinstance(alpha, int | float) and not 0 < alpha < np.inf:
        raise InputError(
            f"alpha must be a positive number, got {alpha}: lambda is drawn from "
            "Beta(alpha, alpha). To mix nothing, set config.augment.mix to none."
        )
    lam = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return jnp.clip(lam, 0.0, 1.0)


def mixup(
    image: Float[Array, "*shape"], partner: Float[Array, "*shape"], lam: float | Float[Array, ""]
) -> Float[Array, "*shape"]:
    r"""The convex combination of two images, or of their one-hot labels.

    .. math:: \lambda x + (1 - \lambda) x'

    Args:
      image: floating-point array, x.
      partner: of the same shape, x'.
      lam: from 0 to 1.

    Returns:
      An array of the same shape.

    Example:
      >>> print(mixup(jnp.array([0.0, 4.0]), jnp.array([8.0, 8.0]), 0.75))
      [2. 5.]

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    return lam * image + (1.0 - lam) * partner


def cutmix_box(
    key: Key[Array, ""],
    height: int,
    width: int,
    lam: float | Float[Array, ""],
    rounding: str = "floor",
) -> Box:
    r"""Draws the box that the partner fills: about the share 1 - lambda of the image.

    Its sides are :math:`r \sqrt{1 - \lambda}` of the image's, rounded; half of that, rounded down,
    lies on each side of a centre that is uniform over the pixels. What leaves the image is cut off.

    Args:
      key: of the pair.
      height: of the images.
      width: of the images.
      lam: from 0 to 1.
      rounding: "floor" as in CutMix, or "ceil" as in GLMC.

    Returns:
      top, bottom, left and right, int32 scalars; bottom and right are the first outside.

    Raises:
      InputError: another rounding.

    Example:
      >>> top, bottom, left, right = cutmix_box(jax.random.key(0), 32, 32, lam=1.0)
      >>> bool(top == bottom)
      True

    Reference:
      Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
      Features", ICCV 2019. Du et al., "Global and Local Mixture Consistency Cumulative Learning for
      Long-tailed Visual Recognitions", CVPR 2023.
    """
    rounded = {"floor": jnp.floor, "ceil": jnp.ceil}
    if rounding not in rounded:
        raise InputError(f'rounding must be "floor" (CutMix) or "ceil" (GLMC), got {rounding!r}.')
    size = np.array([height, width], np.int32)
    ratio = jnp.sqrt(jnp.asarray(1.0 - lam, jnp.float32))
    half = rounded[rounding](size * ratio).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (2,), 0, size)
    (top, left), (bottom, right) = (jnp.clip(centre + by, 0, size) for by in (-half, half))
    return top, bottom, left, right


def cutmix(
    image: Num[Array, "H W K"], partner: Num[Array, "H W K"], box: Box
) -> Num[Array, "H W K"]:
    """Fills a box of an image with the same box of its partner.

    Args:
      image: `(H, W, channels)`, uint8 or float.
      partner: of the same shape and dtype.
      box: top, bottom, left and right, as `cutmix_box` gives them.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> box = tuple(map(jnp.int32, (0, 1, 1, 3)))
      >>> print(cutmix(jnp.zeros((2, 3, 1)), jnp.ones((2, 3, 1)), box)[..., 0])
      [[0. 1. 1.]
       [0. 0. 0.]]
    """
    top, bottom, left, right = box
    height, width, _ = image.shape
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return jnp.where(inside, partner, image)


def box_share(box: Box, height: int, width: int) -> Float[Array, ""]:
    r"""The coefficient that a box really has, after rounding and cutting off.

    .. math:: \lambda = 1 - \frac{\text{pixels in the box}}{H W}

    Args:
      box: top, bottom, left and right.
      height: H of the images.
      width: W of the images.

    Returns:
      float32 scalar in [0, 1], the share of the image that stays; it weights the image's label.

    Example:
      >>> box_share(tuple(map(jnp.int32, (0, 1, 1, 3))), 2, 4).item()
      0.75
    """
    top, bottom, left, right = box
    return 1.0 - ((bottom - top) * (right - left)).astype(jnp.float32) / (height * width)

"""Augmentation on the host, one example at a time, for images that are decoded as they are used."""

import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.stream.decode import Box, decode_crop

_CROP_ATTEMPTS = 10
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def train_image(
    generator: np.random.Generator, data: bytes | np.ndarray, name: str, options: AugmentOptions
) -> np.ndarray:
    """One training example: random-resized crop, colour jitter, grey, blur.

    Args:
      generator: the example's own.
      data: a JPEG or PNG file; or `(H, W, channels)` uint8 with 1 or 3 channels, which is not
        cropped.
      name: of the image, for errors.
      options: what to do.

    Returns:
      `(image_size, image_size, 3)` uint8; of an array `(H, W, 3)`.

    Raises:
      InputError: an image that cannot be decoded.
    """
    scale = (options.min_area, 1.0)
    choose_box = functools.partial(random_resized_crop_box, generator, scale=scale)
    image = _open(data, name, choose_box, options.image_size)
    image = color_jitter(generator, image, options.color_jitter)
    image = random_grey(generator, image, options.grey)
    return np.asarray(gaussian_blur(generator, image, options.blur))


def test_image(data: bytes | np.ndarray, name: str, options: AugmentOptions) -> np.ndarray:
    """One test example: the centre, nothing random.

    Args:
      data: a JPEG or PNG file; or `(H, W, channels)` uint8 with 1 or 3 channels, which is not
        cropped.
      name: of the image, for errors.
      options: `resize` and `image_size` are used.

    Returns:
      `(image_size, image_size, 3)` uint8; of an array `(H, W, 3)`.

    Raises:
      InputError: an image that cannot be decoded.
    """
    size = options.image_size
    choose_box = functools.partial(center_crop_box, resize=options.resize, crop=size)
    return np.asarray(_open(data, name, choose_box, size))


# Or pytest takes it for a test wherever it is imported.
test_image.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def random_resized_crop_box(
    generator: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random box of random area and aspect ratio, as the Inception networks were trained with.

    The share of the area is uniform in `scale`, the logarithm of width / height uniform in that of
    `ratio`. A box that does not fit is drawn anew, ten times at most; then it is the largest
    central box whose ratio is in range.

    Args:
      generator: the example's own.
      height: of the image.
      width: of the image.
      scale: least and greatest share of the image's area.
      ratio: least and greatest width / height.

    Returns:
      The box, in whole pixels, within the image.

    Example:
      >>> box = random_resized_crop_box(np.random.default_rng(0), height=60, width=80)
      >>> 0 < box.height <= 60 and 0 < box.width <= 80
      True

    Reference:
      Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(low, high))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = generator.integers(0, height - box_height, endpoint=True)
            left = generator.integers(0, width - box_width, endpoint=True)
            return Box(int(top), int(left), box_height, box_width)
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def center_crop_box(height: int, width: int, resize: int = 256, crop: int = 224) -> Box:
    """The square that remains if the shorter side is resized to `resize` and the centre is cut out.

    Args:
      height: of the image.
      width: of the image.
      resize: pixels of the shorter side.
      crop: pixels on each side of the cut.

    Returns:
      The box in the image's own pixels, fractions included.

    Example:
      >>> center_crop_box(512, 600)
      Box(top=32.0, left=76.0, height=448.0, width=448.0)
    """
    side = min(height, width) * crop / resize
    return Box((height - side) / 2, (width - side) / 2, side, side)


def color_jitter(
    generator: np.random.Generator, image: Image.Image, strength: float
) -> Image.Image:
    r"""Changes brightness, contrast and saturation by random factors, in random order.

    .. math:: x \leftarrow clip(f x + (1 - f) y), \quad f \sim U[\max(0, 1 - s), 1 + s]

    where y is black for brightness, the mean grey of the image for contrast and each pixel's grey
    for saturation.

    Args:
      generator: the example's own.
      image: RGB.
      strength: s, 0 or more; 0 changes nothing.

    Returns:
      An RGB image.
    """
    if strength > 0:
        for i in generator.permutation(len(_ENHANCERS)):
            factor = generator.uniform(max(0.0, 1 - strength), 1 + strength)
            image = _ENHANCERS[i](image).enhance(factor)
    return image


def random_grey(
    generator: np.random.Generator, image: Image.Image, probability: float
) -> Image.Image:
    """Replaces the colours by grey (ITU-R 601 luma), three times the same, with a probability."""
    if probability > 0 and generator.random() < probability:
        return image.convert("L").convert("RGB")
    return image


def gaussian_blur(
    generator: np.random.Generator, image: Image.Image, probability: float
) -> Image.Image:
    """Blurs with a probability; the deviation is uniform from 0.1 to 2 pixels of the output."""
    if probability > 0 and generator.random() < probability:
        return image.filter(ImageFilter.GaussianBlur(generator.uniform(0.1, 2.0)))
    return image


def _open(
    data: bytes | np.ndarray, name: str, choose_box: Callable[[int, int], Box], size: int
) -> Image.Image:
    """The box of a file's image; an array's image as it is, in RGB."""
    if isinstance(data, bytes):
        return decode_crop(data, name, choose_box, size)
    grey = data.shape[-1] == 1
    return Image.fromarray(data[..., 0] if grey else data).convert("RGB")

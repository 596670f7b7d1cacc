"""JPEG and PNG bytes to RGB pixels, cropped and resized, at a reduced scale where that suffices."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from spa_jax.errors import InputError, one_line

_FORMATS = ("JPEG", "PNG")
# Non-JPEG images are averaged by whole factors first, so far that bilinear resizing by at least
# this factor remains.
_REDUCING_GAP = 3.0


class Box(NamedTuple):
    """A rectangle within an image, in pixels of the whole image."""

    top: float
    left: float
    height: float
    width: float


def decode_crop(
    data: bytes, name: str, choose_box: Callable[[int, int], Box], size: int
) -> Image.Image:
    r"""Decodes one image and resizes a box of it to a square.

    The box is chosen from the size in the header, before anything is decoded. A JPEG is then
    decoded at 1/2, 1/4 or 1/8 of its scale, which skips the finest frequencies of its cosine
    transform, if the box still has at least the output's size:

    .. math:: r = \max \{r \in \{1, 2, 4, 8\} : \min(h, w) / r \ge size\}

    Args:
      data: a JPEG or PNG file: RGB, grey, CMYK or palette, 8 or 16 bit. Transparency is dropped,
        and an orientation in the EXIF data is not applied, as usual for ImageNet.
      name: of the image, for the error.
      choose_box: `(height, width) -> box`.
      size: pixels on each side of the output.

    Returns:
      An RGB image, resized bilinearly (with antialiasing).

    Raises:
      InputError: broken data, or another format; the message names the image.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("L", (40, 30), 7).save(file, "PNG")
      >>> decode_crop(file.getvalue(), "seven", lambda h, w: Box(0, 0, h, w), 8).getpixel((0, 0))
      (7, 7, 7)
    """
    with _broken_image(name):
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    full = image.size
    box = choose_box(image.height, image.width)
    spare = max(1, min(box.width, box.height) / size)
    reduction = max(factor for factor in (1, 2, 4, 8) if factor <= spare)
    with _broken_image(name):
        image.draft(None, (full[0] // reduction, full[1] // reduction))
        image.load()
        if image.size == full:  # formats other than JPEG ignore the draft
            reduction = 1
        image = _to_rgb(image)
    top, left, height, width = (side / reduction for side in box)
    corners = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize((size, size), Image.Resampling.BILINEAR, corners, _REDUCING_GAP)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert("RGB")


@contextlib.contextmanager
def _broken_image(name: str) -> Iterator[None]:
    """Turns what Pillow raises on a broken file into an InputError."""
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a JPEG or PNG file, or its header is broken: fetch it again, convert "
            "it, or take it out of the data set."
        ) from error
    except Exception as error:  # a broken file can make Pillow raise nearly anything
        raise InputError(
            f"{name} cannot be decoded ({one_line(error)}): fetch it again, or take "
            "it out of the data set."
        ) from error

"""MNIST's idx format, gzipped or not, and long-tailed Fashion-MNIST read from such files."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source, numbered_classes
from spa_jax.errors import InputError

_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
CLASS_NAMES = {"mnist": tuple("0123456789"), "fashion_mnist": tuple(_CLOTHES.split(", "))}
FASHION_MNIST_HELP = (
    "On Debian and Ubuntu: `apt-get install dataset-fashion-mnist`, which puts them in "
    "/usr/share/datasets/fashion-mnist; elsewhere download them from the data set's page "
    "(github.com/zalandoresearch/fashion-mnist) and set config.data.folder"
)

_UNSIGNED_BYTES = b"\0\0\x08"


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file of unsigned bytes; a name that ends in `.gz` is unzipped on the way.

    The format: two zero bytes, the type (0x08 for unsigned bytes), the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the values in row-major order.

    Args:
      path: the file.

    Returns:
      uint8 array of the shape that the header states.

    Raises:
      InputError: wrong magic number, a truncated file, bytes left over, or a broken gzip stream.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({error}): it was probably cut off while it was "
            "downloaded; fetch it again."
        ) from error
    if content[:3] != _UNSIGNED_BYTES or len(content) < 4:
        raise InputError(
            f"{path} is not an idx file of unsigned bytes: it begins with 0x{content[:4].hex()}, "
            "expected 0x000008 and the number of dimensions. Check that it is the right file."
        )
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise InputError(f"{path} is cut off within its header; fetch it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + math.prod(shape)
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "longer than its header says"
        raise InputError(
            f"{path} is {what}: shape {shape} takes {expected} bytes, the file has {len(content)}. "
            "Fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_images_and_labels(folder: Path, part: str) -> LabelledImages:
    """Reads `<part>-images-idx3-ubyte` and `<part>-labels-idx1-ubyte`, each with or without `.gz`.

    Args:
      folder: where the files are.
      part: "train" or "t10k".

    Returns:
      The examples, images `(N, H, W, 1)`.

    Raises:
      InputError: a missing or broken file, wrong dimensions, or counts that do not agree.
    """
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    return LabelledImages(images[..., None], read_idx(labels_path), origin=str(labels_path))


def read_idx_folder(name: str, folder: Path) -> Source:
    """Reads MNIST, Fashion-MNIST or another data set of the same four files.

    Args:
      name: the data set's; "fashion_mnist" has class names, others are numbered.
      folder: with the four idx files, gzipped or not.

    Returns:
      The data set in the files' order, images `(N, H, W, 1)`.

    Raises:
      InputError: a missing or broken file.

    Reference:
      Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
      Learning Algorithms", 2017.
    """
    train, test = (read_images_and_labels(folder, part) for part in ("train", "t10k"))
    return Source(name, train, test, CLASS_NAMES.get(name) or numbered_classes(train), "official")


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder} holds neither {name} nor {name}.gz. {FASHION_MNIST_HELP}.")

"""MNIST's idx format, gzipped or not, and long-tailed Fashion-MNIST read from such files."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.errors import InputError

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_MNIST_HELP = (
    "On Debian and Ubuntu: `apt-get install dataset-fashion-mnist`, which puts them in "
    "/usr/share/datasets/fashion-mnist; elsewhere download them from the data set's page "
    "(github.com/zalandoresearch/fashion-mnist) and set config.data.folder"
)

_UNSIGNED_BYTE = 0x08


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
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
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


def read_images_and_labels(folder: Path, part: str, num_classes: int = 10) -> LabelledImages:
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
    labels = read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise InputError(
            f"The {part} files in {folder} hold images of shape {images.shape} and labels of shape "
            f"{labels.shape}; expected (N, height, width) and (N,) with the same N. Fetch both "
            "again."
        )
    if labels.size and labels.max() >= num_classes:
        raise InputError(
            f"{labels_path} holds the label {labels.max()}, but labels must be in "
            f"[0, {num_classes}): check that it is the right file."
        )
    return LabelledImages(images[..., None], labels.astype(np.int32))


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds an idx file of MNIST's names."""
    return any(
        (folder / f"{part}-images-idx3-ubyte{suffix}").is_file()
        for part in ("train", "t10k")
        for suffix in ("", ".gz")
    )


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
    num_classes = 10 if name in ("mnist", "fashion_mnist") else 256
    train = read_images_and_labels(folder, "train", num_classes)
    test = read_images_and_labels(folder, "t10k", num_classes)
    if not len(train):
        raise InputError(f"The training files in {folder} hold no image: fetch them again.")
    numbered = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    names = FASHION_MNIST_CLASSES if name == "fashion_mnist" else numbered
    return Source(name, train, test, names, order="official")


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder} holds neither {name} nor {name}.gz. {FASHION_MNIST_HELP}.")

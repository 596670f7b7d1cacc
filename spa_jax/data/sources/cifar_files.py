"""CIFAR-10 and CIFAR-100 from the official files: the pickled layout and the binary one."""

import dataclasses
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.errors import InputError

CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"

# MD5 of the whole files, as published.
PICKLED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
# No sums of the binary files are published: these are of their content, one byte a (fine) label,
# and 3,072 bytes an image, planes of red, green and blue.
LABELS_SHA256 = {
    "data_batch_1.bin": "d829dbdf32167c9d7b3687cee66d92d80d46c441308b5aca0d11e8b69e27dac9",
    "data_batch_2.bin": "5d18f7371ed35ea9ade77952fe958b0660a45cd6c8b8a8970030f21612cfd7e3",
    "data_batch_3.bin": "32cf77b0ee2e790b1c4384d2d82e42dc1571b87e67f6da8f444b2725b2973f65",
    "data_batch_4.bin": "d2815e3f8f656272864920fc0edde56b04ec9cf81bf397c0dd3069f4aea51aeb",
    "data_batch_5.bin": "2ddf3ab27d5d04409c94ce7b56849c243129c10de1058ae0bfe14c77e934800c",
    "test_batch.bin": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    "train.bin": "9f11b9f97aad759ba6df0a33e3218b01d8deaf4ed3a14aa1185d69b9ad7ebcb3",
    "test.bin": "4dad7d09c7c97d33f6cb928d705cf4196221316fd6e31bdd978a08ed9103ee0b",
}
IMAGES_SHA256 = {
    "train.bin": "de64658905c6b161606e3649ddafce7cf86c7634a0cf9116d518e64ef46a33c5",
    "test.bin": "83c56492b2c11211ad1bb2dbd4f2eef4170a0441e41a41f3039c3144b1f5a511",
}

_IMAGE_BYTES = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One official form of a data set; `label_fields`: the classes of each of its labels."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_fields: tuple[int, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)

    def key(self, name: str) -> bytes:
        """A pickle's key: CIFAR-100 has coarse and fine labels, CIFAR-10 one kind."""
        return (f"fine_{name}" if self.label_fields == (100,) else name).encode()


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARIES = tuple(f"{batch}.bin" for batch in _BATCHES)
# The pickled layout comes first: whole-file sums are published for it.
_LAYOUTS = {
    "cifar10": (
        _Layout("cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", (10,)),
        _Layout("cifar-10-batches-bin", _BINARIES, "test_batch.bin", "batches.meta.txt", (10,)),
    ),
    "cifar100": (
        _Layout("cifar-100-python", ("train",), "test", "meta", (100,)),
        _Layout("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", (20, 100)),
    ),
}


def is_cifar_folder(folder: Path) -> bool:
    """Whether any official CIFAR file is in a folder or in its official subfolder."""
    return any(_present(name, folder) for name in _LAYOUTS)


def read_cifar(name: str, folder: Path, verify: bool = True) -> Source:
    """Reads the official files, pickled ("python version") or binary, of CIFAR-10 or CIFAR-100.

    They are looked for in the folder itself and in the subfolder that the official archive makes
    (`cifar-10-batches-py`, `cifar-10-batches-bin`, `cifar-100-python`, `cifar-100-binary`). The
    first complete set is read, pickled before binary. The file with the class names
    (`batches.meta`, `batches.meta.txt`, `meta`, `fine_label_names.txt`) belongs to the set.

    With `verify`, pickled files must have the published MD5 sums. For binary files, which have
    none, the labels must be the official ones in the official order, and for CIFAR-100 the images
    too. Pickles are read without running any code of theirs: only NumPy arrays of numbers and
    plain containers are admitted.

    Args:
      name: "cifar10" or "cifar100".
      folder: where the files, or the unpacked archive's folder, are.
      verify: check the sums; False admits changed or shortened files.

    Returns:
      The data set in official order: images `(N, 32, 32, 3)`, fine labels, the files' class names.

    Raises:
      InputError: another name, a missing, cut-off, changed or unsafe file, or wrong content.

    Reference:
      Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if name not in _LAYOUTS:
        raise InputError(f'The CIFAR data sets are "cifar10" and "cifar100", got "{name}".')
    layout, place = _find(name, folder)
    read = _read_binary if layout.meta.endswith(".txt") else _read_pickled
    parts = [read(place / file, layout, verify) for file in (*layout.train, layout.test)]
    train, test = (
        LabelledImages(
            np.concatenate([np.asarray(part.images) for part in of_part])
            .transpose(0, 2, 3, 1)
            .copy(),
            np.concatenate([part.labels for part in of_part]),
            origin=str(place),
        )
        for of_part in (parts[:-1], parts[-1:])
    )
    class_names = _read_class_names(place / layout.meta, layout, verify)
    return Source(name, train, test, class_names, "official")


def _present(name: str, folder: Path) -> list[tuple[list[str], _Layout, Path]]:
    """The layouts of which a place holds a file or more, after the files that it lacks."""
    found = (
        ([file for file in layout.files if not (place / file).is_file()], layout, place)
        for layout in _LAYOUTS[name]
        for place in (folder, folder / layout.folder)
    )
    return [entry for entry in found if len(entry[0]) < len(entry[1].files)]


def _find(name: str, folder: Path) -> tuple[_Layout, Path]:
    """The first complete layout and where it is."""
    found = _present(name, folder)
    if not found:
        others = [other for other in _LAYOUTS if other != name and _present(other, folder)]
        hint = f"; it holds files of {others[0]}, so check config.data.name" if others else ""
        forms = " or ".join(f"{layout.files[0]}, ..., {layout.meta}" for layout in _LAYOUTS[name])
        raise InputError(
            f"{folder} holds none of the official files of {name} ({forms}){hint}. Fetch the "
            f"archive from {CIFAR_PAGE}, unpack it and set config.data.folder to where it is."
        )
    missing, layout, place = min(found, key=lambda entry: len(entry[0]))
    if missing:
        raise InputError(
            f"{place} lacks {', '.join(missing)} of the {len(layout.files)} official files of "
            f"{name}: fetch the archive again from {CIFAR_PAGE} and unpack all of it there."
        )
    return layout, place


def _read_binary(path: Path, layout: _Layout, verify: bool) -> LabelledImages:
    """Images `(N, 3, 32, 32)` and labels, of records of one byte a label field, then the image."""
    content = path.read_bytes()
    fields = len(layout.label_fields)
    record = fields + _IMAGE_BYTES
    if not content or len(content) % record:
        raise _broken(path, f"has {len(content)} bytes, expected records of {record}")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    for position, num_classes in enumerate(layout.label_fields):
        _check_range(path, records[:, position], num_classes)
    images, labels = records[:, fields:], records[:, fields - 1]
    if verify:
        _check_sum(path, "labels", "sha256", LABELS_SHA256, labels.tobytes())
        if path.name in IMAGES_SHA256:
            _check_sum(path, "images", "sha256", IMAGES_SHA256, images.tobytes())
    return LabelledImages(images.reshape(-1, 3, 32, 32), labels, origin=str(path))


def _read_pickled(path: Path, layout: _Layout, verify: bool) -> LabelledImages:
    """The same of a dictionary with an array `(N, 3072)` and a list of labels."""
    images, labels = _unpickle(path, verify, b"data", layout.key("labels"))
    if not isinstance(images, np.ndarray):
        raise _broken(path, f"holds data of {type(images).__name__}, expected an array")
    if images.shape[1:] != (_IMAGE_BYTES,) or not len(images):
        raise _broken(path, f"has data of shape {images.shape}, expected (N, {_IMAGE_BYTES})")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _broken(path, "has labels that are no list of integers")
    _check_range(path, np.array(labels or [0]), layout.label_fields[-1])
    return LabelledImages(images.reshape(-1, 3, 32, 32), np.array(labels), origin=str(path))


def _read_class_names(path: Path, layout: _Layout, verify: bool) -> tuple[str, ...]:
    if path.suffix == ".txt":
        entries: Any = path.read_bytes().splitlines()
    else:
        (entries,) = _unpickle(path, verify, layout.key("label_names"))
    lines = [entry for entry in entries or () if isinstance(entry, bytes) and entry.strip()]
    if len(lines) != layout.label_fields[-1]:
        raise _broken(path, f"names {len(lines)} classes, expected {layout.label_fields[-1]}")
    return tuple(line.decode(errors="replace").strip() for line in lines)


def _broken(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} {what}: it is cut off, changed or another file; fetch it again from {CIFAR_PAGE}."
    )


def _check_range(path: Path, labels: np.ndarray, num_classes: int) -> None:
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise _broken(path, f"holds labels from {low} to {high}, expected [0, {num_classes})")


def _check_sum(path: Path, what: str, kind: str, sums: dict[str, str], content: bytes) -> None:
    expected = sums[path.name]
    found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the official file: the {kind} sum of its {what} should be {expected}, "
            f"got {found}. Fetch it again from {CIFAR_PAGE}, or use it as it is with "
            "config.data.verify=False (describe: --no-verify)."
        )


def _unpickle(path: Path, verify: bool, *keys: bytes) -> list[Any]:
    """The entries of a pickled dictionary."""
    content = path.read_bytes()
    if verify:
        _check_sum(path, "content", "md5", PICKLED_MD5, content)
    try:
        found = _PlainUnpickler(path, content).load()
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise anything at all
        raise _broken(path, f"is no pickle of plain arrays of numbers ({error!r})") from error
    missing = [key.decode() for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise _broken(path, f"holds no dictionary with {' and '.join(missing)}")
    return [found[key] for key in keys]


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays of numbers and plain containers; every other global is refused."""

    def __init__(self, path: Path, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")  # Python 2 wrote the files
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if admitted is None:
            raise InputError(
                f"{self._path} is refused: its pickle asks for {module}.{name}, but CIFAR's hold "
                f"NumPy arrays and plain containers only; fetch it again from {CIFAR_PAGE}."
            )
        return admitted


def _new_array(*_: object) -> np.ndarray:
    return np.empty(0, np.uint8)  # whatever the pickle asks for: its next instruction fills it


def _new_dtype(code: Any, *_: object) -> np.dtype:
    dtype = np.dtype(code, copy=True)  # the pickle's next instruction may set its byte order
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"an array of dtype {dtype}")
    return dtype


def _new_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # the one that protocol 2 spells bytes in
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")
    return text.encode(encoding)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _new_array,
    ("numpy", "dtype"): _new_dtype,
    ("_codecs", "encode"): _new_bytes,
}

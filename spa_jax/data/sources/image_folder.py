"""Folders of JPEG and PNG files: one subfolder a class, or the files that a split list names."""

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, SupportsIndex

import numpy as np

from spa_jax.data.dataset import EncodedImages, LabelledImages, Source, check_every_class
from spa_jax.data.sources.broken_files import first_three
from spa_jax.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# The first that has class folders; ImageNet's test folder has none, its val folder has them.
_TEST_FOLDERS = ("test", "val", "validation")


class ImageFiles(EncodedImages):
    """Image files under one folder, read one by one when they are asked for.

    Attributes:
      root: the folder.
      names: `(N,)` strings, paths relative to it with "/" between their parts.
    """

    def __init__(self, root: Path, names: np.ndarray):
        self.root = root
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: SupportsIndex) -> bytes:
        path = self.root / str(self.names[index])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} was there when the data set was opened, but cannot be read now ({error}): "
                "put it back, or start again without it."
            ) from error
        if not content.startswith(_SIGNATURES):
            what = f"begins with 0x{content[:8].hex()}" if content else "is empty"
            raise InputError(
                f"{path} is neither JPEG nor PNG: it {what}. Fetch or convert it again, or remove "
                "it."
            )
        return content

    def take(self, indices: np.ndarray) -> "ImageFiles":
        return ImageFiles(self.root, self.names[indices])


def is_image_folder(folder: Path) -> bool:
    """Whether a folder has a subfolder `train`."""
    return (folder / "train").is_dir()


def read_image_folder(name: str, folder: Path) -> Source:
    """Lists `train/<class>/*.jpg` and `test/<class>/*.jpg`; no image is read.

    The classes are the sorted names of the subfolders of `train`. The test examples come from the
    first of `test`, `val` and `validation` that has subfolders. Files end in .jpg, .jpeg or .png,
    in capitals or not, and may lie deeper below their class; other files, and whatever begins with
    a dot, are passed over.

    Args:
      name: of the data set.
      folder: with `train` and one of the others.

    Returns:
      The data set, class by class and by path within a class. `names` are the paths below
      `folder`, such as "train/n01440764/n01440764_10026.JPEG".

    Raises:
      InputError: a missing folder, a test class that `train` lacks, a class without a training
        image, or no test image at all.
    """
    class_names = _class_folders(folder / "train")
    if not class_names:
        raise InputError(
            f"{folder / 'train'} has no subfolders: expected one for each class, with its images."
        )
    test_part, test_classes = _find_test(folder)
    strange = sorted(set(test_classes) - set(class_names))
    if strange:
        raise InputError(
            f"{folder / test_part} has {len(strange)} subfolders that {folder / 'train'} lacks "
            f"({first_three(strange)}): both need one subfolder a class, of the same name."
        )
    train = _list_examples(folder, "train", class_names)
    check_every_class(f"training set {folder / 'train'}", train.labels, class_names)
    test = _list_examples(folder, test_part, class_names)
    if not len(test):
        raise InputError(
            f"No subfolder of {folder / test_part} holds a file that ends in "
            f"{', '.join(_SUFFIXES)}: add the images to test on."
        )
    return Source(name, train, test, class_names, "official")


def read_listed_files(folder: Path, names: np.ndarray) -> ImageFiles:
    """The image files that a split list names, in the list's order; no image is read.

    Args:
      folder: what the names are relative to.
      names: `(N,)` strings, paths with "/" between their parts, as a list has them.

    Returns:
      N encoded images.

    Raises:
      InputError: files that are not there, or not below the folder.
    """
    # One listing a directory: asking for each of 100,000 files is slow on network disks.
    listings: dict[str, set[str]] = {}
    missing = []
    for listed in names.tolist():
        parent, file = posixpath.split(listed)
        if parent not in listings:
            listings[parent] = _files_below(folder, parent)
        if file not in listings[parent]:
            missing.append(listed)
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(names)} images of the split list are not below {folder}: "
            f"{first_three(missing)}. Set config.data.folder to the folder that the list's paths "
            "start from, and fetch what it lacks."
        )
    return ImageFiles(folder, names)


def _find_test(folder: Path) -> tuple[str, tuple[str, ...]]:
    for part in _TEST_FOLDERS:
        classes = _class_folders(folder / part)
        if classes:
            return part, classes
    raise InputError(
        f"{folder} has none of the folders {', '.join(_TEST_FOLDERS)} with a subfolder for each "
        "class: add one with the images to test on."
    )


def _class_folders(place: Path) -> tuple[str, ...]:
    """Sorted names of the subfolders; none if there is no such folder."""
    found = (entry.name for entry in _entries(place) if entry.is_dir())
    return tuple(sorted(name for name in found if not name.startswith(".")))


def _entries(place: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing if there is no such folder."""
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be listed ({error}): check its permissions.")


def _list_examples(folder: Path, part: str, class_names: tuple[str, ...]) -> LabelledImages:
    """The images below `<part>/<class>` for each class, sorted by path within a class."""
    present = set(_class_folders(folder / part))
    names, labels = [], []
    for label, class_name in enumerate(class_names):
        if class_name not in present:
            continue
        found = sorted(_images_below(folder, f"{part}/{class_name}"))
        names += found
        labels += [label] * len(found)
    paths = np.array(names, dtype=np.str_)
    return LabelledImages(ImageFiles(folder, paths), np.array(labels, np.int32), paths)


def _images_below(folder: Path, inner: str) -> Iterator[str]:
    """Paths relative to `folder` of the images in a subfolder and in those below it."""
    for place, subfolders, files in os.walk(folder / inner, onerror=_refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        for file in files:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield f"{below}/{file}"


def _files_below(folder: Path, inner: str) -> set[str]:
    """Names of the files in a subfolder; none if it is not there or not below `folder`."""
    if posixpath.isabs(inner) or ".." in inner.split("/"):
        return set()
    return {entry.name for entry in _entries(folder / inner) if entry.is_file()}

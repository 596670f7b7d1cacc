"""Folders of JPEG and PNG files: one subfolder a class, or the files that a split list names."""

import collections
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from spa_jax.data.dataset import (
    EncodedImages,
    LabelledImages,
    Source,
    check_every_class,
    numbered_classes,
)
from spa_jax.data.splits.lists import check_labels, check_once, read_split_list
from spa_jax.errors import InputError, first_three

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
            raise _vanished(error) from error
        if not content.startswith(_SIGNATURES):
            what = f"begins with 0x{content[:8].hex()}" if content else "is empty"
            raise InputError(
                f"{path} is neither JPEG nor PNG: it {what}. Fetch or convert it again, or remove "
                "it."
            )
        return content

    def take(self, indices: np.ndarray) -> "ImageFiles":
        return ImageFiles(self.root, self.names[indices])

    def listing(self) -> str:
        try:
            sizes = [os.stat(f"{self.root}/{name}").st_size for name in self.names.tolist()]
        except OSError as error:
            raise _vanished(error) from error
        return "\n".join(map("{} {}".format, self.names.tolist(), sizes))


def _vanished(error: OSError) -> InputError:
    return InputError(
        f"{error.filename} was there when the data set was opened, but cannot be read now "
        f"({error}): put it back, or start again without it."
    )


def read_image_folder(name: str, folder: Path, train_list: str = "", test_list: str = "") -> Source:
    """Lists `train/<class>/*.jpg` and `test/<class>/*.jpg`, or what lists name; no image is read.

    Without lists the classes are the sorted names of the subfolders of `train`. The test examples
    come from the first of `test`, `val` and `validation` that has subfolders. Files end in .jpg,
    .jpeg or .png, in capitals or not, and may lie deeper below their class; other files, and
    whatever begins with a dot, are passed over.

    A list says what is read of its part, whatever the folder looks like; ImageNet-LT and
    iNaturalist are published so. The classes are then those of the training list: each is named
    after the folder that all its images lie in, or numbered if the folders are not classes.

    An image may not both train and be tested on, by whatever path: links of folders are followed.

    Args:
      name: of the data set.
      folder: with `train` and one of the others, or what the lists' paths start from.
      train_list: path of a list of the training images; "" for none.
      test_list: the same of the test images.

    Returns:
      The data set, class by class and by path within a class, or in a list's order. `names` are
      the paths below `folder`, such as "train/n01440764/n01440764_10026.JPEG", or whole paths of
      what a list names elsewhere.

    Raises:
      InputError: a missing folder, a test class that `train` lacks, no test image at all, a broken
        list, files that are not there, lists that do not fit together, a class that the training
        list has no image of, or an image in both parts.
    """
    if train_list:
        train = _read_listed(folder, Path(train_list))
        class_names = _named_after_folders(train)
        check_every_class(f"the training list {train.origin}", train.labels, class_names)
    else:
        class_names = _class_folders(folder / "train")
        if not class_names:
            raise InputError(
                f"{folder / 'train'} has no subfolders: expected one for each class, with its "
                "images."
            )
        train = _list_examples(folder, "train", class_names)
    if test_list:
        test = _read_listed(folder, Path(test_list))
        label_of = {class_name: label for label, class_name in enumerate(class_names)}
        _check_folders(test, label_of, f"folders that {train.origin} has the classes in")
    else:
        test = _test_folder(folder, class_names, only=not train_list)
    shared = sorted({*_places(train)} & {*_places(test)})
    if shared:
        raise InputError(
            f"{len(shared)} images of {train.origin} are images of {test.origin} too, so that they "
            f"would train and be tested on: {first_three(shared)}. Take them out of one."
        )
    return Source(name, train, test, class_names, "official")


def read_listed_files(folder: Path, names: np.ndarray) -> ImageFiles:
    """The image files that a split list names, in the list's order; no image is read.

    Args:
      folder: what the names are relative to.
      names: `(N,)` strings, paths with "/" between their parts, as a list has them. A whole path
        ("/data/1.jpg") is taken as it is, wherever it lies.

    Returns:
      N encoded images.

    Raises:
      InputError: files that are not there, or relative paths that lead out of the folder.
    """
    # One listing a directory: asking for each of 100,000 files is slow on network disks.
    parts = [posixpath.split(listed) for listed in names.tolist()]
    listings = {parent: _files_below(folder, parent) for parent in {parent for parent, _ in parts}}
    missing = [f"{parent}/{file}" for parent, file in parts if file not in listings[parent]]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(names)} images of the split list are not below {folder}: "
            f"{first_three(missing)}. Set config.data.folder to the folder that the list's paths "
            "start from, and fetch what it lacks."
        )
    return ImageFiles(folder, names)


def _read_listed(folder: Path, path: Path) -> LabelledImages:
    names, labels = read_split_list(path, folder)
    listed = LabelledImages(read_listed_files(folder, names), labels, names, str(path))
    check_once(path, _places(listed))
    return listed


def _places(examples: LabelledImages) -> list[str]:
    """The files of examples by their whole paths, in which links of folders are resolved."""
    root = getattr(examples.images, "root", "")
    parts = [posixpath.split(name) for name in _names(examples)]
    # Once a directory: asking for each of 100,000 files is slow on network disks.
    places = {place for place, _ in parts}
    resolved = {place: os.path.realpath(os.path.join(root, place)) for place in places}
    return [f"{resolved[place]}/{file}" for place, file in parts]


def _names(examples: LabelledImages) -> list[str]:
    return np.asarray(examples.names).tolist()


def _named_after_folders(train: LabelledImages) -> tuple[str, ...]:
    """The one folder of each class, if each has one of its own; numbers otherwise.

    Folders are classes, and labels that disagree are wrong, if at most one image or one in a
    hundred disagrees, or else a quarter, and in each folder and class less than half.
    """
    numbers, folders = numbered_classes(train), [_parent(name) for name in _names(train)]
    counts = collections.Counter(zip(train.labels.tolist(), folders, strict=True))
    home = {label: folder for (label, folder), _ in reversed(counts.most_common())}
    label_of = {folder: label for label, folder in home.items()}
    if not len(label_of) == len(set(folders)) == len(numbers):
        return numbers
    sizes, labels = collections.Counter(folders), np.bincount(train.labels)
    agree = [counts[label, folder] for label, folder in home.items()]
    larger = [max(sizes[folder], labels[label]) for label, folder in home.items()]
    clear = all(2 * n > size for n, size in zip(agree, larger, strict=True))
    elsewhere = len(train) - sum(agree)
    if elsewhere > max(1, len(train) // (4 if clear else 100)):
        return numbers
    _check_folders(train, label_of, "other images in their folders")
    return tuple(home[label] for label in range(len(numbers)))


def _check_folders(listed: LabelledImages, label_of: Mapping[str, int], what: str) -> None:
    """Raises InputError for images whose label is not that of the folder that they lie in."""
    pairs = zip(_names(listed), listed.labels.tolist(), strict=True)
    expected = np.array([label_of.get(_parent(name), label) for name, label in pairs])
    check_labels(listed.origin, _names(listed), listed.labels, expected, what)


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


def _test_folder(folder: Path, class_names: tuple[str, ...], only: bool) -> LabelledImages:
    """The examples of the first test folder that has classes; with `only`, of none but these."""
    found = {part: _class_folders(folder / part) for part in _TEST_FOLDERS}
    part = next((part for part in _TEST_FOLDERS if found[part]), None)
    if part is None:
        raise InputError(
            f"{folder} has none of the folders {', '.join(_TEST_FOLDERS)} with a subfolder for "
            "each class: add one with the images to test on."
        )
    strange = sorted(set(found[part]) - set(class_names))
    if strange and only:
        raise InputError(
            f"{folder / part} has {len(strange)} subfolders that {folder / 'train'} lacks "
            f"({first_three(strange)}): both need one subfolder a class, of the same name."
        )
    test = _list_examples(folder, part, class_names)
    if not len(test):
        raise InputError(
            f"No subfolder of {folder / part} with the name of a class ({first_three(class_names)})"
            f" holds a file that ends in {', '.join(_SUFFIXES)}: add the images to test on."
        )
    return test


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
        raise InputError(f"{place} cannot be listed ({error}): check its permissions.") from error


def _list_examples(folder: Path, part: str, class_names: tuple[str, ...]) -> LabelledImages:
    """The images below `<part>/<class>` for each class, sorted by path within a class."""
    found = [sorted(_images_below(folder, f"{part}/{name}")) for name in class_names]
    names = np.array([name for names in found for name in names], dtype=np.str_)
    labels = np.repeat(np.arange(len(found)), [len(names) for names in found])
    return LabelledImages(ImageFiles(folder, names), labels, names, str(folder / part))


def _images_below(folder: Path, inner: str) -> list[str]:
    """Paths relative to `folder` of the images in a subfolder and in those below it."""
    found = []
    for entry in _entries(folder / inner):
        path = f"{inner}/{entry.name}"
        if not entry.name.startswith("."):
            if entry.is_dir():
                found += _images_below(folder, path)
            # Not a pipe, which would be waited for; a link to nothing is told when it is read.
            elif entry.name.lower().endswith(_SUFFIXES) and (
                entry.is_file() or not (folder / path).exists()
            ):
                found.append(path)
    return found


def _files_below(folder: Path, inner: str) -> set[str]:
    """Names of the files in a subfolder; none if it is not there or `..` leads out of `folder`."""
    if ".." in inner.split("/"):
        return set()
    return {entry.name for entry in _entries(folder / inner) if entry.is_file()}

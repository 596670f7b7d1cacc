"""A data set of one's own as NumPy arrays: archives, or files of features that are mapped."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source, numbered_classes
from spa_jax.data.features import Features, checked_features
from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS
from spa_jax.data.splits.lists import positions_of
from spa_jax.errors import InputError, first_three, one_line

WHOLE_FILE = "all.npz"
NPZ_FILES = ("train.npz", "test.npz")
MAPPED_FILES = ("train/feature.npy", "test/feature.npy")
_WRITTEN = (
    "written with `np.savez(path, image=images, label=labels)`, or feature=features in place of "
    "image (a folder of features with `np.save`, as feature.npy and label.npy)"
)

Part = tuple[LabelledImages, tuple[str, ...] | None]
"""The examples of a part, and the class names if it has any."""


def read_npz(name: str, folder: Path, train_list: str = "", test_list: str = "") -> Source:
    """Reads `train.npz` and `test.npz`, as `numpy.savez` writes them, or `all.npz` and two lists.

    Each has `image`, uint8 of shape `(N, H, W, channels)` or `(N, H, W)`, or `feature`, floating of
    shape `(N, D)`, and `label`, `(N,)` integers. It may have `class_names`, an array of C strings;
    without them the classes are the labels of the training set, from 0 to the largest. Names in
    `test.npz` must be those of `train.npz`. Lists name examples by their row, which counts from 0,
    or by `name`, an array of N strings. Arrays of Python objects are never unpickled. Where all
    three files are there, `all.npz` is read if both lists are given.

    Args:
      name: of the data set.
      folder: with the files.
      train_list: path of a list of training examples; "" for none.
      test_list: the same of test examples.

    Returns:
      The data set in the files' order, which is its official one: images `(N, H, W, channels)` or
      features `(N, D)`, labels int32.

    Raises:
      InputError: a missing or broken file, a missing array, wrong dtypes or shapes, features that
        are not finite, a label without a class, two files that do not fit together, or one file
        without lists or with an example in both.
    """
    listed, whole = bool(train_list or test_list), folder / WHOLE_FILE
    both, parts = bool(train_list and test_list), [folder / file for file in NPZ_FILES]
    if not whole.is_file() or (not both and all(path.is_file() for path in parts)):
        train, test = (_read_archive(path, listed) for path in parts)
        return _source(name, train, test)
    if not both:
        raise InputError(
            f"{whole} holds all examples in one file: say with config.data.train_list and "
            "config.data.test_list which train and which are tested on, in lines `row label`, or "
            "write train.npz and test.npz."
        )
    everything = _read_archive(whole, listed)
    examples = everything[0]
    # By row, as two lists may spell one name differently.
    train = positions_of(Path(train_list), examples, f"{name} training set")
    shared = np.intersect1d(train, positions_of(Path(test_list), examples, f"{name} test set"))
    if len(shared):
        names = np.asarray(examples.names)[shared].tolist()
        raise InputError(
            f"{len(shared)} examples of {whole} are in both {train_list} and {test_list}, so that "
            f"they would train and be tested on: {first_three(names)}. Take them out of one."
        )
    return _source(name, everything, everything)


def read_mapped(name: str, folder: Path, train_list: str = "", test_list: str = "") -> Source:
    """Reads `train/feature.npy` and `train/label.npy`, and the same below `test`.

    What the arrays are is said at :func:`read_npz`; `class_names.npy` and `name.npy` may stand
    beside them. The features are mapped: they are read once by each process, to check them, and
    then as they are asked for.

    Args:
      name, folder, train_list, test_list: as for :func:`read_npz`.

    Returns:
      The data set in the files' order.

    Raises:
      InputError: as :func:`read_npz`.
    """
    listed = bool(train_list or test_list)
    train, test = (_read_folder(folder / part, listed) for part in ("train", "test"))
    return _source(name, train, test)


def _source(name: str, train: Part, test: Part) -> Source:
    """Two parts that have to name the same classes."""
    class_names = train[1] or numbered_classes(train[0])
    if test[1] not in (None, class_names):
        raise InputError(
            f"`class_names` of {test[0].origin} ({first_three(test[1])}) are not those of "
            f"{train[0].origin} ({first_three(class_names)}): save the same names in the same "
            "order in both, or with the training set alone."
        )
    return Source(name, train[0], test[0], class_names, "official")


def _read_archive(path: Path, listed: bool) -> Part:
    """The examples of one archive; nothing else in it is read."""
    if not path.is_file():
        raise InputError(
            f"There is no {path}: a data set of NumPy archives takes both train.npz and test.npz, "
            f"{_WRITTEN}."
        )
    # NumPy, given the path, would leave a broken zip file open.
    with _whole(path, "it"), path.open("rb") as opened:
        archive = np.load(opened, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        content = "feature" if "feature" in archive else "image"
        arrays = _read_arrays(path, content, archive.files, archive.__getitem__, listed)
    return _examples(path, arrays, listed)


def _read_folder(folder: Path, listed: bool) -> Part:
    """The examples of a folder of arrays, of which that of features is mapped."""

    def read(key: str) -> np.ndarray:
        mode = "r" if key == "feature" else None
        return np.load(folder / f"{key}.npy", mmap_mode=mode, allow_pickle=False)

    found = [path.stem for path in sorted(folder.glob("*.npy"))]
    return _examples(folder, _read_arrays(folder, "feature", found, read, listed), listed)


def _read_arrays(
    path: Path, content: str, found: Sequence[str], read: Callable[[str], Any], listed: bool
) -> dict[str, np.ndarray]:
    """Images or features, labels, and the strings beside them that there are.

    Args:
      path: of the file or folder, for messages.
      content: "image" or "feature".
      found: the names of its arrays.
      read: gives an array by its name.
      listed: whether the examples' names are asked for.
    """
    if missing := [f"`{key}`" for key in (content, "label") if key not in found]:
        raise InputError(
            f"{path} lacks {' and '.join(missing)}, it has {', '.join(found) or 'nothing'}; it is "
            f"{_WRITTEN}."
        )
    arrays = {}
    for key in (content, "label", "class_names", "name", "made_of"):
        if key in found and (listed or key != "name"):
            with _whole(path, f"`{key}`"):
                arrays[key] = read(key)
                if not isinstance(arrays[key], np.ndarray):
                    raise ValueError("not an array")
    return arrays


def _examples(path: Path, arrays: dict[str, np.ndarray], listed: bool) -> Part:
    """Examples of arrays, with names if lists are to find them, and class names if there are."""
    if "feature" in arrays:
        images = _checked(arrays["feature"], path)
        if "made_of" in arrays:
            made_of = _one_string(path, arrays["made_of"])
            images = dataclasses.replace(images, checksum=hashlib.sha256(made_of).digest())
    else:
        images = arrays["image"]
        images = images[..., None] if images.ndim == 3 else images
    examples = LabelledImages(images, arrays["label"], origin=str(path))
    if listed:
        names = _strings(path, arrays, "name", len(examples))
        rows = np.arange(len(examples)).astype(str)
        examples = dataclasses.replace(examples, names=rows if names is None else names)
    class_names = _strings(path, arrays, "class_names")
    return examples, None if class_names is None else tuple(class_names.tolist())


def _strings(
    path: Path, arrays: dict[str, np.ndarray], key: str, count: int | None = None
) -> np.ndarray | None:
    """An array of so many strings, if it is there."""
    names = arrays.get(key)
    if names is not None and (
        names.dtype.kind != "U"
        or names.ndim != 1
        or not len(names)
        or count not in (None, len(names))
    ):
        raise InputError(
            f"`{key}` of {path} is {names.dtype} of shape {names.shape}; expected one string "
            f"{'a class' if count is None else 'for each label'}: save `np.array(names)` of a list "
            "of strings."
        )
    return names


def _one_string(path: Path, made_of: np.ndarray) -> bytes:
    """What features were made of, encoded."""
    if made_of.dtype.kind != "U" or made_of.ndim or not made_of.item():
        raise InputError(
            f"`made_of` of {path} is {made_of.dtype} of shape {made_of.shape}; expected one string "
            "that says what the features were computed from, `np.array(text)`, or no such array."
        )
    return made_of.item().encode()


# A command opens its data several times, and would check gigabytes each time.
_CHECKED: dict[tuple[str, int, int], bytes] = {}


def _checked(stored: np.ndarray, path: Path) -> Features:
    """Features after a look at each, which a process takes once, unless their file changes."""
    file = Path(str(stored.filename)) if isinstance(stored, np.memmap) else path
    status = file.stat()
    key = (str(file.absolute()), status.st_size, status.st_mtime_ns)
    features = checked_features(stored, str(file), _CHECKED.get(key))
    _CHECKED[key] = features.checksum
    return features


@contextlib.contextmanager
def _whole(path: Path, what: str) -> Iterator[None]:
    """Turns what NumPy raises for what is not a whole file of plain arrays into an InputError."""
    try:
        yield
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise InputError(
            f"{path} is not a whole archive of plain arrays, {what} cannot be read "
            f"({one_line(error)}): fetch or write it again with `np.savez` or `np.save`; arrays of "
            "Python objects (dtype=object) are refused."
        ) from error

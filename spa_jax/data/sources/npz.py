"""A data set of one's own as two NumPy archives, `train.npz` and `test.npz`."""

from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source, check_every_class
from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS, one_line
from spa_jax.errors import InputError

_FILES = ("train.npz", "test.npz")
_KEYS = ("image", "label", "class_names")


def is_npz_folder(folder: Path) -> bool:
    """Whether a folder holds `train.npz` or `test.npz`."""
    return any((folder / file).is_file() for file in _FILES)


def read_npz(name: str, folder: Path) -> Source:
    """Reads `train.npz` and `test.npz`, as `numpy.savez` writes them.

    Each has `image`, uint8 of shape `(N, H, W, channels)` or `(N, H, W)`, and `label`, `(N,)`
    integers. `train.npz` may have `class_names`, an array of C strings; without it the classes are
    the labels of the training set, from 0 to the largest. `test.npz` may have the same names.
    Arrays of Python objects are never unpickled.

    Args:
      name: of the data set.
      folder: with the two files.

    Returns:
      The data set in the files' order, which is its official one: images
      `(N, H, W, channels)`, labels int32.

    Raises:
      InputError: a missing or broken file, a missing array, wrong dtypes or shapes, a label
        without a class, a class without a training image, or two files that do not fit together.
    """
    train_path, test_path = (folder / file for file in _FILES)
    images, labels, class_names = _read_examples(train_path)
    test_images, test_labels, test_names = _read_examples(test_path)
    if images.shape[1:] != test_images.shape[1:]:
        raise InputError(
            f"The images of {train_path} have the shape {images.shape[1:]}, those of {test_path} "
            f"{test_images.shape[1:]}: save both in one size."
        )
    if class_names is None:
        largest = int(labels.max())
        # Seen before the names are made: identifiers would ask for millions of them.
        if largest >= len(labels):
            raise InputError(
                f"{train_path} holds {len(labels)} images, but labels up to {largest}, so some "
                "class has no image: number the classes from 0 up, without gaps."
            )
        class_names = tuple(map(str, range(largest + 1)))
    if test_names not in (None, class_names):
        raise InputError(
            f"`class_names` of {test_path} ({', '.join(test_names[:3])}, ...) are not those of "
            f"{train_path} ({', '.join(class_names[:3])}, ...): save the same names in the same "
            "order in both, or in train.npz alone."
        )
    for path, found in ((train_path, labels), (test_path, test_labels)):
        if found.max() >= len(class_names):
            raise InputError(
                f"{path} holds the label {found.max()}, but the {len(class_names)} classes of "
                f"{train_path} take labels in [0, {len(class_names)}): correct the labels, or name "
                "every class in its `class_names`."
            )
    check_every_class(f"training set {train_path}", labels, class_names)
    train, test = LabelledImages(images, labels), LabelledImages(test_images, test_labels)
    return Source(name, train, test, class_names, "official")


def _read_examples(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    """The images and labels of one file, and its class names if it has any."""
    arrays = _read_arrays(path)
    images, labels, names = arrays["image"], arrays["label"], arrays.get("class_names")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"`image` of {path} is {images.dtype} of shape {images.shape}; expected uint8 of shape "
            "(N, H, W, channels) or (N, H, W), none of them 0: convert it, for example with "
            "`(255 * image).round().astype(np.uint8)` if its values are in [0, 1]."
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"`label` of {path} is {labels.dtype} of shape {labels.shape}; expected integers of "
            f"shape ({len(images)},), one for each image: save them together."
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"`label` of {path} goes from {labels.min()} to {labels.max()}; expected the place of "
            "a class, from 0 up: leave out images without a class."
        )
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1 or not len(names)):
        raise InputError(
            f"`class_names` of {path} is {names.dtype} of shape {names.shape}; expected one string "
            "a class: save `np.array(names)` of a list of strings."
        )
    images = images if images.ndim == 4 else images[..., None]
    return images, labels.astype(np.int32), None if names is None else tuple(names.tolist())


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that are asked for; nothing else in it is read."""
    if not path.is_file():
        raise InputError(
            f"There is no {path}: a data set of NumPy archives takes both train.npz and test.npz, "
            "written with `np.savez(path, image=images, label=labels)`."
        )
    what, arrays = "it", {}
    try:
        # NumPy, given the path, would leave a broken zip file open.
        with path.open("rb") as opened:
            archive = np.load(opened, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            missing = [f"`{key}`" for key in _KEYS[:2] if key not in archive.files]
            if missing:
                raise InputError(
                    f"{path} lacks {' and '.join(missing)}, it has "
                    f"{', '.join(archive.files) or 'nothing'}: write it with `np.savez(path, "
                    "image=images, label=labels)`."
                )
            for key in [key for key in _KEYS if key in archive.files]:
                what = f"`{key}`"
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise ValueError("not an array")
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise InputError(
            f"{path} is not a whole archive of plain arrays, {what} cannot be read "
            f"({one_line(error)}): fetch or write it again with `np.savez`; arrays of Python "
            "objects (dtype=object) are refused."
        ) from error
    return arrays

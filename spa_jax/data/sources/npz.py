"""A data set of one's own as two NumPy archives, `train.npz` and `test.npz`."""

from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source, numbered_classes
from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS, one_line
from spa_jax.errors import InputError

NPZ_FILES = ("train.npz", "test.npz")
_KEYS = ("image", "label", "class_names")


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
        without a class, or two files that do not fit together.
    """
    train_path, test_path = (folder / file for file in NPZ_FILES)
    train, class_names = _read_examples(train_path)
    test, test_names = _read_examples(test_path)
    class_names = class_names or numbered_classes(train)
    if test_names not in (None, class_names):
        raise InputError(
            f"`class_names` of {test_path} ({', '.join(test_names[:3])}, ...) are not those of "
            f"{train_path} ({', '.join(class_names[:3])}, ...): save the same names in the same "
            "order in both, or in train.npz alone."
        )
    return Source(name, train, test, class_names, "official")


def _read_examples(path: Path) -> tuple[LabelledImages, tuple[str, ...] | None]:
    """The examples of one file, and its class names if it has any."""
    arrays = _read_arrays(path)
    images, names = arrays["image"], arrays.get("class_names")
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1 or not len(names)):
        raise InputError(
            f"`class_names` of {path} is {names.dtype} of shape {names.shape}; expected one string "
            "a class: save `np.array(names)` of a list of strings."
        )
    images = images[..., None] if images.ndim == 3 else images
    examples = LabelledImages(images, arrays["label"], origin=str(path))
    return examples, None if names is None else tuple(names.tolist())


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
            missing = [f"`{key}`" for key in _KEYS[:2] if key not in archive]
            for key in _KEYS:
                what = f"`{key}`"
                if not missing and key in archive:
                    arrays[key] = archive[key]
                    if not isinstance(arrays[key], np.ndarray):
                        raise ValueError("not an array")
    except ARCHIVE_ERRORS as error:
        raise InputError(
            f"{path} is not a whole archive of plain arrays, {what} cannot be read "
            f"({one_line(error)}): fetch or write it again with `np.savez`; arrays of Python "
            "objects (dtype=object) are refused."
        ) from error
    if missing:
        raise InputError(
            f"{path} lacks {' and '.join(missing)}, it has "
            f"{', '.join(archive.files) or 'nothing'}: write it with `np.savez(path, "
            "image=images, label=labels)`."
        )
    return arrays

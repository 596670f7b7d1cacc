"""Loads a data set by its options: whatever its files look like, and whichever images train."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import LongTailedDataset, Source
from spa_jax.data.sources.cifar_files import is_cifar_folder, read_cifar
from spa_jax.data.sources.digits import read_digits
from spa_jax.data.sources.idx import FASHION_MNIST_HELP, read_idx_folder
from spa_jax.data.sources.image_folder import read_image_folder
from spa_jax.data.sources.npz import MAPPED_FILES, NPZ_FILES, WHOLE_FILE, read_mapped, read_npz
from spa_jax.data.sources.tfds_source import is_tfds_dir, read_tfds, tfds_data_dir
from spa_jax.data.splits.shot_groups import check_shot_group_rule
from spa_jax.data.splits.splitting import make_split
from spa_jax.errors import InputError, one_line


class SourceKind(NamedTuple):
    """One form in which data sets come.

    Attributes:
      read: reads the data set of the options, whose folder is there.
      fits: whether the folder holds the data set in this form; None: the form is one data set,
        which is known by its name and takes no folder.
      looks: what the form looks like, for a message that lists them; {name} and {folder} are
        filled in.
    """

    read: Callable[[DataOptions, Path], Source]
    fits: Callable[[DataOptions, Path], bool] | None = None
    looks: str = ""


def _with_lists(
    read: Callable[[str, Path, str, str], Source],
) -> Callable[[DataOptions, Path], Source]:
    return lambda options, folder: read(options.name, folder, options.train_list, options.test_list)


def _has_any(folder: Path, files: Sequence[str]) -> bool:
    return any((folder / file).is_file() for file in files)


def _read_prepared(options: DataOptions, folder: Path) -> Source:
    try:
        return read_tfds(options.name, options.folder)
    except InputError as error:
        listed = options.train_list or options.test_list
        if not listed or options.folder or is_tfds_dir(tfds_data_dir(""), options.name):
            raise
        raise InputError(
            f"config.data.folder is empty: set it to the folder that the paths in {listed} start "
            "from, or, if they are whole, to one above the images. Without it TFDS is asked: "
            f"{error}"
        ) from error


SOURCES: dict[str, SourceKind] = {
    "digits": SourceKind(lambda options, folder: read_digits(options)),
    "tfds": SourceKind(
        _read_prepared,
        lambda options, folder: not options.folder or is_tfds_dir(folder, options.name),
        "a data set prepared by TFDS (`python -m spa_jax.data.prepare {name} --data_dir={folder}`)",
    ),
    "mapped_features": SourceKind(
        _with_lists(read_mapped),
        lambda options, folder: _has_any(folder, MAPPED_FILES),
        "feature.npy and label.npy in the folders train and test",
    ),
    "features": SourceKind(
        _with_lists(read_npz),
        lambda options, folder: options.name == "features" or _has_any(folder, [WHOLE_FILE]),
        "all.npz with both lists",
    ),
    "listed_folder": SourceKind(
        _with_lists(read_image_folder),
        lambda options, folder: bool(options.train_list and options.test_list),
        "any folder of images with config.data.train_list and config.data.test_list",
    ),
    "cifar": SourceKind(
        lambda options, folder: read_cifar(options.name, folder, options.verify),
        lambda options, folder: options.name in ("cifar10", "cifar100") and is_cifar_folder(folder),
        "the official CIFAR files",
    ),
    "idx": SourceKind(
        lambda options, folder: read_idx_folder(options.name, folder),
        lambda options, folder: any(folder.glob("*-images-idx3-ubyte*")),
        "idx files",
    ),
    "npz": SourceKind(
        _with_lists(read_npz),
        lambda options, folder: _has_any(folder, NPZ_FILES),
        "train.npz and test.npz",
    ),
    "image_folder": SourceKind(
        _with_lists(read_image_folder),
        lambda options, folder: (folder / "train").is_dir(),
        "train/CLASS/*.jpg beside a val or test folder",
    ),
}
"""The forms; a folder is tried in this order."""


def load_data(options: DataOptions) -> LongTailedDataset:
    """Loads a data set and makes its long-tailed split.

    Args:
      options: which one, where it is, and which of its images train.

    Returns:
      The data set.

    Raises:
      InputError: as :func:`read_source`; a split, or a rule of shot groups, that does not fit it.

    Example:
      >>> load_data(DataOptions(name="digits", imbalance_factor=20)).class_counts
      (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)
    """
    try:
        source = read_source(options)
    except OSError as error:
        raise InputError(
            f"The data set {options.name} cannot be read ({one_line(error)}): check "
            "config.data.folder, and the permissions of what is there."
        ) from error
    data = make_split(source, options)
    check_shot_group_rule(options.shot_groups, data.num_classes)
    return data


def read_source(options: DataOptions) -> Source:
    """Reads a whole data set from where it is.

    What a folder holds is told from its content; :data:`SOURCES` lists the forms.

    Args:
      options: `name`, and `folder` where the files are: "" is the place where TFDS keeps what it
        has prepared. With both split lists a folder of images may have any subfolders.

    Returns:
      The whole data set.

    Raises:
      InputError: a folder for a set that takes none, nothing there, something that is none of
        these, or a broken data set.
    """
    name, folder = options.name, Path(os.path.expanduser(options.folder))
    if name == "features" and not (options.folder and os.path.isdir(folder)):
        raise InputError(
            f"config.data.folder={options.folder!r} is not the folder of a feature bank: give one "
            "with train.npz and test.npz, each with `feature` (N, D) and `label` (N,), or with "
            "feature.npy and label.npy in the folders train and test."
        )
    known = SOURCES.get(name)
    if known is not None and known.fits is None:
        if options.folder:
            raise InputError(
                f"{name} is a data set that takes no folder, and config.data.folder is "
                f"{options.folder}: set config.data.name to your own name for what is there, or "
                "leave config.data.folder empty."
            )
        return known.read(options, folder)
    if options.folder and not os.path.isdir(folder):
        how = f" {FASHION_MNIST_HELP}." if name == "fashion_mnist" else ""
        raise InputError(
            f"There is no folder {folder} with {name}: correct config.data.folder, or leave it "
            f"empty and prepare the set once with `python -m spa_jax.data.prepare {name}`.{how}"
        )
    forms = [kind for kind in SOURCES.values() if kind.looks]
    for kind in forms:
        if kind.fits and kind.fits(options, folder):
            return kind.read(options, folder)
    *looks, last = [kind.looks.format(name=name, folder=folder) for kind in forms]
    raise InputError(
        f"{folder} holds nothing that can be read as {name}: expected {', '.join(looks)}, or "
        f"{last}."
    )

"""Folders of images that two published lists make a data set of."""

from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.data.sources.image_folder import read_listed_files
from spa_jax.data.splits.lists import read_split_list
from spa_jax.errors import InputError


def read_listed_folder(name: str, folder: Path, train_list: Path, test_list: Path) -> Source:
    """A data set that two lists make of a folder of images, in whatever subfolders they lie.

    ImageNet-LT and iNaturalist are published so. A class is named after the folder that all its
    training images lie in, or numbered if they lie in several.

    Args:
      name: the data set's.
      folder: what the lists' paths start from.
      train_list: of the training images.
      test_list: of the test images.

    Returns:
      The data set, in the lists' order; nothing is decoded.

    Raises:
      InputError: a broken list, files that are not there, a label of the test list that the
        training list does not have, or another one than its images' folder has in training.
    """
    lists = [read_split_list(path) for path in (train_list, test_list)]
    train, test = [
        LabelledImages(read_listed_files(folder, names), labels, names) for names, labels in lists
    ]
    if train.labels.max() >= len(train):
        raise InputError(
            f"{train_list} has the label {train.labels.max()} and {len(train)} images, so that "
            "classes are without one: labels count up from 0."
        )
    (names, labels), (test_names, test_labels) = lists
    class_names = _class_names(names, labels)
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    wrong = [
        listed
        for listed, label in zip(test_names.tolist(), test_labels.tolist(), strict=True)
        if label_of.get(_parent(listed), label) != label
    ]
    if wrong:
        raise InputError(
            f"{test_list} gives {len(wrong)} images another label than {train_list} gives their "
            f"folder; the first: {', '.join(wrong[:3])}. Check that the lists belong together."
        )
    return Source(name, train, test, class_names, "official")


def _class_names(names: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """The one folder of each class, if each has one of its own; numbers otherwise."""
    parents: list[set[str]] = [set() for _ in range(labels.max() + 1)]
    for path, label in zip(names.tolist(), labels.tolist(), strict=True):
        parents[label].add(_parent(path))
    alone = ["".join(found) if len(found) == 1 else "" for found in parents]
    if "" in alone or len(set(alone)) < len(alone):
        return tuple(map(str, range(len(alone))))
    return tuple(alone)


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]

"""Published split lists, such as `ImageNet_LT_train.txt`: one `path label` a line."""

import collections
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages
from spa_jax.errors import InputError


def read_split_list(path: Path, root: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reads a list of images.

    Args:
      path: a text file with a line `path label` for each image; empty lines are passed over, and
        the last may lack its newline.
      root: the folder that paths start from.

    Returns:
      Paths `(N,)` as strings, one for each file however it was spelt (`./x`, `a//x`, `a\\x`, or
      whole below `root`), and labels `(N,)` int32.

    Raises:
      InputError: no such file, no line in it, lines that are not `path label`, or an image that is
        listed twice.
    """
    try:
        if path.expanduser().exists() and not path.expanduser().is_file():
            raise OSError("it is no file")  # but a pipe, which would be waited for, or a folder
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, RuntimeError) as error:  # the last of a home that there is not
        raise InputError(
            f"The split list {path} cannot be read ({error}): give a text file with a line `path "
            "label` for each image, and if it is one, save it as UTF-8."
        ) from error
    rows = {number: line.rsplit(maxsplit=1) for number, line in enumerate(lines, 1) if line.strip()}
    broken = [number for number, row in rows.items() if len(row) != 2 or not _is_label(row[1])]
    if broken or not rows:
        first = ", ".join(map(str, broken[:3]))
        where = f"{len(broken)} are not, the first at line {first}" if broken else "it is empty"
        raise InputError(
            f"{path} is not a split list of lines `path label`, label a whole number: {where}."
        )
    places = [_place(name, root) for name, _ in rows.values()]
    check_once(path, places)
    return np.array(places), np.array([int(label) for _, label in rows.values()], np.int32)


def _place(name: str, root: Path | None) -> str:
    """The one spelling of a listed path."""
    whole = posixpath.normpath(name.replace("\\", "/"))
    return whole if root is None else whole.removeprefix(f"{os.path.abspath(root)}/")


def check_once(path: Path, names: Sequence[str]) -> None:
    """Raises InputError that shows the first three images that a list has more than once."""
    twice = [name for name, number in collections.Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"{path} lists images more than once; the first: {', '.join(twice[:3])}.")


def _is_label(text: str) -> bool:
    return text.isdecimal() and int(text) < 2**31


def positions_of(path: Path, examples: LabelledImages, what: str) -> np.ndarray:
    """Where a list's images stand among a source's examples.

    An image is found by its whole path where the source knows paths (an image folder), and
    otherwise by its file name (TFDS).

    Args:
      path: the split list.
      examples: of a source that names its images.
      what: the examples in words, for messages.

    Returns:
      Positions in `examples`, in the list's order.

    Raises:
      InputError: names that the source lacks (how many, and the first three) or has twice, an
        image that is listed twice, or labels that differ from the source's.
    """
    names, labels = read_split_list(path, getattr(examples.images, "root", None))
    known = examples.names
    if known is None:
        raise InputError(
            f"The {what} does not name its images, so {path} cannot be joined to it: use TFDS's "
            "imagenet2012 or an image folder."
        )
    if not any("/" in name for name in known[:1]):
        names = np.array([name.rpartition("/")[2] for name in names])
    place = {name: position for position, name in enumerate(known.tolist())}
    if len(place) < len(known):
        raise InputError(
            f"{len(known) - len(place)} images of the {what} share their name with another one, so "
            f"{path} cannot be joined to it by name."
        )
    listed = names.tolist()
    missing = [name for name in listed if name not in place]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(listed)} images that {path} lists are not in the {what}; "
            f"the first: {', '.join(missing[:3])}. Complete the data, or check that the list "
            "belongs to it."
        )
    check_once(path, listed)
    positions = np.array([place[name] for name in listed])
    check_labels(str(path), listed, labels, examples.labels[positions], what)
    return positions


def check_labels(
    listed: str, names: Sequence[str], labels: np.ndarray, expected: np.ndarray, what: str
) -> None:
    """Raises InputError that shows the first three labels of a list that are not as expected."""
    wrong = np.where(labels != expected)[0]
    if len(wrong):
        said = "; ".join(
            f"{names[i]} has {labels[i]} in the list, {expected[i]} there" for i in wrong[:3]
        )
        advice = "Check that the list was made for the same order of classes."
        if (labels[wrong] == expected[wrong] + 1).all():
            advice = "Labels count up from 0: does the list count from 1?"
        raise InputError(
            f"{len(wrong)} labels in {listed} are not those of the {what}: {said}. {advice}"
        )

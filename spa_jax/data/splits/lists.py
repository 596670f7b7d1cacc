"""Published split lists, such as `ImageNet_LT_train.txt`: one `path label` a line."""

import collections
from pathlib import Path

import numpy as np

from spa_jax.data.dataset import LabelledImages
from spa_jax.errors import InputError


def read_split_list(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a list of images.

    Args:
      path: a text file with a line `path label` for each image; empty lines are passed over, and
        the last may lack its newline.

    Returns:
      Paths `(N,)` as strings, and labels `(N,)` int32.

    Raises:
      InputError: no such file, no line in it, or lines that are not `path label`.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The split list {path} cannot be read ({error}).") from error
    rows = {number: line.rsplit(maxsplit=1) for number, line in enumerate(lines, 1) if line.strip()}
    broken = [number for number, row in rows.items() if len(row) != 2 or not _is_label(row[1])]
    if broken or not rows:
        first = ", ".join(map(str, broken[:3]))
        where = f"{len(broken)} are not, the first at line {first}" if broken else "it is empty"
        raise InputError(
            f"{path} is not a split list of lines `path label`, label a whole number: {where}."
        )
    names, labels = zip(*rows.values(), strict=True)
    return np.array(names), np.array([int(label) for label in labels], np.int32)


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
    names, labels = read_split_list(path)
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
    twice = [name for name, number in collections.Counter(listed).items() if number > 1]
    if twice:
        raise InputError(f"{path} lists images more than once; the first: {', '.join(twice[:3])}.")
    positions = np.array([place[name] for name in listed])
    there = examples.labels[positions]
    wrong = np.where(labels != there)[0]
    if len(wrong):
        said = "; ".join(
            f"{listed[i]} has {labels[i]} in the list, {there[i]} there" for i in wrong[:3]
        )
        raise InputError(
            f"{len(wrong)} labels in {path} are not those of the {what}: {said}. Check that the "
            "list was made for the same order of classes."
        )
    return positions

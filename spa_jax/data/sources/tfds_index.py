"""What a TFDS split holds besides its images, kept in a file next to the split."""

import dataclasses
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS

_INDEX_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Fields:
    """Names of the features that a data set's images, labels, ids and file names have."""

    image: str
    label: str
    id: str | None
    file_name: str | None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a split holds besides its images, in the order in which it is used.

    Attributes:
      labels: `(N,)` int32.
      positions: `(N,)` int64, where each example stands in the stored split.
      official: whether this is the order in which the data set was published.
      names: `(N,)` strings, or None if the data set has no file names.
    """

    labels: np.ndarray
    positions: np.ndarray
    official: bool
    names: np.ndarray | None


def fingerprint(folder: Path, split: str, fields: Fields) -> str:
    """Changes when the description, or the size or time of a file of the split, does."""
    files = sorted(folder.glob(f"*-{split}.array_record*"))
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    description = (folder / "dataset_info.json").read_text()
    content = json.dumps([_INDEX_FORMAT, dataclasses.astuple(fields), description, states])
    return hashlib.sha256(content.encode()).hexdigest()


def read_index(path: Path, state: str) -> Listing | None:
    """The listing that was kept, or None if there is none of this state of the data set."""
    try:
        # Opened here, as np.load leaves a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            if str(index["fingerprint"]) != state:
                return None
            names = np.char.decode(index["names"], "utf-8") if "names" in index.files else None
            return Listing(index["labels"], index["positions"], bool(index["official"]), names)
    except ARCHIVE_ERRORS:
        return None


def write_index(path: Path, state: str, listing: Listing) -> None:
    """Keeps a listing; a folder that cannot be written is no error, only slower."""
    # A name of its own for each writer, as hosts that share a disk may all write the same index.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    arrays: dict[str, Any] = {
        "fingerprint": np.array(state),
        "labels": listing.labels,
        "positions": listing.positions,
        "official": np.array(listing.official),
    }
    if listing.names is not None:
        arrays["names"] = np.char.encode(listing.names, "utf-8")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logging.warning("The labels are gathered again at each start: no index (%s).", error)

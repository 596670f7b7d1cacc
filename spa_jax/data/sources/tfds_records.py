"""The records of one split of a prepared TFDS data set: labels, file names and images."""

import collections
import copy
import functools
import hashlib
import importlib
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging
from PIL import Image

from spa_jax.data.dataset import EncodedImages, LabelledImages
from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS
from spa_jax.errors import InputError, first_three, one_line

_INDEX_FORMAT = 2
_CHUNK = 128  # records that a thread reads in one go
_THREADS = 16  # more than cores, because network disks answer late
DECODED_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Numbers of channels that images are decoded to, with the name that Pillow has for them."""

T = TypeVar("T")


class Fields(NamedTuple):
    """Names of the features with images, labels, ids and file names; "" where there is none."""

    image: str
    label: str
    id: str = ""
    file_name: str = ""


class Listing(NamedTuple):
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


class TfdsImages(EncodedImages):
    """Encoded images of one split, read one by one from its shards when they are asked for.

    Threads may share it. Other processes have to be spawned, as grain's are: array_record's readers
    do not survive a fork. The process that reads opens the shards, so it pickles.
    """

    def __init__(self, folder: Path, split: str, field: str, positions: np.ndarray):
        self.folder, self.split = folder, split
        self._field, self._positions = field, positions

    def __reduce__(self) -> tuple[type["TfdsImages"], tuple[Path, str, str, np.ndarray]]:
        return TfdsImages, (self.folder, self.split, self._field, self._positions)

    def __str__(self) -> str:
        return f"split {self.split!r} in {self.folder}"

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> bytes:
        return self.record(int(self._positions[index]))[self._field]

    def take(self, indices: np.ndarray) -> "TfdsImages":
        taken = copy.copy(self)
        taken._positions = self._positions[indices]
        return taken

    def listing(self) -> str:
        files = sorted(self.folder.glob(f"*-{self.split}.array_record*"))
        return f"{[(file.name, file.stat().st_size) for file in files]} {self._positions.tolist()}"

    def record(self, position: int) -> dict[str, Any]:
        """The features of the record at a position of the stored split, images encoded."""
        try:
            return self._source[position]
        except InputError:
            raise
        except (OSError, RuntimeError, LookupError, ValueError, AttributeError) as error:
            raise InputError(
                f"Record {position} of the {self} cannot be read ({one_line(error)}): its file is "
                "damaged. Restore it, or remove the folder and prepare the data set again."
            ) from error

    @functools.cached_property
    def _source(self) -> Any:
        tfds = import_tfds()
        builder = tfds.builder_from_directory(self.folder)
        _allow_open_files(len(builder.info.splits[self.split].shard_lengths))
        features = builder.info.features.items()
        images = [key for key, kind in features if isinstance(kind, tfds.features.Image)]
        encoded = {key: tfds.decode.SkipDecoding() for key in images}
        return builder.as_data_source(
            self.split, decoders=encoded, file_format=tfds.core.FileFormat.ARRAY_RECORD
        )


def read_split(
    folder: Path, split: str, fields: Fields, count: int, shape: tuple[int, int, int] | None
) -> tuple[LabelledImages, bool]:
    """The examples of a split, and whether they stand in the order in which they were published.

    Every record is read. Where images stay encoded, an index file keeps what they are listed with:
    `spa_jax-<split>.npz` next to the shards. It counts only as long as the description and the
    files of the data set are the same, and is left out where the folder cannot be written.

    Args:
      folder: of the prepared data set.
      split: its name.
      fields: the features to read.
      count: the number of records.
      shape: `(H, W, channels)` to decode images to; None keeps them encoded.
    """
    stored = TfdsImages(folder, split, fields.image, np.arange(count))
    if shape:
        pixels = np.empty((count, *shape), np.uint8)
        listing = _gather(stored, fields, pixels)
        images = pixels[listing.positions]
    else:
        listing = _indexed(stored, fields)
        images = stored.take(listing.positions)
    examples = LabelledImages(images, listing.labels, listing.names, str(stored))
    return examples, bool(listing.official)


def in_threads(function: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """Results in the order of the arguments; after an error nothing more is begun."""
    with ThreadPoolExecutor(_THREADS) as executor:
        return list(executor.map(function, *arguments))


def import_tfds() -> Any:
    """The module `tensorflow_datasets`, once everything is there that reading with it takes."""
    try:
        # TFDS declares neither of the packages that it needs to read ArrayRecord files.
        importlib.import_module("array_record.python.array_record_data_source")
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise InputError(
            f"Data sets of TFDS need packages that are not all here ({one_line(error)}): "
            "pip install tensorflow-datasets array_record importlib_resources"
        ) from error


def _gather(stored: TfdsImages, fields: Fields, pixels: np.ndarray | None = None) -> Listing:
    """Reads every record once; `pixels` gets the decoded images."""
    count = len(stored)

    def read(start: int) -> list[tuple[int, str, str]]:
        rows = []
        for position in range(start, min(start + _CHUNK, count)):
            example = {"": b"", **stored.record(position)}
            if pixels is not None:
                what = f"{position} of the {stored}"
                pixels[position] = _decode(example[fields.image], pixels.shape[1:], what)
            texts = example[fields.id].decode(), example[fields.file_name].decode()
            rows.append((example[fields.label], *texts))
        return rows

    rows = [row for part in in_threads(read, range(0, count, _CHUNK)) for row in part]
    labels, ids, names = zip(*rows, strict=True)
    order = official_order(ids, stored.split, str(stored))
    positions = np.arange(count) if order is None else order
    names = np.array(names)[positions] if fields.file_name else None
    return Listing(np.array(labels, np.int32)[positions], positions, order is not None, names)


def official_order(ids: Sequence[str], split: str, what: str) -> np.ndarray | None:
    """Positions in the order of ids such as "train_00042"; None if the ids are of another form."""
    if not any(re.fullmatch(rf"{re.escape(split)}_\d+", each) for each in ids):
        return None
    expected = [f"{split}_{number:05d}" for number in range(len(ids))]
    place = {each: position for position, each in enumerate(ids)}
    faults = {
        "missing": [each for each in expected if each not in place],
        "there more than once": [each for each, n in collections.Counter(ids).items() if n > 1],
        "outside that range": sorted(place.keys() - expected),
    }
    said = [f"{len(all)} {fault} ({first_three(all)})" for fault, all in faults.items() if all]
    if said:
        raise InputError(
            f"The ids of the {what} should be {split}_00000 to {split}_{len(ids) - 1:05d}, each "
            f"once, but {' and '.join(said)}: the data set is not whole. Remove the folder and "
            "prepare it again."
        )
    return np.array([place[each] for each in expected])


def _decode(encoded: bytes, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if (image.height, image.width) != shape[:2]:
                found = (image.height, image.width, len(image.getbands()))
                raise ValueError(f"it has the shape {found}, the data set's description {shape}")
            return np.asarray(image.convert(DECODED_CHANNELS[shape[-1]])).reshape(shape)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"The image of record {what} cannot be decoded ({one_line(error)}): prepare the data "
            "set again."
        ) from error


def _indexed(stored: TfdsImages, fields: Fields) -> Listing:
    """What :func:`_gather` gives, from the index file if that is of this state of the data set."""
    files = sorted(stored.folder.glob(f"*-{stored.split}.array_record*"))
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    description = (stored.folder / "dataset_info.json").read_text()
    content = json.dumps([_INDEX_FORMAT, fields, description, states])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    path = stored.folder / f"spa_jax-{stored.split}.npz"
    try:
        # Opened here, as np.load leaves a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            if str(index["fingerprint"]) == fingerprint:
                return Listing(*(index.get(name) for name in Listing._fields))
    except ARCHIVE_ERRORS:
        pass
    listing = _gather(stored, fields)
    arrays = {name: array for name, array in listing._asdict().items() if array is not None}
    # A name of its own for each writer, as hosts that share a disk may all write the same index.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, fingerprint=fingerprint, **arrays)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logging.warning("The labels are gathered again at each start: no index (%s).", error)
    return listing


def _allow_open_files(shards: int) -> None:
    """Lifts the process's soft limit, often 1024, as a reader keeps every shard open."""
    import resource  # Unix only, as array_record is

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * shards + 256  # a training set, its parts and what else the process has open
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed < shards + 64:
        raise InputError(
            f"The data set has {shards} files that stay open while it is read, but a process may "
            f"open {hard} here: raise the limit with `ulimit -n {wanted}`, as root if need be."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

"""The records of one split of a prepared TFDS data set: labels, file names and images."""

import collections
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
from spa_jax.data.sources.broken_files import ARCHIVE_ERRORS, first_three, one_line
from spa_jax.errors import InputError

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


class Records:
    """Records of one split by position; opened by the process that reads, so that it pickles."""

    def __init__(self, folder: Path, split: str):
        self.folder = folder
        self.split = split

    def __reduce__(self) -> tuple[type["Records"], tuple[Path, str]]:
        return Records, (self.folder, self.split)

    def __str__(self) -> str:
        return f"split {self.split!r} in {self.folder}"

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The features of one record, images encoded."""
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


class TfdsImages(EncodedImages):
    """Encoded images of one split, read one by one from its shards when they are asked for.

    Threads may share it. Other processes have to be spawned, as grain's are: array_record's readers
    do not survive a fork.
    """

    def __init__(self, records: Records, field: str, positions: np.ndarray):
        self._records = records
        self._field = field
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> bytes:
        return self._records[int(self._positions[index])][self._field]

    def take(self, indices: np.ndarray) -> "TfdsImages":
        return TfdsImages(self._records, self._field, self._positions[indices])


def read_split(
    records: Records, fields: Fields, count: int, shape: tuple[int, int, int] | None
) -> tuple[LabelledImages, bool]:
    """The examples of a split, and whether they stand in the order in which they were published.

    Every record is read. Where images stay encoded, an index file keeps what they are listed with:
    `spa_jax-<split>.npz` next to the shards. It counts only as long as the description and the
    files of the data set are the same, and is left out where the folder cannot be written.

    Args:
      records: of the split.
      fields: the features to read.
      count: the number of records.
      shape: `(H, W, channels)` to decode images to; None keeps them encoded.
    """
    pixels = np.empty((count, *shape), np.uint8) if shape else None
    index = records.folder / f"spa_jax-{records.split}.npz"
    state = _fingerprint(records, fields)
    listing = None if shape else _read_index(index, state)
    if listing is None:
        listing = _gather(records, fields, pixels, count)
        if not shape:
            _write_index(index, state, listing)
    images = TfdsImages(records, fields.image, listing.positions)
    decoded = images if pixels is None else pixels[listing.positions]
    examples = LabelledImages(decoded, listing.labels, listing.names, str(records))
    return examples, bool(listing.official)


def in_threads(function: Callable[[Any], T], arguments: Iterable[Any]) -> list[T]:
    """Results in the order of the arguments; after an error nothing more is begun."""
    with ThreadPoolExecutor(_THREADS) as executor:
        return list(executor.map(function, arguments))


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


def _gather(records: Records, fields: Fields, pixels: np.ndarray | None, count: int) -> Listing:
    """Reads every record once; `pixels` gets the decoded images."""

    def read(start: int) -> list[tuple[int, str, str]]:
        rows = []
        for position in range(start, min(start + _CHUNK, count)):
            example = {"": b"", **records[position]}
            if pixels is not None:
                what = f"{position} of the {records}"
                pixels[position] = _decode(example[fields.image], pixels.shape[1:], what)
            texts = example[fields.id].decode(), example[fields.file_name].decode()
            rows.append((example[fields.label], *texts))
        return rows

    rows = [row for part in in_threads(read, range(0, count, _CHUNK)) for row in part]
    labels, ids, names = zip(*rows, strict=True)
    order = official_order(ids, records.split, str(records))
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


def _fingerprint(records: Records, fields: Fields) -> str:
    """Changes when the description, or the size or time of a file of the split, does."""
    files = sorted(records.folder.glob(f"*-{records.split}.array_record*"))
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    description = (records.folder / "dataset_info.json").read_text()
    content = json.dumps([_INDEX_FORMAT, fields, description, states])
    return hashlib.sha256(content.encode()).hexdigest()


def _read_index(path: Path, state: str) -> Listing | None:
    """The listing that was kept, or None if there is none of this state of the data set."""
    try:
        # Opened here, as np.load leaves a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            if str(index["fingerprint"]) == state:
                return Listing(*(index.get(name) for name in Listing._fields))
    except ARCHIVE_ERRORS:
        pass
    return None


def _write_index(path: Path, state: str, listing: Listing) -> None:
    """Keeps a listing; a folder that cannot be written is no error, only slower."""
    # A name of its own for each writer, as hosts that share a disk may all write the same index.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    arrays: dict[str, Any] = {"fingerprint": state, **listing._asdict()}
    try:
        with temporary.open("wb") as file:
            kept = {name: array for name, array in arrays.items() if array is not None}
            np.savez_compressed(file, **kept)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logging.warning("The labels are gathered again at each start: no index (%s).", error)


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

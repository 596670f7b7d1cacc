"""The records of one split of a prepared TFDS data set: labels, file names and encoded images."""

import importlib
import io
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from spa_jax.data.dataset import EncodedImages
from spa_jax.data.sources.broken_files import first_three, one_line
from spa_jax.data.sources.tfds_index import Fields, Listing, fingerprint, read_index, write_index
from spa_jax.errors import InputError

_CHUNK = 128  # records that a thread reads in one go
_THREADS = 16  # more than cores, because network disks answer late
DECODED_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Numbers of channels that images are decoded to, with the name that Pillow has for them."""

T = TypeVar("T")


class Records:
    """Records of one split by position; opened by the process that reads, so that it pickles."""

    def __init__(self, folder: Path, split: str, fields: tuple[str, ...]):
        self._folder = folder
        self._split = split
        self._fields = fields
        self._opened: tuple[Any, Any, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Records"], tuple[Path, str, tuple[str, ...]]]:
        return Records, (self._folder, self._split, self._fields)

    def __str__(self) -> str:
        return f"split {self._split!r} in {self._folder}"

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The chosen features of one record, the image encoded."""
        try:
            source, features, decoders = self._open()
            return features.deserialize_example_np(source[position], decoders=decoders)
        except InputError:
            raise
        except (OSError, RuntimeError, LookupError, ValueError, AttributeError) as error:
            raise InputError(
                f"Record {position} of the {self} cannot be read ({one_line(error)}): its file is "
                "damaged. Restore it, or remove the folder and prepare the data set again."
            ) from error

    def _open(self) -> tuple[Any, Any, dict[str, Any]]:
        with self._lock:
            if self._opened is None:
                tfds = import_tfds()
                builder = tfds.builder_from_directory(self._folder)
                _allow_open_files(len(builder.info.splits[self._split].shard_lengths))
                raw = tfds.decode.DeserializeMethod.RAW_BYTES
                source = builder.as_data_source(self._split, deserialize_method=raw)
                chosen = {field: builder.info.features[field] for field in self._fields}
                images = [
                    key for key, kind in chosen.items() if isinstance(kind, tfds.features.Image)
                ]
                decoders = {field: tfds.decode.SkipDecoding() for field in images}
                self._opened = source, tfds.features.FeaturesDict(chosen), decoders
            return self._opened


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


def list_records(folder: Path, split: str, fields: Fields, count: int) -> Listing:
    """Labels and file names of a split; every record is read, so an index file keeps the result.

    The index lies next to the shards as `spa_jax-<split>.npz`. It counts only as long as the
    description and the files of the data set are the same, and is left out where the folder cannot
    be written.
    """
    index = folder / f"spa_jax-{split}.npz"
    state = fingerprint(folder, split, fields)
    known = read_index(index, state)
    if known is not None:
        return known
    wanted = tuple(filter(None, (fields.label, fields.id, fields.file_name)))
    listing = _gather(Records(folder, split, wanted), split, fields, count)
    write_index(index, state, listing)
    return listing


def decode_records(
    folder: Path, split: str, fields: Fields, count: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, Listing]:
    """All images of a split as uint8 `(N, H, W, channels)`, and what else it holds."""
    wanted = tuple(filter(None, (fields.image, fields.label, fields.id, fields.file_name)))
    records = Records(folder, split, wanted)
    images = np.empty((count, *shape), np.uint8)

    def decode(position: int, example: dict[str, Any]) -> None:
        images[position] = _decode(example[fields.image], shape, f"{position} of the {records}")

    listing = _gather(records, split, fields, count, decode)
    return images[listing.positions], listing


def in_threads(function: Callable[[Any], T], arguments: Iterable[Any]) -> list[T]:
    """Results in the order of the arguments; after an error nothing more is begun."""
    executor = ThreadPoolExecutor(_THREADS)
    try:
        return list(executor.map(function, arguments))
    finally:
        executor.shutdown(cancel_futures=True)


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


def _gather(
    records: Records,
    split: str,
    fields: Fields,
    count: int,
    look: Callable[[int, dict[str, Any]], None] | None = None,
) -> Listing:
    """Reads every record once; `look` sees each."""
    labels = np.empty(count, np.int32)

    def read(start: int) -> tuple[list[str], list[str]]:
        ids, names = [], []
        for position in range(start, min(start + _CHUNK, count)):
            example = records[position]
            labels[position] = example[fields.label]
            if fields.id:
                ids.append(example[fields.id].decode())
            if fields.file_name:
                names.append(example[fields.file_name].decode())
            if look:
                look(position, example)
        return ids, names

    parts = in_threads(read, range(0, count, _CHUNK))
    ids = [each for part, _ in parts for each in part]
    names = [each for _, part in parts for each in part]
    order = official_order(ids, split, str(records))
    positions = np.arange(count) if order is None else order
    names = np.array(names)[positions] if fields.file_name else None
    return Listing(labels[positions], positions, order is not None, names)


def official_order(ids: list[str], split: str, what: str) -> np.ndarray | None:
    """Positions in the order of ids such as "train_00042"; None if the ids are of another form."""
    if not any(re.fullmatch(rf"{re.escape(split)}_\d+", each) for each in ids):
        return None
    expected = [f"{split}_{number:05d}" for number in range(len(ids))]
    place = {each: position for position, each in enumerate(ids)}
    twice = {each for position, each in enumerate(ids) if place[each] != position}
    faults = {
        "missing": [each for each in expected if each not in place],
        "there more than once": sorted(twice),
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


def _decode(encoded: bytes, shape: tuple[int, int, int], what: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode = DECODED_CHANNELS[shape[-1]]
            array = np.asarray(image if image.mode == mode else image.convert(mode))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"The image of record {what} cannot be decoded ({one_line(error)}): prepare the data "
            "set again."
        ) from error
    array = array[..., None] if shape[-1] == 1 else array
    if array.shape != shape:
        raise InputError(
            f"The image of record {what} has the shape {array.shape}, but the data set's "
            f"description says {shape}: prepare the data set again."
        )
    return array


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

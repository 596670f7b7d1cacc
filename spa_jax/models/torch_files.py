"""PyTorch's weight files, read without PyTorch and without running anything that they hold."""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from spa_jax.errors import InputError

_MAGIC = 0x1950A86A20F9469CFC6C  # what the older form begins with
_DTYPES = {
    "BFloat16Storage": jnp.bfloat16,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}


class _Storage(NamedTuple):
    """The numbers that tensors share, by their key in the file."""

    kind: str
    key: str
    length: int


class _Tensor(NamedTuple):
    """Which numbers of a storage a tensor has."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of what `torch.save` wrote, in its zip form or in the one before it.

    The file's pickle gets dictionaries, lists, numbers, texts and descriptions of tensors, and
    nothing else: any other name that it asks for is refused, so that no code of its runs.

    Args:
      path: of the file.

    Returns:
      Tensors by their names; those in dictionaries within dictionaries have all keys in their
      names, `state_dict.module.conv1.weight`. They are read-only.

    Raises:
      InputError: the file cannot be read, is cut off, or asks for anything but tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive)
        return _read_legacy(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except Exception as error:  # a broken file can raise anything at all
        raise InputError(
            f"{path} is cut off, or is no file that torch.save wrote ({type(error).__name__}: "
            f"{error}): fetch it again."
        ) from error


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Of a zip file with `NAME/data.pkl` and the numbers of each storage in `NAME/data/KEY`."""
    (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    root = pickled.removesuffix("data.pkl")

    def read(name: str) -> bytes:
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # as torch.save never does
            raise ValueError(f"{name} is compressed")
        return archive.read(name)

    if f"{root}byteorder" in archive.namelist() and read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    content = _TensorUnpickler(io.BytesIO(read(pickled))).load()
    return _arrays(content, lambda storage: read(f"{root}data/{storage.key}"))


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    """Of five pickles one after the other, then a length and the numbers of each storage."""
    file = io.BytesIO(content)
    if _TensorUnpickler(file).load() != _MAGIC:
        raise ValueError("it begins otherwise")
    _, machine = _TensorUnpickler(file).load(), _TensorUnpickler(file).load()
    if not machine["little_endian"]:
        raise ValueError("its numbers are not little-endian")
    main = _TensorUnpickler(file)
    found, keys, places = main.load(), _TensorUnpickler(file).load(), {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        size = length * _dtype(main.storages[key]).itemsize
        places[key] = file.tell(), size
        file.seek(size, io.SEEK_CUR)

    def read(storage: _Storage) -> bytes:
        start, size = places[storage.key]
        return content[start : start + size]

    return _arrays(found, read)


class _TensorUnpickler(pickle.Unpickler):
    """Reads plain containers and descriptions of tensors; every other global is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) not in _ADMITTED:
            raise InputError(
                f"is refused: it asks for {f'{module}.{name}'!r}, and weights need nothing but "
                "tensors. Where you trust the file, save them alone with PyTorch: "
                "torch.save(model.state_dict(), FILE)."
            )
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, length, *view = pid
        if tag != "storage" or kind not in _DTYPES or any(view):
            raise pickle.UnpicklingError(f"storage {pid}")
        return self.storages.setdefault(key, _Storage(kind, key, length))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: object, *_: object) -> object:
    return tensor


_ADMITTED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _dtype(storage: _Storage) -> np.dtype:
    return np.dtype(_DTYPES[storage.kind])


def _arrays(content: Any, read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """The tensors in dictionaries within dictionaries, each of which is entered once."""
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, np.ndarray] = {}
    entered: set[int] = set()

    def enter(name: str, value: Any) -> None:
        if isinstance(value, _Tensor):
            storage = value.storage
            if storage.key not in numbers:
                numbers[storage.key] = np.frombuffer(read(storage), _dtype(storage))
            if len(numbers[storage.key]) != storage.length:
                raise ValueError(f"{name} is cut off")
            arrays[name] = _view(numbers[storage.key], value)
        elif isinstance(value, dict) and id(value) not in entered:
            entered.add(id(value))
            for key, inner in value.items():
                enter(f"{name}.{key}" if name else str(key), inner)

    enter("", content)
    return arrays


def _view(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """A tensor of a storage, none of which lies outside of it."""
    sides = [*zip(tensor.shape, tensor.strides, strict=True)]
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise ValueError("a tensor has a negative size")
    last = tensor.offset + sum((side - 1) * stride for side, stride in sides)
    if math.prod(tensor.shape) and last >= len(numbers):
        raise ValueError("a tensor is longer than its numbers")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )

"""Imports the weights of a network that was trained elsewhere, for runs to start from.

python -m spa_jax.models.import_weights FILE --model=resnet50 --out=DIR

FILE is in the safetensors format, or what torch.save wrote; nothing that it holds is run. Networks
and names are those of `PEER_NAMES`. A run starts from DIR by `config.init.run`.
"""

import argparse
import difflib
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import spa_jax.extras  # noqa: F401

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from spa_jax.errors import InputError, with_status
from spa_jax.files import local_path, output_folder
from spa_jax.models.networks import NETWORKS
from spa_jax.models.peer_names import PEER_NAMES, Naming
from spa_jax.models.torch_files import read_torch
from spa_jax.options import NoOptions

IMPORTED = "imported_weights.npz"
"""The file that an import writes."""

_COUNTER = "num_batches_tracked"
_PROJECTIONS = ("query", "key", "value")  # one tensor elsewhere, one below the other
_SHOWN = 5

Shapes = Mapping[str, tuple[int, ...]]


class Fitted(NamedTuple):
    """Weights of a file that a network has places for.

    Attributes:
      arrays: float32, by their paths below the network, such as `params/layer1_0/conv1/kernel`.
      naming: whose names the file has.
      prefix: what stands before each of them.
      left_over: the other tensors, but for counters of batches.
    """

    arrays: dict[str, np.ndarray]
    naming: Naming
    prefix: str
    left_over: list[str]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by their names, whichever of the formats it has.

    Raises:
      InputError: it cannot be read, see also :func:`spa_jax.models.torch_files.read_torch`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    if start[8:] != b"{":  # after its length, the header of safetensors
        return read_torch(path)
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f"{path} is in the safetensors format, which takes the package of that name: "
            "pip install 'spa_jax[train,weights]'."
        ) from error
    try:
        with safe_open(path, framework="flax") as file:
            return {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is cut off or changed ({error}): fetch it again.") from error


def network_shapes(model: str, image_size: int = 224) -> Shapes:
    """The shapes of a network's parameters and statistics, by their paths.

    Args:
      model: a name of `PEER_NAMES`.
      image_size: pixels on each side, by which a vision transformer has positions.

    Raises:
      InputError: another name, or a size that the network cannot have.
    """
    if model not in PEER_NAMES:
        near = difflib.get_close_matches(model, PEER_NAMES, n=1)
        hint = f" Is {near[0]} meant?" if near else ""
        raise InputError(
            f"Weights can be imported for {', '.join(PEER_NAMES)}; got --model={model}.{hint}"
        )
    network = NETWORKS[model].make(NoOptions(), jnp.dtype("float32"), None)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes: Any = jax.eval_shape(
        lambda image: network.init(jax.random.key(0), image, train=False), image
    )
    leaves: dict[str, Any] = flatten_dict(shapes, sep="/")
    return {path: leaf.shape for path, leaf in leaves.items()}


def fit_weights(
    tensors: Mapping[str, np.ndarray],
    shapes: Shapes,
    namings: Sequence[Naming],
    prefix: str | None = None,
    leave_out: Sequence[str] = (),
) -> Fitted:
    """Finds a tensor for each parameter and statistic of a network.

    Args:
      tensors: of the file, by their names.
      shapes: of the network, see :func:`network_shapes`.
      namings: the names that they may have.
      prefix: what stands before these, such as `module.backbone.`; None: found from them.
      leave_out: what names begin with, behind the prefix, that may be left over, besides those of
        the classifier.

    Raises:
      InputError: the file has weights of another network, or lacks some of this one; or it has more
        than this network and a classifier, or several such networks.
    """
    names = {naming: {path: naming.name(path) for path in shapes} for naming in namings}
    naming, start = _find_naming(tensors, names, prefix)
    wanted = {path: start + name for path, name in names[naming].items()}
    if missing := sorted({*wanted.values()} - {*tensors}):
        raise InputError(
            f"lacks {len(missing)} of the tensors of this network, such as "
            f"{', '.join(missing[:_SHOWN])}: set --model to what its weights are of."
        )
    arrays = {path: _fit(tensors[name], name, path, shapes[path]) for path, name in wanted.items()}
    left_over = [
        name for name in tensors.keys() - wanted.values() if name.rpartition(".")[2] != _COUNTER
    ]
    classifier = re.compile("|".join([naming.classifier, *map(re.escape, leave_out)]))
    inner = [name.removeprefix(start) for name in left_over if name.startswith(start)]
    # Those that a network has no place for are missing in what it computes.
    if beyond := sorted(name for name in inner if not classifier.match(name)):
        raise InputError(
            f"has {len(beyond)} tensors that this network has no place for, such as "
            f"{', '.join(beyond[:_SHOWN])}: set --model to what its weights are of; or name what "
            "is no part of the network by --leave_out."
        )
    return Fitted(arrays, naming, start, sorted(left_over))


def _find_naming(
    tensors: Mapping[str, np.ndarray],
    names: Mapping[Naming, Mapping[str, str]],
    prefix: str | None,
) -> tuple[Naming, str]:
    """Whose names most tensors have, and what stands before these."""
    wanted = {naming: {*of_naming.values()} for naming, of_naming in names.items()}
    found: Counter[tuple[Naming, str]] = Counter()
    for name in tensors:
        for place in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            if prefix is None or prefix.rstrip(".") == name[:place].rstrip("."):
                has = (naming for naming in wanted if name[place:] in wanted[naming])
                found.update((naming, name[:place]) for naming in has)
    if not found:
        sought = " or ".join(f"{prefix or ''}{min(of_naming)}" for of_naming in wanted.values())
        raise InputError(
            f"holds no weights of this network, which would be called {sought} and so on: it has "
            f"{len(tensors)} tensors, {', '.join([*tensors][:_SHOWN]) or 'none'} ...; set --model "
            "to what they are of."
        )
    (best, _), *_ = found.most_common(1)
    whole = [start for (naming, start), count in found.items() if count == len(wanted[naming])]
    if len(whole) > 1:
        raise InputError(
            "holds several networks, whose names begin with "
            f"{', '.join(map(repr, sorted(whole)))}: choose one by --prefix."
        )
    return best


def _peer_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the tensor of a parameter has elsewhere."""
    *layers, leaf = path.split("/")
    if len(shape) == 4:  # (height, width, in, out)
        return (*shape[:1:-1], *shape[:2])
    if layers[-1] in _PROJECTIONS:  # (in, heads, out of each), or without the first
        return (3 * math.prod(shape[1:]), shape[0]) if leaf == "kernel" else (3 * math.prod(shape),)
    return (shape[-1], math.prod(shape[:-1])) if leaf == "kernel" else shape


def _fit(tensor: np.ndarray, name: str, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a file in the layout of a parameter, in float32."""
    there, layer = _peer_shape(path, shape), path.split("/")[-2]
    # Without the sides of a 1x1 convolution, and of the scales of an image's channels.
    cut = tensor.shape[: len(there)] if {*tensor.shape[len(there) :]} <= {1} else tensor.shape
    if cut != there:
        remedy = ", or --image_size to that of its images" if path.endswith("positions") else ""
        raise InputError(
            f"has {name} of shape {list(tensor.shape)}, and this network needs {list(there)}: set "
            f"--model to what its weights are of{remedy}."
        )
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(f"has {name} in {tensor.dtype}, and weights are floating numbers.")
    array = np.asarray(tensor, np.float32).reshape(there)
    if not np.isfinite(array).all():
        raise InputError(f"has NaN or infinity in {name}: fetch it again, or take other weights.")
    if len(shape) == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if layer in _PROJECTIONS:
        array = np.split(array, 3)[_PROJECTIONS.index(layer)]
    return np.ascontiguousarray(array.T if array.ndim == 2 else array).reshape(shape)


def import_weights(
    file: Path,
    model: str,
    out: Path,
    prefix: str | None = None,
    image_size: int = 224,
    leave_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the weights of a file as a run can start from them.

    Args:
      file: in one of the formats of :func:`read_tensors`.
      model: a name of `PEER_NAMES`.
      out: the folder that gets `IMPORTED`.
      prefix: as in :func:`fit_weights`.
      image_size: as in :func:`network_shapes`.
      leave_out: as in :func:`fit_weights`.

    Returns:
      The record that is written with the weights: `model`, `image_size`, `file`, its SHA-256
      `file_checksum`, whose `names` it has, their `prefix`, what is `left_over`, and the `shapes`.

    Raises:
      InputError: weights that do not fit, see :func:`fit_weights`, or nothing can be written there.
    """
    shapes = network_shapes(model, image_size)
    out = output_folder(out, "--out")
    tensors = read_tensors(file)
    try:
        fitted = fit_weights(tensors, shapes, PEER_NAMES[model], prefix, leave_out)
    except InputError as error:
        raise InputError(f"{file}, for --model={model}, {error}") from error
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
    # A run has them one level deeper, as in params/backbone/conv1/kernel.
    arrays = {path.replace("/", "/backbone/", 1): array for path, array in fitted.arrays.items()}
    record = {
        "model": model,
        "image_size": image_size,
        "file": file.name,
        "file_checksum": checksum,
        "names": fitted.naming.library,
        "prefix": fitted.prefix,
        "left_over": {name: list(tensors[name].shape) for name in fitted.left_over},
        "shapes": {path: list(array.shape) for path, array in arrays.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{IMPORTED}.tmp"
    with temporary.open("wb") as target:
        written: dict[str, Any] = {"record": np.array(json.dumps(record)), **arrays}
        np.savez(target, **written)
    temporary.rename(out / IMPORTED)
    return record


def imported_record(folder: Path) -> dict[str, Any]:
    """The record of what :func:`import_weights` wrote to a folder, see there.

    Raises:
      InputError: it is not there, is damaged, or is of something else.
    """
    return _read_import(folder, lambda arrays: json.loads(str(arrays["record"])))


def read_imported(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that :func:`import_weights` wrote, as `params/backbone/layer1_0/conv1/kernel`.

    Raises:
      InputError: as :func:`imported_record`.
    """
    paths = imported_record(folder)["shapes"]
    return _read_import(folder, lambda arrays: {path: arrays[path] for path in paths})


def _read_import(folder: Path, read: Callable[[Mapping[str, np.ndarray]], Any]) -> Any:
    path = folder / IMPORTED
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return read(arrays)
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for damaged files
        raise InputError(
            f"{path} cannot be read ({error}): import the weights again, with "
            "python -m spa_jax.models.import_weights."
        ) from error


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Imports a file and prints what it found; 2 with a message where nothing is written."""
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.models.import_weights",
        description="Imports the weights of a network that was trained elsewhere.",
    )
    parser.add_argument("file", metavar="FILE", help="safetensors, or what torch.save wrote")
    parser.add_argument("--model", required=True, help=", ".join(PEER_NAMES))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder that is written to")
    parser.add_argument("--prefix", help="what stands before the names; found where there is one")
    parser.add_argument(
        "--image_size", type=int, default=224, help="of a vision transformer's images"
    )
    parser.add_argument(
        "--leave_out", default="", help="what other names begin with, by commas, that have no place"
    )
    values = parser.parse_args(argv)
    file, out = local_path(values.file, "FILE"), local_path(values.out, "--out")
    leave_out = [*filter(None, values.leave_out.split(","))]
    record = import_weights(file, values.model, out, values.prefix, values.image_size, leave_out)
    print(_report(record, out))


def _report(record: Mapping[str, Any], out: Path) -> str:
    """What was imported, in a few lines."""
    before = f" behind {record['prefix']}" if record["prefix"] else ""
    left = [f"{name} {shape}" for name, shape in record["left_over"].items()]
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return "\n".join(
        [
            f"{record['file']} (SHA-256 {record['file_checksum']}) is in {out}:",
            f"  {len(record['shapes'])} arrays of {record['model']}, as {record['names']} name "
            f"them{before}; none is missing",
            f"  left over: {', '.join(left[:_SHOWN]) or 'nothing'}{more}",
            f"  next: --config.model.name={record['model']} --config.init.run={out} "
            "--config.init.parts=backbone",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

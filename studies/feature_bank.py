"""Makes a bank of frozen ImageNet features of CIFAR-10 or CIFAR-100, 1,280 numbers an image.

python -m spa_jax.models.import_weights FILE --model=efficientnet_lite0 --out=WEIGHTS
python -m studies.feature_bank DATA --weights=WEIGHTS --out=OUT [--names=cifar10,cifar100]

DATA holds the official files. OUT/NAME has `train.npz` and `test.npz` in their order, which
`configs/features.py` trains on, and `bank.json`, what they were made of. Images are enlarged to
128 x 128. The command goes on from where it was stopped. Banks of the same images and weights count
as the same data, though another machine rounds some features otherwise.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Float16, UInt8

from spa_jax.command_line import keep_compiled_programs
from spa_jax.data.augment.normalization import NORMALIZATIONS
from spa_jax.data.sources.cifar_files import read_cifar
from spa_jax.errors import InputError, with_status
from spa_jax.files import local_path, output_folder, read_json, write_json
from spa_jax.models.efficientnet_lite import EfficientNetLite
from spa_jax.models.import_weights import imported_record, read_imported

SIDE = 128
_NORMALIZATION = "efficientnet_lite"
_SHARPNESS = -0.75  # of the cubic, as PyTorch and OpenCV have it
_BATCH = 10  # whose activations fit the caches of a CPU
_CHUNK = 1000  # images that a stop may cost

Extract = Callable[[UInt8[np.ndarray, "B H W K"]], Float16[Array, "B D"]]


def cubic_matrix(size: int, target: int) -> Float[np.ndarray, "target size"]:
    r"""Cubic interpolation of `size` pixels at `target` places, the outer pixels repeated.

    With :math:`a = -0.75` a pixel at distance :math:`t` has the weight

    .. math::
       (a + 2) t^3 - (a + 3) t^2 + 1 \; (t \le 1), \qquad
       a t^3 - 5 a t^2 + 8 a t - 4 a \; (1 < t \le 2).

    Args:
      size: pixels there are.
      target: pixels there will be, `size` or more.

    Returns:
      `(target, size)` float32; rows add up to 1.

    Example:
      >>> cubic_matrix(2, 4)[0].astype(float).round(2).tolist()
      [1.11, -0.11]

    Reference:
      Keys, "Cubic convolution interpolation for digital image processing", IEEE ASSP, 1981.
    """
    a, matrix = _SHARPNESS, np.zeros((target, size))
    centres = (np.arange(target) + 0.5) * size / target - 0.5
    first = np.floor(centres).astype(int)
    for pixel in range(-1, 3):
        t = np.abs(centres - first - pixel)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        np.add.at(
            matrix,
            (np.arange(target), np.clip(first + pixel, 0, size - 1)),
            np.where(t <= 1, near, far),
        )
    return matrix.astype(np.float32)


def make_extract(weights: Path) -> tuple[Extract, dict[str, Any]]:
    """The network of imported weights, from images as they are kept to features.

    Args:
      weights: the folder of the import.

    Returns:
      The compiled function, whose features are `(B, 1280)` float16 in [0, 6], and the record of
      the import.

    Raises:
      InputError: they are not there, or of another network.
    """
    record = imported_record(weights)
    if record["model"] != "efficientnet_lite0":
        raise InputError(
            f"{weights} has the weights of {record['model']}, and features are made by "
            "efficientnet_lite0: import those."
        )
    tree = unflatten_dict(read_imported(weights), sep="/")
    variables = jax.device_put({name: part["backbone"] for name, part in tree.items()})

    @jax.jit
    def extract(variables: Any, images: Array) -> Array:
        rows, columns = (cubic_matrix(side, SIDE) for side in images.shape[1:3])
        x = jnp.einsum("ih,bhwk,jw->bijk", rows, images.astype(jnp.float32), columns)
        (mean,), (deviation,) = NORMALIZATIONS[_NORMALIZATION]
        x = (x - mean) / deviation
        features: Any = EfficientNetLite().apply(variables, x, train=False)
        return features.astype(jnp.float16)

    return lambda images: extract(variables, images), record


def make_bank(name: str, data: Path, extract: Extract, made_of: dict[str, Any], out: Path) -> None:
    """Writes the bank of one data set; what is there of it is kept.

    Args:
      name: "cifar10" or "cifar100".
      data: the folder with the official files.
      extract: see :func:`make_extract`.
      made_of: what the bank's record says beside a checksum of the images.
      out: the bank's folder.

    Raises:
      InputError: data that are not the official ones, or a bank that was made of something else.
    """
    source = read_cifar(name, data, made_of["verified"])
    parts = {"train": source.train, "test": source.test}
    images = {part: np.asarray(examples.images) for part, examples in parts.items()}
    digest = hashlib.sha256(b"".join(map(np.ndarray.tobytes, images.values())))
    made_of = {**made_of, "images_checksum": digest.hexdigest()}
    place = output_folder(out, "--out") / "bank.json"
    if place.exists() and read_json(place, "remove the folder.") != made_of:
        raise InputError(f"{out} was made of other weights or images: choose another --out.")
    write_json(place, made_of)
    for part, examples in parts.items():
        target, pieces = out / f"{part}.npz", out / f"{part}.pieces"
        if target.exists():
            continue
        pieces.mkdir(exist_ok=True)
        features = _in_pieces(f"{name} {part}", images[part], extract, pieces)
        temporary = out / f".{part}.tmp.npz"
        origin = {key: value for key, value in made_of.items() if key != "verified"} | {
            "part": part
        }
        np.savez(
            temporary,
            feature=features,
            label=examples.labels,
            class_names=np.array(source.class_names),
            made_of=np.array(json.dumps(origin, sort_keys=True)),
        )
        temporary.rename(target)
        shutil.rmtree(pieces)
        print(f"{target}: {features.shape[0]:,} x {features.shape[1]:,} {features.dtype}")


def _in_pieces(what: str, images: np.ndarray, extract: Extract, folder: Path) -> np.ndarray:
    """Features of all images, those on disk and those that are computed, `_CHUNK` at a time."""
    began, done, found = time.monotonic(), 0, []
    for start in range(0, len(images), _CHUNK):
        piece, chunk = folder / f"{start:08d}.npy", images[start : start + _CHUNK]
        if not piece.exists():
            features = [extract(chunk[at : at + _BATCH]) for at in range(0, len(chunk), _BATCH)]
            temporary = piece.with_suffix(".tmp.npy")
            np.save(temporary, np.concatenate(features))
            temporary.rename(piece)
            done += len(chunk)
            rate, left = done / (time.monotonic() - began), len(images) - start - len(chunk)
            print(
                f"{what}: {start + len(chunk):,} of {len(images):,} images, {rate:.0f} a second, "
                f"{left / rate / 60:.0f} min left",
                flush=True,
            )
        found.append(np.load(piece))
    return np.concatenate(found)


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Makes the banks; 2 with a message if one cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.feature_bank",
        description="Makes banks of frozen ImageNet features of CIFAR.",
    )
    parser.add_argument("data", metavar="DATA", help="folder of the official files")
    parser.add_argument("--weights", required=True, help="folder of imported weights")
    parser.add_argument("--out", required=True, help="folder that gets a bank for each name")
    parser.add_argument("--names", default="cifar10,cifar100", help="of data sets, by commas")
    parser.add_argument("--no-verify", action="store_true", help="admit other than official files")
    values = parser.parse_args(argv)
    keep_compiled_programs()
    data, out = local_path(values.data, "DATA"), output_folder(values.out, "--out")
    extract, record = make_extract(local_path(values.weights, "--weights"))
    made_of = {
        "model": record["model"],
        "weights_checksum": record["file_checksum"],
        "side": SIDE,
        "normalization": _NORMALIZATION,
        "verified": not values.no_verify,
    }
    names = values.names.split(",")
    for name in names:  # or what is wrong with the second would be told after the first's hours
        read_cifar(name, data, made_of["verified"])
    for name in names:
        make_bank(name, data, extract, made_of, out / name)


if __name__ == "__main__":
    sys.exit(main())

"""The images that some runs of a table read, in a file small enough to carry to another machine.

python -m benchmarks.gpu_data pack FOLDER FILE.npz RUN ...
python -m benchmarks.gpu_data unpack FILE.npz FOLDER

`pack` reads CIFAR-10 from a folder, as `config.data.folder` names it, and writes its labels, its
test images and the training images of the runs, as lossless WebP; a RUN is named as for
`python -m spa_jax.reproduce cifar10 --only`. `unpack` makes `train.npz` and `test.npz` of it, in
which the images that no such run reads are black: those runs compute what they do on all images.
"""

import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import LabelledImages
from spa_jax.data.sources.opening import read_source
from spa_jax.data.splits.splitting import make_split
from spa_jax.errors import InputError
from spa_jax.reproduction.tables import TABLES
from spa_jax.training.config import resolve

_STRIP = 500  # images: WebP has 16,383 rows at most


def chosen_positions(source: Any, runs: Sequence[str]) -> np.ndarray:
    """Positions of the training examples that any of the runs takes, ascending."""
    plan = TABLES["cifar10"]
    cells = [cell for cell in plan.cells([]) if {cell.name, cell.group_name} & {*runs}]
    known = {name for cell in cells for name in (cell.name, cell.group_name)}
    if strange := [run for run in runs if run not in known]:
        raise InputError(f"The table cifar10 has no run {strange[0]}: see `reproduce --only`.")
    # Each image is its own position, so that a split says what it took.
    count = np.arange(len(source.train), dtype=np.uint32)
    numbered = LabelledImages(count.view(np.uint8).reshape(-1, 1, 1, 4), source.train.labels)
    numbered_source = dataclasses.replace(source, train=numbered, test=numbered)
    taken = [
        np.asarray(make_split(numbered_source, options).train.images)
        for options in {resolve(plan.config(cell)).data for cell in cells}
    ]
    return np.unique(np.concatenate(taken).reshape(-1, 4).view(np.uint32))


def pack(folder: Path, runs: Sequence[str], verify: bool = True) -> dict[str, Any]:
    """The arrays of the file: labels, positions, class names, and images as strips of WebP."""
    source = read_source(DataOptions(name="cifar10", folder=str(folder), verify=verify))
    positions = chosen_positions(source, runs)
    train, test = (np.asarray(part.images) for part in (source.train, source.test))
    images = np.concatenate([train[positions], test])
    strips = [_encoded(images[i : i + _STRIP]) for i in range(0, len(images), _STRIP)]
    return {
        "positions": positions,
        "train_label": source.train.labels,
        "test_label": source.test.labels,
        "class_names": np.array(source.class_names),
        "strips": np.frombuffer(b"".join(strips), np.uint8),
        "lengths": np.array([len(strip) for strip in strips]),
    }


def unpack(packed: Any, folder: Path) -> None:
    """Writes `train.npz` and `test.npz`."""
    ends = np.cumsum(packed["lengths"])
    parts = np.split(packed["strips"], ends[:-1])
    images = np.concatenate([_decoded(part.tobytes()) for part in parts])
    positions, labels = packed["positions"], packed["train_label"]
    train = np.zeros((len(labels), *images.shape[1:]), np.uint8)
    train[positions] = images[: len(positions)]
    folder.mkdir(parents=True, exist_ok=True)
    names = packed["class_names"]
    np.savez(folder / "train.npz", image=train, label=labels, class_names=names)
    test, labels = images[len(positions) :], packed["test_label"]
    np.savez(folder / "test.npz", image=test, label=labels, class_names=names)


def _encoded(images: np.ndarray) -> bytes:
    strip = io.BytesIO()
    rows = Image.fromarray(images.reshape(-1, *images.shape[2:]))
    rows.save(strip, "WEBP", lossless=True, quality=100, method=4, exact=True)
    return strip.getvalue()


def _decoded(strip: bytes) -> np.ndarray:
    rows = np.asarray(Image.open(io.BytesIO(strip)).convert("RGB"))
    return rows.reshape(-1, rows.shape[1], rows.shape[1], 3)


def main(argv: Sequence[str]) -> int:
    """Packs or unpacks; 2 with a message if the input is wrong."""
    try:
        match argv:
            case ["pack", folder, file, run, *others]:
                np.savez(file, **pack(Path(folder), [run, *others]))
                print(f"{file}: {Path(file).stat().st_size / 2**20:.1f} MiB")
            case ["unpack", file, folder]:
                with np.load(file, allow_pickle=False) as packed:
                    unpack(packed, Path(folder))
            case _:
                raise InputError(str(__doc__))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

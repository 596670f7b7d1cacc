"""The runs of a report: which folders hold one, and what they recorded."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from spa_jax.alignment.class_means import directions_of
from spa_jax.errors import InputError
from spa_jax.files import read_json

unit_directions = jax.jit(directions_of, static_argnums=1)
"""Compiled whole, which takes a tenth of the time of its steps one by one."""

# What the page cannot do without; everything else in `summary.json` may be missing.
_NEEDED = ("test_accuracy", "class_counts", "class_names", "split_checksum", "seed", "heads")

# What the fields that are looked into hold; those that are not needed may be null too.
_ACCURACIES = ("test_accuracy", "balanced_accuracy", "validation_accuracy")
_GROUPS = ("shot_groups", "balanced_shot_groups")
_COSINES = ("mean_cosine", "min_cosine", "test_mean_cosine", "test_min_cosine")
_PER_CLASS = ("per_class_accuracy", "per_class_cosine", "per_class_test_cosine")
_KINDS: dict[str, Any] = {
    **dict.fromkeys((*_ACCURACIES, *_GROUPS, "heads", "init"), dict),
    **dict.fromkeys((*_COSINES, "wall_time_seconds"), int | float),
    **dict.fromkeys((*_PER_CLASS, "class_names", "class_counts", "test_class_counts"), list),
    **{"split_checksum": str, "seed": int},
}

_REMEDY = "restore the file, or delete the folder and run the experiment again."
_OF_EVALUATIONS = ("what", "params_checksum", "balanced", "calibration", "confusion", "tau_sweep")


@dataclass(frozen=True)
class Geometry:
    """The content of `geometry.npz`: `(H, C, D)` weights, `(C, D)` class means, not centred."""

    weights: np.ndarray
    heads: tuple[str, ...]
    train_means: np.ndarray
    test_means: np.ndarray


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      folder: where it was found, as it was given.
      config: its fields by their dotted names; lists for tuples.
      lines: the lines of `metrics.jsonl`.
      summary: the content of `summary.json`.
      geometry: the content of `geometry.npz`; None if the run has none.
      evaluations: what `python -m spa_jax.evaluate` found, by what it evaluated on.
    """

    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    geometry: Geometry | None
    evaluations: dict[str, dict[str, Any]]

    def training_cosines(self) -> Float[np.ndarray, "H C"]:
        r"""Cosines of the weights that SpA acts on and the means of clean training features.

        .. math:: \cos(w_c, \hat\mu_c)

        Returns:
          A row a head of `summary["heads"]`; NaN for a class without a direction.

        Raises:
          InputError: there is no `geometry.npz`.
        """
        if self.geometry is None:
            raise InputError(
                f"{self.folder} has no geometry.npz: run it again in a new folder with "
                "--config.logging.collapse=True."
            )
        center = self.config.get("spa.center", True)
        directions = np.asarray(unit_directions(self.geometry.train_means, center), dtype=float)
        rows = [self.geometry.heads.index(head) for head in self.summary["heads"]]
        weights = self.geometry.weights[rows].astype(float)
        with np.errstate(invalid="ignore"):  # 0 / 0 of a weight without a direction
            cosines = (weights * directions).sum(axis=2) / np.linalg.norm(weights, axis=2)
        return np.where(directions.any(axis=1), cosines, np.nan)


def find_run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs that `paths` name; a folder of runs stands for the runs in it.

    Args:
      paths: folders that hold a `config.json`, or whose subfolders do.

    Returns:
      Each folder once, in the order given; the runs in a folder by name.

    Raises:
      InputError: a path that is no folder, or a folder without a run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            kind = "is a file, not the folder of a run" if path.exists() else "does not exist"
            raise InputError(f"{path} {kind}: give {_WHAT_TO_GIVE}.")
        folders = [path] if _is_run(path) else sorted(filter(_is_run, path.iterdir()))
        if not folders:
            raise InputError(
                f"{path} is no run: neither it nor a folder in it holds a config.json. "
                f"Give {_WHAT_TO_GIVE}."
            )
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise InputError(f"No run was given: give {_WHAT_TO_GIVE}.")
    return list(found.values())


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], dict[Path, str]]:
    """Reads the finished runs; those still being written are left out, with the reason.

    Args:
      folders: folders of runs, see :func:`find_run_folders`.

    Returns:
      The finished runs, and the folders that were left out, with how far their runs came.

    Raises:
      InputError: a damaged file, no finished run, or runs with different numbers of classes.
    """
    done = [folder for folder in folders if (folder / "summary.json").exists()]
    runs = [read_run(folder) for folder in done]
    left_out = {folder: _how_far(folder) for folder in folders if folder not in done}
    if not runs:
        waiting = _first(f"{folder} ({reason})" for folder, reason in left_out.items())
        raise InputError(
            f"None of the {len(left_out)} runs is finished: {waiting}. Wait for them, or run their "
            "command again to continue them."
        )
    _check_num_classes(runs)
    return runs, left_out


def read_run(folder: Path) -> Run:
    """Reads the files of one finished run.

    Args:
      folder: with `config.json`, `metrics.jsonl`, `summary.json`, and perhaps `geometry.npz` and
        `evaluation_*.json`.

    Returns:
      The run.

    Raises:
      InputError: a file that is missing, damaged or of another shape; the message names it.
    """
    summary = read_json(folder / "summary.json", _REMEDY)
    missing = [key for key in _NEEDED if key not in summary]
    if missing:
        raise InputError(
            f"{folder / 'summary.json'} lacks {', '.join(missing)}: it was not written by this "
            "library, or by an older version of it; run the experiment again."
        )
    with _damage_told(folder / "summary.json"):
        _check_summary(summary)
    config = flatten_dict(read_json(folder / "config.json", _REMEDY), sep=".")
    with _damage_told(folder / "metrics.jsonl") as path:
        lines = _lines(path)
    with _damage_told(folder / "geometry.npz") as path:
        geometry = _geometry(path, len(summary["class_counts"])) if path.exists() else None
    needed: Any = dict.fromkeys(_OF_EVALUATIONS, object)
    found = [read_json(path, _REMEDY, needed) for path in sorted(folder.glob("evaluation_*.json"))]
    of_weights = summary.get("params_checksum")  # the run may have been trained anew since
    evaluations = {one["what"]: one for one in found if one["params_checksum"] == of_weights}
    return Run(folder, config, lines, summary, geometry, evaluations)


_WHAT_TO_GIVE = (
    "folders that `train.py --workdir` or `python -m spa_jax.compare --out` wrote, for example "
    "runs/demo"
)


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def _how_far(folder: Path) -> str:
    epochs = read_json(folder / "config.json", _REMEDY).get("epochs", "an unknown number")
    path = folder / "metrics.jsonl"
    # Whole lines only: the last one may be half-written at this moment.
    done = path.read_text().count("\n") if path.exists() else 0
    return f"still being written, or cut off: epoch {done} of {epochs}, no summary.json yet"


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[Path]:
    """An InputError that names a file for whatever reading a damaged one raises."""
    try:
        yield path
    except Exception as error:  # archives raise many kinds
        raise InputError(f"{path} cannot be read ({error}): {_REMEDY}") from error


def _check_summary(summary: dict[str, Any]) -> None:
    """Raises ValueError or TypeError for fields that hold something else than a run writes."""
    for field, kind in _KINDS.items():
        found = summary.get(field)
        if not isinstance(found, kind) and (found is not None or field in _NEEDED):
            raise ValueError(f"its {field} is {found!r}"[:200])
    for field in _ACCURACIES:
        last = (summary.get(field) or {}).get("last", 0.0)
        if not isinstance(last, int | float):
            raise ValueError(f"the last {field} is {last!r}"[:200])
    counts = [*summary["class_counts"], *(summary.get("test_class_counts") or ())]
    if not all(isinstance(images, int) for images in counts):
        raise ValueError("its class_counts or test_class_counts are no numbers of images")
    of_groups = [summary.get(name) or {} for name in _GROUPS]
    rows = [[sizes.get(group) for group in ("many", "medium", "few")] for sizes in of_groups]
    rows += [[*values.values()] for values in summary["heads"].values()]
    if any(np.array(row, float).ndim != 1 for row in rows):
        raise ValueError("its shot_groups or heads hold something else than numbers")
    num_classes = len(summary["class_counts"])
    for field in ("class_names", "test_class_counts"):
        if summary.get(field) and len(summary[field]) != num_classes:
            raise ValueError(f"its {field} are not {num_classes}, one for each class")
    for field in _PER_CLASS:
        if summary.get(field) is not None:  # a list, or one for each head
            shape = np.array(summary[field], float).shape
            if len(shape) not in (1, 2) or shape[-1] != num_classes:
                raise ValueError(f"its {field} is no list of {num_classes} numbers")


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
    if not lines or not all(isinstance(line, dict) and "epoch" in line for line in lines):
        raise ValueError("it does not hold one JSON object an epoch")
    return lines


def _geometry(path: Path, num_classes: int) -> Geometry:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        heads = tuple(map(str, arrays["heads"]))
        weights, *means = (arrays[name] for name in ("weights", "train_means", "test_means"))
    shape = weights.shape
    fits = len(shape) == 3 and shape[:2] == (len(heads), num_classes)
    if not fits or any(part.shape != shape[1:] for part in means):
        raise ValueError(
            f"it must hold weights (H, C, D) with H = {len(heads)} heads and C = {num_classes} "
            f"classes, and class means (C, D); got {shape} and "
            f"{', '.join(str(part.shape) for part in means)}"
        )
    return Geometry(weights, heads, *means)


def _check_num_classes(runs: Sequence[Run]) -> None:
    by_number: dict[int, list[Path]] = {}
    for run in runs:
        by_number.setdefault(len(run.summary["class_counts"]), []).append(run.folder)
    if len(by_number) > 1:
        found = [f"{number} ({_first(map(str, paths))})" for number, paths in by_number.items()]
        raise InputError(
            f"These runs have different numbers of classes: {'; '.join(found)}. A report compares "
            "runs on the same classes: make one report for each data set."
        )


def _first(texts: Iterable[str]) -> str:
    """The first three of them, and that there are more."""
    listed = list(texts)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")

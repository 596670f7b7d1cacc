"""The runs of a study: one folder is one data set, its runs differ in SpA method and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.alignment.class_means import directions_of
from spa_jax.errors import InputError
from spa_jax.reporting.finished_runs import Geometry, Run, find_run_folders, read_runs
from spa_jax.reporting.grouping import Group, group_runs, paired_runs, why_not_paired
from spa_jax.reporting.statistics import column_value

BASELINE = "none"


@dataclass(frozen=True)
class Experiment:
    """Finished runs on one data set.

    Attributes:
      folder: where they were found.
      groups: the runs of each SpA method, the baseline `none` first.
    """

    folder: Path
    groups: Mapping[str, Group]

    @property
    def baseline(self) -> Group:
        """The runs without SpA."""
        return self.groups[BASELINE]

    @property
    def title(self) -> str:
        """The data set in a few words, and the network if it is not the small convolutional one."""
        first = self.baseline.runs[0]
        parts = [_NAMES.get(first.config["data.name"], first.config["data.name"])]
        if len(set(self.baseline.class_counts)) == 1:
            parts.append("balanced")
        else:
            parts[0] += "-LT"
            parts.append(f"imbalance factor {first.summary['split']['imbalance_factor']:g}")
        order = first.config.get("data.class_order", "label")
        if order != "label":
            parts.append(f"classes {order}")
        if self.network != NETWORKS["small"]:
            parts.append(self.network)
        return ", ".join(parts)

    @property
    def network(self) -> str:
        """The backbone in a few words."""
        name = self.baseline.runs[0].config.get("model.name", "small")
        return NETWORKS.get(name, name)

    def describe(self) -> dict[str, Any]:
        """Where the numbers come from, for the record."""
        first = self.baseline.runs[0]
        return {
            "title": self.title,
            "data": first.config["data.name"],
            "training_images": sum(self.baseline.class_counts),
            "class_counts": self.baseline.class_counts,
            "split_checksum": first.summary["split_checksum"],
            "epochs": len(first.lines),
            "seeds": {
                method: [run.summary["seed"] for run in group.runs]
                for method, group in self.groups.items()
            },
            "params_checksums": {
                method: [run.summary.get("params_checksum") for run in group.runs]
                for method, group in self.groups.items()
            },
            "jax": first.summary["versions"]["jax"],
            "hardware": first.summary["hardware"],
        }


NETWORKS = {
    "small": "convolutional network",
    "vit": "vision transformer",
    "convnext": "ConvNeXt",
}
"""What the small backbones are called."""

_NAMES = {
    "digits": "Digits",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}


def read_experiment(folder: Path, needed: Sequence[str] = (BASELINE,)) -> Experiment:
    """Reads the finished runs of one data set.

    Args:
      folder: what `--out` of `python -m spa_jax.compare` wrote.
      needed: SpA methods that the study cannot do without.

    Returns:
      The runs by method, each with a baseline run of the same seed on the same split.

    Raises:
      InputError: runs that are unfinished, without neural collapse, or differ in more than SpA
        method and seed; a method that is missing, or a seed without its baseline.
    """
    runs, left_out = read_runs(find_run_folders([folder]))
    if left_out:
        raise InputError(f"{left_out[0].folder} is not finished ({left_out[0].reason}): wait.")
    groups = group_runs(runs)
    others = {field for group in groups for field in group.fields} - {"spa.method"}
    if others:
        raise InputError(
            f"The runs in {folder} differ in {', '.join(sorted(others)[:3])}: a study compares "
            "runs that differ in spa.method and seed alone. Give a folder for each data set."
        )
    by_method = {group.method: group for group in groups}
    missing = [method for method in needed if method not in by_method]
    if missing:
        raise InputError(
            f"{folder} has no finished run with spa.method {' or '.join(missing)}, only with "
            f"{', '.join(by_method)}: run spa_jax.compare with "
            f"--methods={','.join(dict.fromkeys([*needed, *by_method]))}."
        )
    for run in runs:
        _check_collapse(run)
    experiment = Experiment(folder, {name: by_method[name] for name in _ordered(by_method)})
    for group in experiment.groups.values():
        _check_paired(group, experiment.baseline, folder)
    return experiment


def pairs(experiment: Experiment, method: str) -> list[tuple[Run, Run]]:
    """Runs of a method with the baseline of the same seed, by seed."""
    return paired_runs(experiment.groups[method], experiment.baseline)


def curve(run: Run, path: tuple[str, ...]) -> np.ndarray:
    """A number over the epochs of a run, `(T,)`; NaN where it was not measured."""
    values = [column_value(line, path) for line in run.lines]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def clean_training_cosines(run: Run) -> np.ndarray:
    r"""Cosines of the final weights and the class means of clean training features.

    .. math:: \cos(w_c, \mu_c - \mu_G)

    Args:
      run: with `geometry.npz`; SpA acts on one classifier.

    Returns:
      `(C,)`; NaN for a class without a direction.

    Raises:
      InputError: no `geometry.npz`, or several classifiers.
    """
    geometry, weights = _aligned_weights(run)
    center = run.config.get("spa.center", True)
    directions = np.asarray(directions_of(geometry.train_means, center), dtype=float)
    lengths = np.linalg.norm(weights, axis=1)
    known = (lengths > 0) & directions.any(axis=1)
    products = np.sum(weights * directions, axis=1)
    return np.where(known, products / np.where(known, lengths, 1.0), np.nan)


def _aligned_weights(run: Run) -> tuple[Geometry, np.ndarray]:
    """The weights `(C, D)` that the recorded cosines are of."""
    if run.geometry is None:
        raise InputError(
            f"{run.folder} has no geometry.npz: run it again in a new folder with "
            "--config.logging.collapse=True."
        )
    heads = [*run.summary.get("heads", run.geometry.heads)]
    if len(heads) != 1 or heads[0] not in run.geometry.heads:
        raise InputError(
            f"{run.folder} has alignment for the classifiers {', '.join(heads)}, and this study "
            "follows one: choose it with --config.spa.classifier."
        )
    weights = run.geometry.weights[run.geometry.heads.index(heads[0])]
    return run.geometry, weights.astype(float)


def _check_collapse(run: Run) -> None:
    if not all("collapse" in line for line in run.lines):
        raise InputError(
            f"{run.folder / 'metrics.jsonl'} has epochs without neural collapse: run it again in a "
            "new folder with --config.logging.collapse=True."
        )


def _check_paired(group: Group, baseline: Group, folder: Path) -> None:
    seeds = [[run.summary["seed"] for run in part.runs] for part in (group, baseline)]
    if seeds[0] != seeds[1] or why_not_paired(group, baseline):
        raise InputError(
            f"{folder}: {group.method} has seeds {seeds[0]} and {BASELINE} has {seeds[1]}, "
            f"{len(paired_runs(group, baseline))} of them on the same split: differences are "
            "paired by seed, so run the same seeds of every method on one split."
        )


def _ordered(methods: Mapping[str, Group]) -> list[str]:
    order = (BASELINE, "reg", "slerp", "proj")
    return [*(name for name in order if name in methods), *sorted(methods.keys() - {*order})]

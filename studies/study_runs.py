"""The runs of a study: one folder is one data set, its runs differ in SpA method and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.errors import InputError
from spa_jax.reporting.finished_runs import Run, find_run_folders, read_runs
from spa_jax.reporting.grouping import Group, group_runs, paired, why_not_paired
from spa_jax.reporting.statistics import curves
from studies.names import name_of

BASELINE = "none"
METHODS = (BASELINE, "reg", "slerp", "proj")
"""SpA methods in the order of tables and figures; others come after them."""


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
        parts = [name_of(first.config["data.name"])]
        if len(set(self.baseline.class_counts)) == 1:
            parts.append("balanced")
        else:
            parts[0] += "-LT"
            parts.append(f"imbalance factor {first.summary['split']['imbalance_factor']:g}")
        order = first.config.get("data.class_order", "label")
        if order != "label":
            parts.append(f"classes {order}")
        if self.network != name_of("small"):
            parts.append(self.network)
        return ", ".join(parts)

    @property
    def network(self) -> str:
        """The backbone in a few words."""
        return name_of(self.baseline.runs[0].config.get("model.name", "small"))

    def describe(self) -> dict[str, Any]:
        """Where the numbers come from, for the record."""
        first = self.baseline.runs[0]
        return {
            "title": self.title,
            "data": first.config["data.name"],
            "training_images": sum(self.baseline.class_counts),
            "class_counts": self.baseline.class_counts,
            "split_checksum": first.summary["split_checksum"],
            "epochs": first.config["epochs"],
            "seeds": self._of_summaries("seed"),
            "params_checksums": self._of_summaries("params_checksum"),
            "jax": first.summary["versions"]["jax"],
            "hardware": first.summary["hardware"],
        }

    def _of_summaries(self, field: str) -> dict[str, list[Any]]:
        return {
            method: [run.summary.get(field) for run in group.runs]
            for method, group in self.groups.items()
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
    for unfinished, reason in left_out.items():
        raise InputError(f"{unfinished} is not finished ({reason}): wait.")
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
        if not all("collapse" in line for line in run.lines):
            raise InputError(
                f"{run.folder / 'metrics.jsonl'} has epochs without neural collapse: run it again "
                "in a new folder with --config.logging.collapse=True."
            )
    baseline = by_method[BASELINE]
    for group in groups:
        seeds = [[run.summary["seed"] for run in part.runs] for part in (group, baseline)]
        if seeds[0] != seeds[1] or why_not_paired(group, baseline):
            pairs = len(paired(group.runs, baseline.runs))
            raise InputError(
                f"{folder}: {group.method} has seeds {seeds[0]} and {BASELINE} has {seeds[1]}, "
                f"{pairs} of them on the same split: differences are paired by seed, so run the "
                "same seeds of every method on one split."
            )
    order = sorted(by_method, key=lambda name: (place_of(name), name))
    return Experiment(folder, {name: by_method[name] for name in order})


def place_of(method: str) -> int:
    """The place of an SpA method in tables, and of its style in every figure."""
    return METHODS.index(method) if method in METHODS else len(METHODS)


def curve(run: Run, name: str) -> np.ndarray:
    """A number over the epochs of a run, `(T,)`; NaN where it was not measured.

    Args:
      run: with its lines.
      name: of the number by dots, `collapse.train.nc3`; `not_X` is 1 - X, as the share of errors is
        to accuracy.
    """
    *groups, last = name.split(".")
    _, (values,) = curves([run.lines], (*groups, last.removeprefix("not_")))
    return 1 - values if last.startswith("not_") else values


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
    cosines = run.training_cosines()
    if len(cosines) != 1:
        raise InputError(
            f"{run.folder} has alignment for the classifiers {', '.join(run.summary['heads'])}, "
            "and this study follows one: choose it with --config.spa.classifier."
        )
    return cosines[0]

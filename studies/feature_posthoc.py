"""What the table on frozen features says besides its runs: controls that need no training.

python -m studies.feature_posthoc features_cifar100 --bank=BANK --runs=RUNS

RUNS is the folder of the table's runs, as `runs/reproduce/features_cifar100`. For each imbalance
factor whose runs are finished: the classifier of the nearest class mean, whose alignment is 1 by
construction; cross-entropy's weights over a power tau of their lengths, with the tau that is best
on the validation parts of the tuning runs; and how sure each variant's gain is over another test
set of the same kind: the 95% interval of a bootstrap over the test images, with the predictions of
all seeds. Writes `results/TABLE_posthoc.json`.
"""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError, with_status
from spa_jax.evaluate import TAUS
from spa_jax.files import write_json
from spa_jax.longtail.losses import tau_normalised
from spa_jax.reporting.grouping import group_by
from spa_jax.reproduction.cells import Cell, read_records
from spa_jax.reproduction.feature_tables import BASE, IMBALANCE_FACTORS, METHODS, VARIANTS
from spa_jax.reproduction.tables import find_table
from spa_jax.training.config import Config, resolve
from spa_jax.training.prediction_measures import tau_sweep
from spa_jax.training.rundir.checkpoints import read_arrays, saved_steps
from studies.reproduction.pairing import having

_RESAMPLES = 2000

Groups = Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Runs:
    """Finished runs of a table and their data.

    Attributes:
      table: its name.
      folder: holds a folder for each run.
      bank: the feature bank.
      records: of the runs, by name.
    """

    table: str
    folder: Path
    bank: Path
    records: Mapping[str, Mapping[str, Any]]

    def groups(self, **fields: Any) -> dict[Cell, list[Cell]]:
        """The groups of cells with these fields of which every run was finished; none diverged."""
        cells = find_table(self.table).cells([*self.records.values()])
        wanted = filter(having(**fields), cells)
        return {
            group: members
            for group, members in group_by(wanted, lambda cell: cell.group).items()
            if all(self.records.get(cell.name, {}).get("summary") for cell in members)
        }

    def data(self, cell: Cell) -> LongTailedDataset:
        """What a run was trained and tested on."""
        config: Config = find_table(self.table).config(cell)
        config.data.folder = str(self.bank)
        return load_data(resolve(config).data)

    def head(self, cell: Cell) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
        """Kernel and bias at the end of a run; of a head without bias zeros."""
        checkpoints = self.folder / cell.name / "checkpoints"
        steps = saved_steps(checkpoints)
        if not steps:
            raise InputError(f"{checkpoints} has no checkpoint: keep the folders of the runs.")
        arrays = read_arrays(checkpoints / str(max(steps)))
        kernel = arrays["params/head/kernel"]
        return kernel, arrays.get("params/head/bias", np.zeros(kernel.shape[1], np.float32))


def features_of(examples: LabelledImages) -> Float[np.ndarray, "N D"]:
    """All of a part, float32."""
    images: Any = examples.images
    return np.asarray(images[:], np.float32)


def nearest_mean(data: LongTailedDataset) -> Int[np.ndarray, " N"]:
    """Of each test example the class whose centred mean has the largest cosine with it."""
    features, labels = features_of(data.train), data.train.labels
    means = np.stack([features[labels == c].mean(axis=0) for c in range(data.num_classes)])
    centre = means.mean(axis=0)
    means = means - centre
    return np.argmax(
        (features_of(data.test) - centre) @ (means / np.linalg.norm(means, axis=1)[:, None]).T,
        axis=1,
    )


def accuracies(right: Bool[np.ndarray, " N"], labels: np.ndarray, groups: Groups) -> dict[str, Any]:
    """The share of right ones, of all and of the classes of each shot group."""
    of_groups = {
        name: float(right[np.isin(labels, classes)].mean())
        for name, classes in groups.items()
        if len(classes)
    }
    return {"all": float(right.mean()), **of_groups}


def image_interval(
    gains: Float[np.ndarray, " N"], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean gain, and the ends of the 95% interval of a bootstrap over the images."""
    count = len(gains)
    # The mean over drawn images, by how often each was drawn: gains take few values.
    values, places = np.unique(gains, return_inverse=True)
    shares = np.bincount(places) / count
    means = rng.multinomial(count, shares, size=_RESAMPLES) @ values / count
    low, high = np.quantile(means, (0.025, 0.975))
    return float(gains.mean()), float(low), float(high)


def measure(runs: Runs, factor: float) -> dict[str, Any]:
    """All that can be said of an imbalance factor."""
    found: dict[str, Any] = {"image_intervals": {}}
    rng = np.random.default_rng(0)
    right_of: dict[tuple[str, str], np.ndarray] = {}
    for group, cells in runs.groups(stage="final", imbalance_factor=factor).items():
        if group.method not in METHODS:
            continue
        right_of[group.method, group.spa_method] = np.stack([_right(runs, c) for c in cells])
        if group.method == "cross_entropy" and group.spa_method == "none":
            found |= _without_training(runs, cells, factor)
    for (method, variant), right in right_of.items():
        plain = right_of.get((method, "none"))
        if variant in VARIANTS and plain is not None:
            gains = right.mean(axis=0) - plain.mean(axis=0)
            found["image_intervals"][f"{method} {variant}"] = image_interval(gains, rng)
    return found


def _right(runs: Runs, cell: Cell) -> Bool[np.ndarray, " N"]:
    """Which test examples the run got right, as its record has it too."""
    test = runs.data(cell).test
    kernel, bias = runs.head(cell)
    if cell.method == "ldam_drw":  # the length of a feature changes no order
        kernel = kernel / np.linalg.norm(kernel, axis=0)
    right = np.argmax(features_of(test) @ kernel + bias, axis=1) == test.labels
    recorded = runs.records[cell.name]["summary"]["test_accuracy"]["last"]
    if abs(right.mean() - recorded) > 2 / len(right):  # of ties in rounding
        raise InputError(
            f"The weights of {cell.name} are right on {right.mean():.4f} of the test set and its "
            f"record says {recorded:.4f}: the folders, the records or the bank are of other runs."
        )
    return right


def _without_training(runs: Runs, cells: Sequence[Cell], factor: float) -> dict[str, Any]:
    tau = _best_tau(runs, factor)
    nearest, normalised = [], []
    for cell in cells:
        data, (kernel, _) = runs.data(cell), runs.head(cell)
        groups = runs.records[cell.name]["summary"]["shot_groups"]["classes"]
        labels, features = data.test.labels, features_of(data.test)
        nearest.append(accuracies(nearest_mean(data) == labels, labels, groups))
        logits = tau_normalised(features @ kernel, np.linalg.norm(kernel, axis=0), tau)
        predicted = np.argmax(np.asarray(logits), axis=1)
        normalised.append(accuracies(predicted == labels, labels, groups))
    return {"tau": tau, "tau_normalised": normalised, "nearest_mean": nearest}


def _best_tau(runs: Runs, factor: float) -> float:
    """By the mean accuracy over classes on the validation parts of the chosen tuning runs."""
    place = {"method": "cross_entropy", "spa_method": "none", "imbalance_factor": factor}
    (final,) = runs.groups(stage="final", **place).values()
    held_out = (("data.validation", True),)
    (tuned,) = [
        cells
        for cells in runs.groups(stage="tune", **place).values()
        if cells[0].settings == (*(final[0].settings or ()), *held_out)
    ]
    assert final[0].settings in BASE
    accuracy = []
    for cell in tuned:
        validation, (kernel, _) = runs.data(cell).validation, runs.head(cell)
        assert validation is not None
        divide = functools.partial(_divided, np.linalg.norm(kernel, axis=0))
        sweep = tau_sweep(divide, features_of(validation) @ kernel, validation.labels, TAUS)
        accuracy.append([*sweep["class_accuracy"].values()])
    return TAUS[int(np.argmax(np.mean(accuracy, axis=0)))]


def _divided(lengths: Float[np.ndarray, " C"], logits: Any, tau: float) -> Any:
    return tau_normalised(logits, lengths, tau)


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the arguments name; 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m studies.feature_posthoc", description=__doc__)
    parser.add_argument("table", help="features_cifar10 or features_cifar100")
    parser.add_argument("--bank", type=Path, required=True, help="the feature bank of the runs")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the table's runs")
    parser.add_argument("--records", type=Path, help="default results/TABLE.jsonl")
    parser.add_argument("--out", type=Path, help="default results/TABLE_posthoc.json")
    values = parser.parse_args(argv)
    records = values.records or Path("results") / f"{values.table}.jsonl"
    out = values.out or Path("results") / f"{values.table}_posthoc.json"
    known = {record["cell"]: record for record in read_records(records)}
    if not known:
        raise InputError(
            f"{records} has no record of a run: make some with "
            f"python -m spa_jax.reproduce {values.table}, or name another file by --records."
        )
    runs = Runs(values.table, values.runs, values.bank, known)
    factors = {f"{factor:g}": measure(runs, factor) for factor in sorted(IMBALANCE_FACTORS)}
    found = {factor: of_factor for factor, of_factor in factors.items() if "tau" in of_factor}
    dates = sorted(record["date"] for record in known.values())
    record = {
        "study": "feature_posthoc",
        "table": values.table,
        "runs_until": dates[-1],
        "jax": jax.__version__,
    }
    write_json(out, record | {"taus": TAUS, "resamples": _RESAMPLES, "factors": found})
    print(json.dumps({factor: sorted(of) for factor, of in found.items()}), out)


if __name__ == "__main__":
    sys.exit(main())

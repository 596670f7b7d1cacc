"""Puts the runs of several methods next to cross-entropy's, for the record of docs/methods.md.

python -m studies.methods FOLDER ... [--record=FILE]

A FOLDER holds runs of `python -m spa_jax.sweep --axis method.name=...`; all of them have the same
data and differ in method and seed. `python -m studies.build methods` puts the table of
`results/methods.json` in the page.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError, with_status
from spa_jax.reporting.finished_runs import Run, find_run_folders, read_runs
from spa_jax.reporting.grouping import group_by, paired, tells_apart
from spa_jax.reporting.statistics import Columns, paired_differences, statistics
from studies.tables import publish

BASELINE = "cross_entropy"

_COLUMNS: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "few-shot accuracy": ("shot_groups", "few"),
    "held-out cosine": ("test_mean_cosine",),
}


def measure(folders: Sequence[Path]) -> dict[str, Any]:
    """The record: means over seeds by method, and differences to cross-entropy paired by seed.

    Args:
      folders: of the runs, or in which they are.

    Raises:
      InputError: no run of cross-entropy, a run that cannot be read, or runs that differ in more
        than method and seed.
    """
    runs, unreadable = read_runs(find_run_folders(folders))
    if unreadable:
        raise InputError("; ".join(f"{path}: {why}" for path, why in unreadable.items()))
    by_method = group_by(runs, key=lambda run: run.config["method.name"])
    if BASELINE not in by_method:
        raise InputError(
            f"There is no run of {BASELINE} to compare with, only of {', '.join(by_method)}: "
            "add its folder."
        )
    baseline = [run.summary for run in by_method.pop(BASELINE)]
    first = runs[0]
    for run in runs:
        differing = [
            field for field, value in _shared(first).items() if _shared(run)[field] != value
        ]
        if differing:
            raise InputError(
                f"{run.folder} and {first.folder} differ in {', '.join(differing)}, and should in "
                "method and seed only: leave one of them out."
            )
    found = {BASELINE: baseline}
    found |= {name: [run.summary for run in each] for name, each in by_method.items()}
    return {
        "data": first.config["data.name"],
        "class_order": first.config["data.class_order"],
        "epochs": first.config["epochs"],
        "split": first.summary["split"],
        "hardware": first.summary["hardware"],
        "seeds": sorted({run.summary["seed"] for run in runs}),
        "statistics": {name: statistics(each, _COLUMNS) for name, each in found.items()},
        "differences": {
            name: paired_differences(paired(found[name], baseline), _COLUMNS) for name in by_method
        },
        "runs": {
            name: [{**run["test_accuracy"], "seed": run["seed"]} for run in each]
            for name, each in found.items()
        },
    }


def _shared(run: Run) -> dict[str, Any]:
    """What its configuration sets that is not of the method."""
    return {
        field: value
        for field, value in run.config.items()
        if tells_apart(field, run.config) and not field.startswith("method.")
    }


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Reads the runs, prints the table, writes the record where it is asked to; 2 if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m studies.methods", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--record", help="a JSON file for the numbers")
    values = parser.parse_args(argv)
    publish("methods", measure(values.folders), values.record)


if __name__ == "__main__":
    sys.exit(main())

"""The studies of docs/studies/: what each measures on finished runs, draws and puts in tables."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.style import RC
from studies import study_figures, study_numbers, study_pages
from studies.study_runs import BASELINE, Experiment, read_experiment


@dataclass(frozen=True)
class Study:
    """A question to finished runs.

    Attributes:
      measure: the numbers of one data set, for the record.
      draw: the figure of all data sets and their numbers.
      tables: Markdown of one data set's numbers, as they are in the record.
      needed: SpA methods that there must be runs of.
    """

    measure: Callable[[Experiment], dict[str, Any]]
    draw: Callable[[Sequence[Experiment], Sequence[Mapping[str, Any]]], Figure]
    tables: Callable[[Mapping[str, Any]], list[str]]
    needed: tuple[str, ...]


_NEEDED = {
    "alignment_and_accuracy": (BASELINE, "reg"),
    "nc2_convergence": (BASELINE, "reg"),
    "train_and_held_out": (BASELINE,),
    "neural_collapse": (BASELINE,),
    "architectures": (BASELINE, "reg"),
}
_PARTS = (study_numbers, study_figures, study_pages)

STUDIES: Mapping[str, Study] = {
    name: Study(*(getattr(part, name) for part in _PARTS), needed=needed)
    for name, needed in _NEEDED.items()
}
"""By the name of the page, of the record `results/studies_NAME.json` and of its functions."""


def make_study(name: str, folders: Sequence[Path], record: Path, figure: Path) -> None:
    """Measures runs and writes record and figure.

    Args:
      name: a key of :data:`STUDIES`.
      folders: one for each data set.
      record: gets the numbers as JSON.
      figure: gets the figure as PNG.

    Raises:
      InputError: runs that the study cannot use; nothing has been written.
    """
    study = STUDIES[name]
    experiments = [read_experiment(folder, study.needed) for folder in folders]
    found = [study.measure(experiment) for experiment in experiments]
    with matplotlib.rc_context(RC):
        drawn = study.draw(experiments, found)
        figure.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(figure, dpi=200)
    numbers = zip(experiments, found, strict=True)
    content = {
        "study": name,
        "date": datetime.now(UTC).date().isoformat(),
        "data_sets": [experiment.describe() | measured for experiment, measured in numbers],
    }
    write_text_whole(record, json.dumps(content, indent=1, allow_nan=False) + "\n")


def study_tables(record: Mapping[str, Any]) -> str:
    """The tables of every data set of a study's record, with their origin."""
    parts = []
    for data_set in record["data_sets"]:
        tables = STUDIES[record["study"]].tables(data_set)
        parts += [f"**{data_set['title']}**", *tables, _origin(data_set, record["date"])]
    return "\n\n".join(parts)


def _origin(data_set: Mapping[str, Any], date: str) -> str:
    seeds = ", ".join(map(str, data_set["seeds"][BASELINE]))
    machine = data_set["hardware"]
    return (
        f"{data_set['training_images']:,} training images, {data_set['epochs']} epochs, seeds "
        f"{seeds}; split `{data_set['split_checksum'][:16]}`; jax {data_set['jax']}, "
        f"{machine['cpu_count']} CPU cores, {machine['platform']}; {date}."
    )

"""The studies of docs/studies/: what each measures on finished runs, draws and puts in tables."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib

from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.style import RC
from studies import study_figures, study_numbers, study_pages
from studies.names import machine_text
from studies.study_runs import BASELINE, read_experiment

STUDIES: Mapping[str, tuple[str, ...]] = {
    "alignment_and_accuracy": (BASELINE, "reg"),
    "nc2_convergence": (BASELINE, "reg"),
    "train_and_held_out": (BASELINE,),
    "neural_collapse": (BASELINE,),
    "architectures": (BASELINE, "reg"),
}
"""The SpA methods that there must be runs of, by the name of the study.

So are called its page, its record `results/studies_NAME.json`, and the functions that make the
numbers of one data set (`study_numbers`), the figure of all (`study_figures`) and the tables of one
(`study_pages`)."""


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
    experiments = [read_experiment(folder, STUDIES[name]) for folder in folders]
    found = list(map(getattr(study_numbers, name), experiments))
    with matplotlib.rc_context(RC):
        drawn = getattr(study_figures, name)(experiments, found)
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
        tables = getattr(study_pages, record["study"])(data_set)
        parts += [f"**{data_set['title']}**", *tables, _origin(data_set, record["date"])]
    return "\n\n".join(parts)


def _origin(data_set: Mapping[str, Any], date: str) -> str:
    seeds = ", ".join(map(str, data_set["seeds"][BASELINE]))
    return (
        f"{data_set['training_images']:,} training images, {data_set['epochs']} epochs, seeds "
        f"{seeds}; split `{data_set['split_checksum'][:16]}`; jax {data_set['jax']}, "
        f"{machine_text(data_set['hardware'])}; {date}."
    )

"""Makes a study of docs/studies/ from finished runs: its record, its figure, its page's tables.

python -m studies.pages alignment_and_accuracy --runs runs/study_digits runs/study_fashion

Each folder holds the runs of one data set, as `--out` of `python -m spa_jax.compare` with
`--config.logging.collapse=True` does. Without `--runs` the page is made anew from the record.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.style import RC
from studies import study_figures, study_numbers
from studies.study_pages import section
from studies.study_runs import BASELINE, Experiment, read_experiment

REPOSITORY = Path(__file__).parents[1]
_SECTION = re.compile(r"(<!-- study: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Study:
    """A question to finished runs.

    Attributes:
      measure: the numbers of one data set, for the record.
      draw: the figure of all data sets and their numbers.
      needed: SpA methods that there must be runs of.
    """

    measure: Callable[[Experiment], dict[str, Any]]
    draw: Callable[[Sequence[Experiment], Sequence[Mapping[str, Any]]], Figure]
    needed: tuple[str, ...]


STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        "alignment_and_accuracy": Study(
            study_numbers.alignment_and_accuracy,
            study_figures.draw_alignment_and_accuracy,
            (BASELINE, "reg"),
        ),
        "nc2_convergence": Study(
            study_numbers.nc2_convergence, study_figures.draw_nc2_convergence, (BASELINE, "reg")
        ),
        "train_and_held_out": Study(
            study_numbers.train_and_held_out, study_figures.draw_train_and_held_out, (BASELINE,)
        ),
        "neural_collapse": Study(
            study_numbers.neural_collapse, study_figures.draw_neural_collapse, (BASELINE,)
        ),
        "architectures": Study(
            study_numbers.architectures, study_figures.draw_architectures, (BASELINE, "reg")
        ),
    }
)


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
    data_sets = [
        experiment.describe() | numbers
        for experiment, numbers in zip(experiments, found, strict=True)
    ]
    content = {
        "study": name,
        "date": datetime.now(UTC).date().isoformat(),
        "data_sets": data_sets,
    }
    write_text_whole(record, json.dumps(content, indent=1, allow_nan=False) + "\n")


def with_studies(text: str, records: Path) -> str:
    """A page with the tables of its studies made anew.

    Args:
      text: a page with `<!-- study: NAME -->` and `<!-- end -->` around them.
      records: the folder with `studies_NAME.json`; a study without a record is not run yet.

    Returns:
      The page.
    """

    def tables(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        record = records / f"studies_{name}.json"
        found = section(json.loads(record.read_text())) if record.exists() else "Not run yet."
        return f"{start}\n{found}\n\n{end}"

    return _SECTION.sub(tables, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the study that the arguments name; 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.pages",
        description="Makes a study of docs/studies/ from finished runs.",
    )
    parser.add_argument("study", choices=STUDIES, help="which one")
    parser.add_argument("--runs", nargs="+", type=Path, help="folders, one for each data set")
    parser.add_argument("--records", type=Path, default=REPOSITORY / "results", help="folder")
    parser.add_argument("--pages", type=Path, default=REPOSITORY / "docs/studies", help="folder")
    values = parser.parse_args(argv)
    name, page = values.study, values.pages / f"{values.study}.md"
    try:
        if values.runs:
            record, figure = values.records / f"studies_{name}.json", page.with_suffix(".png")
            make_study(name, values.runs, record, figure)
            print(f"Record: {record}\nFigure: {figure}")
        if page.exists():
            write_text_whole(page, with_studies(page.read_text(), values.records))
            print(f"Page: {page}")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Makes one report of finished runs: a self-contained HTML page, and its figures as PNG and SVG.

python -m spa_jax.report runs/a runs/b --out report/

The page needs nothing beside it: no script, no file, no network. Its parts hold numbers; what is
said about them is in `words.html.j2`, by the part's name.

A folder of runs, such as `--out` of spa_jax.compare, stands for the runs in it. Runs that differ in
the seed alone are averaged; the others are told apart by the fields of their configurations that
differ.
"""

import argparse
import base64
import functools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import spa_jax.extras  # noqa: F401

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined

from spa_jax.errors import InputError, with_status
from spa_jax.files import local_path, output_folder, write_text_whole
from spa_jax.reporting import report_tables
from spa_jax.reporting.evaluation_tables import EVALUATION_COLUMNS, evaluation_tables
from spa_jax.reporting.figures import classes, epochs, predictions
from spa_jax.reporting.figures.gram_matrices import draw_gram_matrices
from spa_jax.reporting.figures.strengths import draw_sweeps
from spa_jax.reporting.figures.style import RC, Drawing, file_name, save
from spa_jax.reporting.finished_runs import find_run_folders, read_runs
from spa_jax.reporting.grouping import Group, group_by, group_runs

PAGE = "index.html"

PARTS = {
    "accuracy": report_tables.accuracy_table,
    "cosines": report_tables.cosines_table,
    "differences": report_tables.differences_table,
    "alignment": epochs.draw_alignment,
    "angle_by_class_size": classes.draw_angle_by_class_size,
    "train_against_held_out": classes.draw_train_against_held_out,
    "gram": draw_gram_matrices,
    "collapse": epochs.draw_collapse,
    "nc2": epochs.draw_equinorm_equiangular,
    "sweep": draw_sweeps,
    **{name: functools.partial(evaluation_tables, name) for name in EVALUATION_COLUMNS},
    "reliability": predictions.draw_reliability,
    "confusion": predictions.draw_confusion,
    "classes": report_tables.classes_table,
    "runs": report_tables.runs_table,
}
"""The parts of a report in their order on the page. Each makes tables or figures of all groups, or
none; its words are in `words.html.j2` by its name."""

Contents = Mapping[str, Sequence[report_tables.Table | Drawing]]
"""Name of a part of the report -> its tables or figures, in their order on the page."""


def write_report(paths: Sequence[Path], out: Path, command: str = "") -> list[str]:
    """Reads runs and writes their report.

    Args:
      paths: folders of runs, or folders that hold some.
      out: gets `index.html`, which alone is enough, and `<figure>.png` and `<figure>.svg`.
      command: the command that asks for it, for the page.

    Returns:
      What a person should know: runs that were left out, figures that could not be drawn.

    Raises:
      InputError: no run, a damaged one, runs that do not belong together, or an `out` that cannot
        take a report; nothing has been written.
    """
    output_folder(out, "--out", patterns=True)
    if (out / "config.json").exists():
        raise InputError(f"{out} is the folder of a run: choose another --out for the report.")
    runs, left_out = read_runs(find_run_folders(paths))
    groups = group_runs(runs)
    with matplotlib.rc_context(RC):
        contents = {part: list(make(groups)) for part, make in PARTS.items()}
    out.mkdir(parents=True, exist_ok=True)
    for item in (item for items in contents.values() for item in items):
        if isinstance(item, Drawing):
            save(item, out)
    known = dir(_all_words())
    absent = [part for part in contents if not contents[part] and f"{part}_absent" in known]
    notes = [
        *(words("left_out", item) for item in left_out.items()),
        *(f"Not drawn: {_title(part)}: {words(f'{part}_absent', {})}" for part in absent),
    ]
    write_text_whole(out / PAGE, report_page(groups, contents, notes, command, out))
    return notes


def report_page(
    groups: Sequence[Group], contents: Contents, notes: Sequence[str], command: str, folder: Path
) -> str:
    """The page.

    Args:
      groups: what is compared.
      contents: the parts.
      notes: what the page lacks, and why.
      command: the command that made the page.
      folder: has an SVG file of each figure.

    Returns:
      HTML; what came from the runs is escaped.
    """
    runs = [run for group in groups for run in group.runs]
    sections = []
    for part, items in contents.items():
        title_of = functools.partial(_title, part)
        sections += [(title, part, same) for title, same in group_by(items, title_of).items()]

    def each_once(name: str, between: str = "; ") -> str:
        return between.join(dict.fromkeys(words(name, run) for run in runs))

    def svg_of(drawing: Drawing) -> str:
        return base64.b64encode((folder / f"{drawing.name}.svg").read_bytes()).decode("ascii")

    template = _environment().get_template("page.html.j2")
    return template.render(
        runs=runs,
        groups=groups,
        marked=[group.label for group in groups if report_tables.mark_of(group, groups)],
        sections=sections,
        notes=notes,
        command=command,
        words=words,
        each_once=each_once,
        svg_of=svg_of,
    )


def words(name: str, facts: Any) -> str:
    """Plain text of `words.html.j2`.

    Args:
      name: of the text, such as "alignment_caption".
      facts: what it states.
    """
    lines = getattr(_all_words(), name)(facts).unescape().splitlines()
    return " ".join(filter(None, map(str.strip, lines)))


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Writes the report that the arguments ask for; 2 with a message if the input is wrong."""
    given = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.report",
        description="Makes one report of finished runs: an HTML page and its figures.",
    )
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--out", required=True, help="folder for the page and figures")
    values = parser.parse_args(given)
    out = local_path(values.out, "--out")
    runs = [local_path(run, "The folder of runs") for run in values.runs]
    for note in write_report(runs, out, f"{parser.prog} {shlex.join(given)}"):
        print(note)
    print(f"Report: {out / PAGE}")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spa_jax.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"anchor": lambda text: file_name(text.lower()), "typeset": _typeset}
    return environment


def _typeset(number: str) -> str:
    """With a minus or, where there is no number, a dash, and without lines that end in it."""
    if number == "-":
        return "\u2013"
    return number.replace("-", "\u2212").replace(" ", "\u00a0").replace("\u00a0[", " [")


def _all_words() -> Any:
    return _environment().get_template("words.html.j2").module


def _title(part: str, item: report_tables.Table | Drawing | None = None) -> str:
    return words(f"{part}_title", {} if item is None else item.facts)


if __name__ == "__main__":
    sys.exit(main())

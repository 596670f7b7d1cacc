"""Makes one report of finished runs: a self-contained HTML page, and its figures as PNG and SVG.

python -m spa_jax.report runs/a runs/b --out report/

A folder of runs, such as `--out` of spa_jax.compare, stands for the runs in it. Runs that differ in
the seed alone are averaged; the others are told apart by the fields of their configurations that
differ.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.classes import (
    draw_angle_by_class_size,
    draw_train_against_held_out,
)
from spa_jax.reporting.figures.epochs import (
    draw_alignment,
    draw_collapse,
    draw_equinorm_equiangular,
)
from spa_jax.reporting.figures.gram_matrices import draw_gram_matrices
from spa_jax.reporting.figures.strengths import draw_sweeps
from spa_jax.reporting.figures.style import RC, Absent, Drawing, save
from spa_jax.reporting.finished_runs import find_run_folders, read_runs
from spa_jax.reporting.grouping import group_runs
from spa_jax.reporting.page import Figure, report_page
from spa_jax.reporting.report_tables import TABLES

PAGE = "index.html"

FIGURES = (
    draw_alignment,
    draw_angle_by_class_size,
    draw_train_against_held_out,
    draw_gram_matrices,
    draw_collapse,
    draw_equinorm_equiangular,
    draw_sweeps,
)
"""In their order on the page; each takes all groups and yields drawings, or why there is none."""


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
    _check_out(out)
    runs, left_out = read_runs(find_run_folders(paths))
    groups = group_runs(runs)
    with matplotlib.rc_context(RC):
        drawn = [item for draw in FIGURES for item in draw(groups)]
    out.mkdir(parents=True, exist_ok=True)
    figures = []
    for drawing in drawn:
        if isinstance(drawing, Drawing):
            png, svg = save(drawing, out)
            figures.append(Figure(drawing, svg.read_bytes(), (png.name, svg.name)))
    absent = [item for item in drawn if isinstance(item, Absent)]
    notes = [
        *(f"Left out: {run.folder}: {run.reason}." for run in left_out),
        *(f"Not drawn: {figure.title}: {figure.reason}" for figure in absent),
    ]
    tables = [table for make in TABLES if (table := make(groups)) is not None]
    write_text_whole(out / PAGE, report_page(groups, tables, figures, notes, command))
    return notes


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and a report needs a folder: choose another --out.")
    if (out / "config.json").exists():
        raise InputError(f"{out} is the folder of a run: choose another --out for the report.")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report that the arguments ask for; 2 with a message if the input is wrong."""
    given = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.report",
        description="Makes one report of finished runs: an HTML page and its figures.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and figures")
    values = parser.parse_args(given)
    try:
        notes = write_report(values.runs, values.out, f"{parser.prog} {shlex.join(given)}")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(note)
    print(f"Report: {values.out / PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

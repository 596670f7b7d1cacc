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
from spa_jax.reporting import report_tables
from spa_jax.reporting.figures import classes, epochs
from spa_jax.reporting.figures.gram_matrices import draw_gram_matrices
from spa_jax.reporting.figures.strengths import draw_sweeps
from spa_jax.reporting.figures.style import RC, Drawing, save
from spa_jax.reporting.finished_runs import find_run_folders, read_runs
from spa_jax.reporting.grouping import group_runs
from spa_jax.reporting.page import report_page, what_is_missing

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
    "classes": report_tables.classes_table,
    "runs": report_tables.runs_table,
}
"""The parts of a report in their order on the page. Each makes tables or figures of all groups, or
none; its words are in `words.html.j2` by its name."""


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
        contents = {part: list(make(groups)) for part, make in PARTS.items()}
    out.mkdir(parents=True, exist_ok=True)
    for item in (item for items in contents.values() for item in items):
        if isinstance(item, Drawing):
            save(item, out)
    notes = what_is_missing(contents, left_out)
    write_text_whole(out / PAGE, report_page(groups, contents, notes, command, out))
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

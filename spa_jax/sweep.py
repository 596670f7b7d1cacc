"""Trains a grid of settings with several seeds, and puts its points side by side.

python -m spa_jax.sweep --config=configs/digits_lt.py --config.spa.method=proj \
  --axis spa.proj.gamma=0.1,0.3,0.5,0.7,0.9 --seeds=5 --out=runs/sweep

Several --axis give all combinations. --seeds=5 stands for the seeds 0 to 4, --seeds=0,3 for these
two. On accelerators runs that differ only in what a program is given (seed, learning rate, weight
decay, SpA's strengths) train as one program, in chunks that fit into memory; otherwise, and on a
CPU, where that is faster, one after another. --together and --notogether decide.

Prints one table and writes `sweep.json`; each run has a folder like that of `train.py`. Start the
command again and it continues; a run that failed, with a `failed.json`, is not trained again until
that file is removed.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from spa_jax.command_line import parse_flags, read_config, stop
from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reporting.statistics import COLUMNS, statistics
from spa_jax.reporting.table_text import cells_of, mean_text
from spa_jax.sweeps.grid import Axes, Member, make_grid, parse_axes, parse_seeds
from spa_jax.sweeps.runner import Runner
from spa_jax.training.config import Config

Point = Sequence[tuple[Member, dict[str, Any]]]
"""Runs that differ in the seed alone, and their summaries; {} for one that failed."""

_OF_A_RUN = (
    "test_accuracy",
    "mean_cosine",
    "min_cosine",
    "test_mean_cosine",
    "test_min_cosine",
    "parallel",
    "wall_time_seconds",
)


def sweep(
    config: Config,
    axes: Axes,
    seeds: Sequence[int],
    out: Path,
    console: Console,
    together: bool | None = None,
    at_once: int | None = None,
) -> dict[str, Any]:
    """Trains every combination of the axes with every seed and writes the record.

    Args:
      config: the configuration that the runs share.
      axes: fields and their values, see :func:`spa_jax.sweeps.grid.parse_axes`.
      seeds: values for `config.seed`.
      out: gets a folder for each run, and `sweep.json`.
      console: where progress is shown.
      together: train what one program can train as one; None: what is faster here.
      at_once: members in a program; None: as many as fit into memory.

    Returns:
      The content of `sweep.json`: settings, what each run came to, mean and sample standard
      deviation of each column over the seeds of each grid point.

    Raises:
      InputError: a wrong configuration or a folder of another run; before anything is trained.
    """

    def content(points: Sequence[Point]) -> dict[str, Any]:
        of_points, of_runs = [], []
        for point in points:
            finished = [summary for _, summary in point if summary]
            of_points.append(
                {
                    "settings": point[0][0].settings,
                    "finished": len(finished),
                    "statistics": statistics(finished) if finished else None,
                }
            )
            for member, summary in point:
                run = {"folder": member.name, "settings": member.settings, "seed": member.seed}
                came_to = {field: summary.get(field) for field in _OF_A_RUN}
                of_runs.append({**run, "failed": member.failure(), **came_to})
        values = {field: list(values) for field, values in axes.items()}
        return {"axes": values, "points": of_points, "runs": of_runs}

    options = {"together": together, "at_once": at_once}
    return train_and_record("sweep", config, axes, seeds, out, console, content, **options)


def train_and_record(
    name: str,
    config: Config,
    axes: Axes,
    seeds: Sequence[int],
    out: Path,
    console: Console,
    content: Callable[[Sequence[Point]], dict[str, Any]],
    **options: Any,
) -> dict[str, Any]:
    """Trains the runs of a grid that are not done, and writes what they came to.

    Args:
      name: what the record is called; its file is `<name>.json`.
      config: the configuration that the runs share.
      axes: fields and their values.
      seeds: values for `config.seed`.
      out: gets a folder for each run, and the record.
      console: where progress is shown.
      content: makes the fields that only this record has of the grid points.
      options: of :class:`spa_jax.sweeps.runner.Runner`.

    Returns:
      The record.

    Raises:
      InputError: a wrong configuration or a folder of another run; before anything is trained.
    """
    began = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and many runs need a folder: choose another --out.")
    members = make_grid(config, axes, seeds, out)
    say = partial(console.print, style="dim", markup=False, highlight=False)
    Runner(out, say=say, show_progress=sys.stderr.isatty(), **options).train(members)
    runs = [(member, member.summary() or {}) for member in members]
    first = next((summary for _, summary in runs if summary), {})
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "config": config.to_dict(),
        "seeds": list(seeds),
        **{field: first.get(field) for field in ("split", "hardware", "versions")},
        **content([runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]),
    }
    write_text_whole(out / f"{name}.json", json.dumps(record, indent=1) + "\n")
    console.print(f"{time.perf_counter() - began:.0f} s for this {name}", style="dim")
    return record


def points_table(title: str, points: Sequence[Mapping[str, Any]], seeds: int) -> Table:
    """Mean ± sample standard deviation over seeds, accuracy in %.

    Args:
      title: of the table.
      points: `settings`, which name a row, `statistics`, None if no run is finished, and how many
        are `finished`.
      seeds: runs of a point.
    """
    table = Table(title=f"{title}: mean ± std", title_justify="left")
    for field in points[0]["settings"]:
        table.add_column(field, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        found, failed = point["statistics"], seeds - point["finished"]
        cells = ["-"] * len(COLUMNS) if found is None else [*cells_of(found, mean_text).values()]
        if failed:
            cells[0] += f" ({failed} failed)"
        table.add_row(*map(str, point["settings"].values()), *cells)
    return table


def format_table(record: Mapping[str, Any]) -> Table:
    """A row for each grid point of a record."""
    seeds = len(record["seeds"])
    title = f"{record['config']['data']['name']}, {seeds} seed(s), last epoch"
    return points_table(title, record["points"], seeds)


def main(argv: Sequence[str]) -> None:
    """Sweeps over what the flags name; exits with status 2 if the input is wrong."""
    del argv
    values = flags.FLAGS
    # A pipe has no width of its own; the table needs more columns than a terminal is sure to have.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    config = read_config()
    if values.members is not None and values.members < 1:
        stop(f"--members must be 1 or more, got {values.members}.")
    try:
        axes, seeds = parse_axes(values.axis), parse_seeds(values.seeds)
        out = Path(values.out)
        record = sweep(config, axes, seeds, out, console, values.together, values.members)
    except InputError as error:
        stop(str(error))
    console.print(format_table(record))
    console.print(f"All runs: {out / 'sweep.json'}", markup=False)


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    config_flags.DEFINE_config_file("config", None, "The configuration file.")
    flags.DEFINE_multi_string("axis", [], "FIELD=VALUE,VALUE; may be given several times.")
    flags.DEFINE_string("seeds", "1", "A number of seeds from 0, or a list with commas.")
    flags.DEFINE_string("out", None, "Folder for the runs and the record.")
    flags.DEFINE_boolean("together", None, "One program for all; default: where it is faster.")
    flags.DEFINE_integer("members", None, "Runs in a program; default: as many as fit.")
    flags.mark_flags_as_required(["config", "out"])


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)

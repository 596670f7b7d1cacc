"""Trains a grid of settings with several seeds, and puts its points side by side.

python -m spa_jax.sweep --config=configs/digits_lt.py --config.spa.method=proj \
  --axis spa.proj.gamma=0.1,0.3,0.5,0.7,0.9 --seeds=5 --out=runs/sweep

Several --axis give all combinations. --seeds=5 stands for the seeds 0 to 4, --seeds=0,3 for these
two. On accelerators runs that differ only in what a program is given (seed, learning rate, weight
decay, SpA's strengths) train as one program, in chunks that fit into memory; otherwise, and on a
CPU, where that is faster, one after another. --together and --notogether decide.

Prints one table and writes `sweep.json`; each run has a folder like that of `train.py`, without the
figures, which `--config.logging.plots=True` draws. Start the command again and it continues; a run
that failed, with a `failed.json`, is not trained again until that file is removed.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import spa_jax.extras  # noqa: F401

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from spa_jax.command_line import errors_told, parse_flags, read_config
from spa_jax.files import output_folder, write_json
from spa_jax.reporting.statistics import COLUMNS, note_on, statistics
from spa_jax.reporting.table_text import cells_of
from spa_jax.sweeps.grid import Axes, Member, make_grid, parse_axes, parse_seeds
from spa_jax.sweeps.runner import Runner
from spa_jax.training.config import Config

Point = Sequence[tuple[Member, dict[str, Any]]]
"""Runs that differ in the seed alone, and their summaries; {} for one that failed."""

_OF_A_RUN = (
    "test_accuracy",
    "balanced_accuracy",
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
    options = {"together": together, "at_once": at_once}
    record, points = train_grid(config, axes, seeds, out, console, **options)
    record["runs"] = [
        {
            "folder": member.name,
            "settings": member.settings,
            "seed": member.seed,
            "failed": member.failure(),
            **{field: summary.get(field) for field in _OF_A_RUN},
        }
        for point in points
        for member, summary in point
    ]
    write_json(out / "sweep.json", record)
    return record


def train_grid(
    config: Config,
    axes: Axes,
    seeds: Sequence[int],
    out: Path,
    console: Console,
    **options: Any,
) -> tuple[dict[str, Any], Sequence[Point]]:
    """Trains the runs of a grid that are not done.

    Args:
      config: the configuration that the runs share.
      axes: fields and their values.
      seeds: values for `config.seed`.
      out: gets a folder for each run.
      console: where progress is shown.
      options: of :class:`spa_jax.sweeps.runner.Runner`.

    Returns:
      What the record of any grid begins with, and the grid's points.

    Raises:
      InputError: a wrong configuration or a folder of another run; before anything is trained.
    """
    began = time.perf_counter()
    members = make_grid(config, axes, seeds, out)
    say = partial(console.print, style="dim", markup=False, highlight=False)
    Runner(out, say=say, show_progress=sys.stderr.isatty(), **options).train(members)
    console.print(f"{time.perf_counter() - began:.0f} s for {len(members)} run(s)", style="dim")
    runs = [(member, member.summary() or {}) for member in members]
    points = [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]
    first = next((summary for _, summary in runs if summary), {})
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "config": config.to_dict(),
        "seeds": list(seeds),
        **{field: first.get(field) for field in ("split", "hardware", "versions")},
        "axes": {field: list(values) for field, values in axes.items()},
        "points": [_point(point) for point in points],
    }
    return record, points


def _point(point: Point) -> dict[str, Any]:
    found = [summary for _, summary in point if summary]
    return {
        "settings": point[0][0].settings,
        "finished": len(found),
        "statistics": statistics(found) if found else None,
    }


def format_table(record: Mapping[str, Any], title: str = "") -> Table:
    """A row for each grid point of a record: mean ± sample standard deviation, accuracy in %.

    Args:
      record: what :func:`train_grid` gives, or more.
      title: of the table; by default it names the data.
    """
    points, seeds = record["points"], len(record["seeds"])
    data, named = record["config"]["data"]["name"], seeds_text(record["seeds"])
    title = title or f"{data}, last epoch, {named}"
    table = Table(title=f"{title}: mean ± std", title_justify="left", caption_justify="left")
    for field in points[0]["settings"]:
        table.add_column(field, no_wrap=True)
    known = (name for point in points for name in point["statistics"] or ())
    columns = dict.fromkeys([*known, *COLUMNS])
    table.caption = note_on(columns) or None
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        found, failed = cells_of(point["statistics"] or {}), seeds - point["finished"]
        cells = [found.get(column, "-") for column in columns]
        if failed:
            cells[0] += f" ({failed} failed)"
        table.add_row(*map(str, point["settings"].values()), *cells)
    return table


def seeds_text(seeds: Sequence[int]) -> str:
    """The seeds of a table as its title names them.

    Example:
      >>> seeds_text([3]), seeds_text([0, 1, 2])
      ('seed 3', 'seeds 0, 1, 2')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def open_console() -> Console:
    """Where tables are printed; a pipe has no width of its own, and no table is cut there."""
    return Console() if sys.stdout.isatty() else Console(width=1000)


def read_grid_config(changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `--config`, for runs whose figures the report draws for all at once.

    Args:
      changes: values for fields, by their dotted names, that the command line does not set.
    """
    config = read_config()
    given = config_flags.get_override_values(flags.FLAGS["config"])
    values = {"logging.plots": False, **(changes or {})}
    config.update_from_flattened_dict({k: v for k, v in values.items() if k not in given})
    return config


@errors_told()
def main(argv: Sequence[str]) -> None:
    """Sweeps over what the flags name; exits with status 2 if the input is wrong."""
    del argv
    values, config, console = flags.FLAGS, read_grid_config(), open_console()
    axes, seeds = parse_axes(values.axis), parse_seeds(values.seeds)
    out = output_folder(values.out, "--out")
    record = sweep(config, axes, seeds, out, console, values.together, values.members)
    console.print(format_table(record))
    console.print(f"All runs: {out / 'sweep.json'}", markup=False)


def define_grid_flags(seeds: str) -> None:
    """What every command over a grid has; not at import, since flags are global to a process."""
    config_flags.DEFINE_config_file("config", None, "The configuration file.")
    flags.DEFINE_string("seeds", seeds, "A number of seeds from 0, or a list with commas.")
    flags.DEFINE_string("out", None, "Folder for the runs, the record and its figures.")
    flags.mark_flags_as_required(["config", "out"])


def define_flags() -> None:
    """The command line."""
    define_grid_flags(seeds="1")
    flags.DEFINE_multi_string("axis", [], "FIELD=VALUE,VALUE; may be given several times.")
    flags.DEFINE_boolean("together", None, "One program for all; default: where it is faster.")
    members = "Runs in a program; default: as many as fit."
    flags.DEFINE_integer("members", None, members, lower_bound=1)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)

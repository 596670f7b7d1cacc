"""Trains a grid of settings with several seeds, and puts its points side by side.

python -m spa_jax.sweep --config=configs/digits_lt.py --config.spa.method=proj \
  --axis spa.gamma=0.1,0.3,0.5,0.7,0.9 --seeds=5 --out=runs/sweep

Several --axis give all combinations. --seeds=5 stands for the seeds 0 to 4, --seeds=0,3 for these
two. On accelerators the grid trains as one program if its axes change only what a program is given
(learning rate, weight decay, SpA's strengths), in chunks that fit into memory; otherwise, and on a
CPU, where that is faster, its runs train one after another. --together and --notogether decide.

Prints one table and writes `sweep.json`; each run has a folder like that of `train.py`. Start the
command again and it continues; a run that failed, with a `failed.json`, is not trained again until
that file is removed.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from spa_jax.command_line import parse_flags, read_config, stop
from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reporting.statistics import COLUMNS, IN_PERCENT, statistics
from spa_jax.reporting.table_text import mean_text
from spa_jax.sweeps.grid import (
    Axes,
    Member,
    make_grid,
    parse_axes,
    parse_seeds,
    untraced_fields,
)
from spa_jax.sweeps.members import CannotTrainTogether
from spa_jax.sweeps.together import open_chunks, train_together
from spa_jax.training.config import Config
from spa_jax.training.loop import run
from spa_jax.training.program import Program, compiled_differences

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
      together: train as one program, or one after another; None: what is faster here.
      at_once: members in a program; None: as many as fit into memory.

    Returns:
      The content of `sweep.json`: settings, what each run came to, mean and sample standard
      deviation of each column over the seeds of each grid point.

    Raises:
      InputError: a wrong configuration or a folder of another run; before anything is trained.
    """
    began = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and a sweep needs a folder: choose another --out.")
    members = make_grid(config, axes, seeds, out)
    if _trains_together(axes, members, out, together):
        _train_begun_alone(members, out, console)
        try:
            train_together(members, out, at_once, console.print, sys.stderr.isatty())
        except CannotTrainTogether as error:
            if together:
                raise
            console.print(str(error), style="dim", markup=False)
    _train_in_turn(members, untraced_fields(axes), console)
    record = _record(config, axes, seeds, members)
    write_text_whole(out / "sweep.json", json.dumps(record, indent=1) + "\n")
    console.print(f"{time.perf_counter() - began:.0f} s for this sweep", style="dim")
    return record


def _trains_together(axes: Axes, members: Sequence[Member], out: Path, asked: bool | None) -> bool:
    """Whether to train as one program: as asked, as it was begun, or as is faster."""
    untraced = untraced_fields(axes)
    if asked and untraced:
        raise InputError(
            f"--together trains one program, and {', '.join(untraced)} would need one for each "
            "value: leave out --together, or these axes."
        )
    if asked is not None:
        return asked
    if open_chunks(members, out):
        return True
    return not untraced and len(members) > 1 and jax.default_backend() != "cpu"


def _train_begun_alone(members: Sequence[Member], out: Path, console: Console) -> None:
    """Finishes the runs that were begun one after another and have a checkpoint to go on from."""
    in_chunks = {member.name for chunk in open_chunks(members, out) for member in chunk.members}
    begun = [
        member
        for member in members
        if not member.is_done
        and member.name not in in_chunks
        and any((member.folder / "checkpoints").glob("*"))
    ]
    _train_in_turn(begun, [], console)


def _train_in_turn(members: Sequence[Member], untraced: list[str], console: Console) -> None:
    """Trains the members that are not done, those of one program one after another."""
    program = None
    places = {member.name: i for i, member in enumerate(members)}
    compiled_in = {
        member.name: [str(member.settings[field]) for field in untraced] for member in members
    }
    order = sorted(members, key=lambda member: (compiled_in[member.name], places[member.name]))
    for member in order:
        if not member.is_done:
            if program is None or compiled_differences(program.config, member.config):
                console.print(f"{member.name}: compiling", style="dim", markup=False)
                program = Program(member.config)
            try:
                run(member.config, member.folder, program, say=lambda line: None)
            except FloatingPointError as error:
                member.fail(str(error))
        console.print(_outcome(member), style="dim", markup=False, highlight=False)


def _outcome(member: Member) -> str:
    summary = member.summary()
    if summary is None:
        return f"{member.name}: failed; see {member.folder / 'failed.json'}"
    return f"{member.name}: test accuracy {summary['test_accuracy']['last']:.3f}"


def _record(
    config: Config, axes: Axes, seeds: Sequence[int], members: Sequence[Member]
) -> dict[str, Any]:
    summaries = {member.name: member.summary() for member in members}
    first = next((summary for summary in summaries.values() if summary is not None), {})
    runs = []
    for member in members:
        summary = summaries[member.name] or {}
        runs.append(
            {
                "folder": member.name,
                "settings": member.settings,
                "seed": member.seed,
                "failed": member.failure(),
                **{field: summary.get(field) for field in _OF_A_RUN},
            }
        )
    points = []
    for start in range(0, len(members), len(seeds)):
        of_point = members[start : start + len(seeds)]
        finished = [found for member in of_point if (found := summaries[member.name]) is not None]
        points.append(
            {
                "settings": of_point[0].settings,
                "finished": len(finished),
                "statistics": statistics(finished) if finished else None,
            }
        )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "config": config.to_dict(),
        "axes": {field: list(values) for field, values in axes.items()},
        "seeds": list(seeds),
        **{field: first.get(field) for field in ("split", "hardware", "versions")},
        "points": points,
        "runs": runs,
    }


def format_table(record: Mapping[str, Any]) -> Table:
    """Mean ± sample standard deviation over the seeds of each grid point, accuracy in %."""
    seeds = len(record["seeds"])
    title = f"{record['config']['data']['name']}, {seeds} seed(s), last epoch: mean ± std"
    table = Table(title=title, title_justify="left")
    for field in record["axes"]:
        table.add_column(field, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for point in record["points"]:
        settings = [str(value) for value in point["settings"].values()]
        cells = ["-"] * len(COLUMNS)
        if point["statistics"] is not None:
            cells = [mean_text(point["statistics"][name], name in IN_PERCENT) for name in COLUMNS]
        if point["finished"] < seeds:
            cells[0] += f" ({seeds - point['finished']} failed)"
        table.add_row(*settings, *cells)
    return table


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

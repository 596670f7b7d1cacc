"""Trains one configuration under several SpA methods and seeds, and puts them side by side.

python -m spa_jax.compare --config=configs/digits_lt.py --seeds=0,1,2 --out=runs/demo

Prints one table, draws alignment over epochs by method, and writes `comparison.json`. A run that is
already finished in the output folder is read, not run again; one that was cut off is continued.
"""

import copy
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from spa_jax.command_line import own_command, parse_flags, read_config, stop
from spa_jax.errors import InputError
from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.run_plots import plot_alignment_over_epochs
from spa_jax.reporting.statistics import COLUMNS, IN_PERCENT, paired_differences, statistics
from spa_jax.reporting.table_text import difference_text, markdown_rows, mean_text
from spa_jax.training.config import Config, check_config
from spa_jax.training.config_limits import SPA_METHODS
from spa_jax.training.loop import run
from spa_jax.training.program import Program
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.workdir import check_workdir


def compare(
    config: Config,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    console: Console,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains every method with every seed and writes the comparison.

    Args:
      config: the configuration that the runs share.
      methods: values for `config.spa.method`.
      seeds: values for `config.seed`.
      out: gets a folder for each run, `comparison.json` and `alignment.png`.
      console: where progress is shown.
      command: the command line that the runs' summaries name.

    Returns:
      The content of `comparison.json`: settings, a summary for each run, mean and sample standard
      deviation of each column by method.

    Raises:
      InputError: a wrong configuration or a workdir of another one; before anything is trained.
    """
    began = time.perf_counter()
    members = {
        (method, seed): _member(config, method, seed) for method in methods for seed in seeds
    }
    for (method, seed), member in members.items():
        check_config(member)
        check_workdir(_workdir(out, method, seed), member)
    summaries: dict[str, list[dict[str, Any]]] = {}
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for method in methods:
        program = None
        for seed in seeds:
            member, workdir = members[method, seed], _workdir(out, method, seed)
            if program is None and not (workdir / "summary.json").exists():
                console.print(f"{method}: compiling", style="dim")
                program = Program(member)
            summary = run(member, workdir, program, say=lambda line: None, command=command)
            accuracy = summary["test_accuracy"]["last"]
            console.print(f"{method}, seed {seed}: test accuracy {accuracy:.3f}", style="dim")
            summaries.setdefault(method, []).append(summary)
            curves.setdefault(method, []).append(JsonLines(workdir / "metrics.jsonl").read())
    plot_alignment_over_epochs(curves, out / "alignment.png")
    first = summaries[methods[0]][0]
    comparison = {
        "date": datetime.now(UTC).date().isoformat(),
        "config": members[methods[0], seeds[0]].to_dict(),
        "seeds": list(seeds),
        "split": first["split"],
        "hardware": first["hardware"],
        "versions": first["versions"],
        "statistics": {name: statistics(runs) for name, runs in summaries.items()},
        "differences": {
            name: paired_differences(runs, summaries[methods[0]])
            for name, runs in summaries.items()
            if name != methods[0]
        },
        "runs": [summary for runs in summaries.values() for summary in runs],
    }
    write_text_whole(out / "comparison.json", json.dumps(comparison, indent=1) + "\n")
    console.print(f"{time.perf_counter() - began:.0f} s for this comparison", style="dim")
    return comparison


def _member(config: Config, method: str, seed: int) -> Config:
    member = copy.deepcopy(config)
    member.spa.method, member.seed = method, seed
    return member


def _workdir(out: Path, method: str, seed: int) -> Path:
    return out / f"{method}-seed{seed}"


def format_table(comparison: Mapping[str, Any]) -> Table:
    """The comparison as a table: mean ± sample standard deviation over seeds, accuracy in %."""
    header, *rows = _statistics_rows(comparison)
    table = Table(title=f"{_title(comparison)}: mean ± std", title_justify="left")
    table.add_column(header[0])
    for column in header[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def format_differences(comparison: Mapping[str, Any]) -> str:
    """A line for each method: what it changes against the baseline, with the 95% interval."""
    header, *rows = _difference_rows(comparison)
    if not rows:
        return ""
    lines = ["Paired by seed, mean ± half the 95% interval (one that holds 0 shows no difference):"]
    for method, *cells in rows:
        parts = [f"{name} {cell}" for name, cell in zip(header[1:], cells, strict=True)]
        lines.append(f"  {method} {header[0]}: {parts[0]}, {parts[-1]}")
    return "\n".join(lines)


def markdown_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table, with what is needed to tell where it comes from."""
    tables = [markdown_rows(rows(comparison)) for rows in (_statistics_rows, _difference_rows)]
    seeds = ", ".join(str(seed) for seed in comparison["seeds"])
    hardware = comparison["hardware"]
    origin = (
        f"{_title(comparison)} (seeds {seeds}): mean ± sample standard deviation; below, the mean "
        "paired difference ± half its 95% interval. Split "
        f"`{comparison['split']['checksum'][:16]}`; jax {comparison['versions']['jax']}, "
        f"{hardware['cpu_count']} CPU cores, {hardware['platform']}; {comparison['date']}."
    )
    return "\n\n".join([*tables, origin]) + "\n"


def _statistics_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    rows = [["method", *COLUMNS]]
    for method, columns in comparison["statistics"].items():
        cells = (mean_text(value, column in IN_PERCENT) for column, value in columns.items())
        rows.append([method, *cells])
    return rows


def _difference_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    baseline = next(iter(comparison["statistics"]))
    rows = [[f"minus {baseline}", *COLUMNS]]
    for method, columns in comparison["differences"].items():
        cells = (difference_text(value, column in IN_PERCENT) for column, value in columns.items())
        rows.append([method, *cells])
    return rows


def _title(comparison: Mapping[str, Any]) -> str:
    split, data = comparison["split"], comparison["config"]["data"]["name"]
    return (
        f"{data}, IF {split['imbalance_factor']:g}, {sum(split['class_counts'])} training images, "
        f"{len(comparison['seeds'])} seed(s), last epoch"
    )


def main(argv: Sequence[str]) -> None:
    """Compares what the flags name; exits with status 2 if the input is wrong."""
    del argv
    values = flags.FLAGS
    # A pipe has no width of its own; the table needs 90 columns.
    console = Console() if sys.stdout.isatty() else Console(width=100)
    config = read_config()
    config.checkpoint.every_epochs = values.checkpoint_every
    out = Path(values.out)
    if not values.seeds or not all(seed.isdecimal() for seed in values.seeds):
        stop(f"--seeds must be whole numbers with commas between, got {','.join(values.seeds)!r}.")
    seeds = [int(seed) for seed in values.seeds]
    try:
        command = own_command("-m spa_jax.compare")
        comparison = compare(config, values.methods, seeds, out, console, command)
    except (InputError, FloatingPointError) as error:
        stop(str(error))
    if values.record:
        record = Path(values.record)
        write_text_whole(record, (out / "comparison.json").read_text())
        shutil.copyfile(out / "alignment.png", record.with_suffix(".png"))
    console.print(format_table(comparison))
    console.print(format_differences(comparison), markup=False, highlight=False)
    console.print(f"Alignment over epochs: {out / 'alignment.png'}", markup=False)


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    config_flags.DEFINE_config_file("config", None, "The configuration file.")
    flags.DEFINE_list("methods", list(SPA_METHODS), "SpA methods, the baseline first.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
    flags.DEFINE_string("out", None, "Folder for the runs, the table and the figure.")
    flags.DEFINE_string("record", None, "A JSON file for a copy; the figure goes next to it.")
    flags.DEFINE_integer("checkpoint_every", 0, "Epochs between checkpoints; 0: only at the end.")
    flags.mark_flags_as_required(["config", "out"])


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)

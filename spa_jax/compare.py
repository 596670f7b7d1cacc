"""Trains one configuration with several variants of SpA and seeds, and puts them side by side.

python -m spa_jax.compare --config=configs/digits_lt.py --seeds=0,1,2 --out=runs/demo

It is a sweep over `spa.method`, with differences to the first. Prints one table, draws alignment
over epochs by variant, and writes `comparison.json`. A run that is finished in the output folder is
read, not run again; one that was cut off is continued. --seeds=3 stands for the seeds 0 to 2.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import spa_jax.extras  # noqa: F401

from absl import app, flags
from rich.console import Console

from spa_jax.command_line import errors_told, own_command, parse_flags, stop
from spa_jax.errors import InputError
from spa_jax.files import output_file, output_folder, write_json
from spa_jax.reporting.figures.run_plots import plot_alignment_over_epochs
from spa_jax.reporting.grouping import paired
from spa_jax.reporting.statistics import paired_differences, statistics
from spa_jax.reporting.table_text import cells_of
from spa_jax.sweep import (
    define_grid_flags,
    format_table,
    open_console,
    read_grid_config,
    seeds_text,
    train_grid,
)
from spa_jax.sweeps.grid import parse_axis, parse_seeds
from spa_jax.training.config import Config
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.variants import VARIANTS


def compare(
    config: Config,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    console: Console,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains every variant with every seed and writes the comparison.

    Args:
      config: the configuration that the runs share.
      methods: values for `config.spa.method`, the baseline first.
      seeds: values for `config.seed`.
      out: gets a folder for each run, `comparison.json` and `alignment.png`.
      console: where progress is shown.
      command: the command line that the runs' summaries name.

    Returns:
      The content of `comparison.json`: settings, a summary for each finished run, mean and sample
      standard deviation of each column by variant, paired differences to the first.

    Raises:
      InputError: a wrong configuration or a workdir of another one, before anything is trained; or
        a variant of which every run failed.
    """

    axes, options = {"spa.method": tuple(methods)}, {"together": False, "command": command}
    record, points = train_grid(config, axes, seeds, out, console, **options)
    found, curves = {}, {}
    for method, point in zip(methods, points, strict=True):
        found[method] = [summary for _, summary in point if summary]
        if not found[method]:
            failed, _ = point[0]
            raise InputError(f"No run of {method} came to its end: {failed.failure()}")
        folders = [member.folder for member, summary in point if summary]
        curves[method] = [JsonLines(folder / "metrics.jsonl").read() for folder in folders]
    plot_alignment_over_epochs(curves, out / "alignment.png")
    record["config"] = points[0][0][0].config.to_dict()
    record["statistics"] = {method: statistics(runs) for method, runs in found.items()}
    record["differences"] = {
        method: paired_differences(paired(found[method], found[methods[0]]))
        for method in methods[1:]
    }
    record["runs"] = [summary for runs in found.values() for summary in runs]
    write_json(out / "comparison.json", record)
    return record


def format_differences(comparison: Mapping[str, Any]) -> str:
    """A line for each variant: what it changes against the baseline, with the 95% interval."""
    baseline = next(iter(comparison["statistics"]))
    lines = ["Paired by seed, mean ± half the 95% interval (one that holds 0 shows no difference):"]
    for method, found in comparison["differences"].items():
        cells = cells_of(found)
        shown = ("test accuracy", "accuracy over classes", "held-out cosine")
        parts = [f"{name} {cells[name]}" for name in shown if name in cells]
        lines.append(f"  {method} minus {baseline}: {', '.join(parts)}")
    return "\n".join(lines) if len(lines) > 1 else ""


def title_of(comparison: Mapping[str, Any]) -> str:
    """What was compared: the data, the seeds, the epoch."""
    split, data = comparison["split"], comparison["config"]["data"]["name"]
    return (
        f"{data}, IF {split['imbalance_factor']:g}, {sum(split['class_counts'])} training images, "
        f"last epoch, {seeds_text(comparison['seeds'])}"
    )


@errors_told()
def main(argv: Sequence[str]) -> None:
    """Compares what the flags name; exits with status 2 if the input is wrong."""
    del argv
    values, console = flags.FLAGS, open_console()
    config = read_grid_config({"checkpoint.every_epochs": values.checkpoint_every})
    out = output_folder(values.out, "--out")
    record = None if values.record is None else output_file(values.record, "--record")
    if record is not None and record.suffix != ".json":
        stop(f"--record={record} must be a file that ends in .json; a figure is put next to it.")
    _, methods = parse_axis(f"spa.method={values.methods}", "--methods")
    command = own_command("-m spa_jax.compare")
    comparison = compare(config, methods, parse_seeds(values.seeds), out, console, command)
    if record is not None:
        write_json(record, comparison)
        shutil.copyfile(out / "alignment.png", record.with_suffix(".png"))
    console.print(format_table(comparison, title_of(comparison)))
    console.print(format_differences(comparison), markup=False, highlight=False)
    console.print(f"Alignment over epochs: {out / 'alignment.png'}", markup=False)


def define_flags() -> None:
    """The command line."""
    define_grid_flags(seeds="0,1,2")
    flags.DEFINE_string("methods", ",".join(VARIANTS), "Variants of SpA, the baseline first.")
    flags.DEFINE_string("record", None, "A JSON file for a copy; the figure goes next to it.")
    flags.DEFINE_integer("checkpoint_every", 0, "Epochs between checkpoints; 0: only at the end.")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)

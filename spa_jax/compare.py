"""Trains one configuration with several variants of SpA and seeds, and puts them side by side.

python -m spa_jax.compare --config=configs/digits_lt.py --seeds=0,1,2 --out=runs/demo

It is a sweep over `spa.method`, with differences to the first. Prints one table, draws alignment
over epochs by variant, and writes `comparison.json`. A run that is finished in the output folder is
read, not run again; one that was cut off is continued. --seeds=3 stands for the seeds 0 to 2.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
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
from spa_jax.reporting.grouping import differences_by_seed
from spa_jax.reporting.statistics import COLUMNS, statistics
from spa_jax.reporting.table_text import cells_of, difference_text, markdown_rows, mean_text
from spa_jax.sweep import Point, points_table, train_and_record
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

    def content(points: Sequence[Point]) -> dict[str, Any]:
        finished: dict[str, list[dict[str, Any]]] = {}
        curves: dict[str, list[list[dict[str, Any]]]] = {}
        for method, point in zip(methods, points, strict=True):
            finished[method] = [summary for _, summary in point if summary]
            if not finished[method]:
                failed, _ = point[0]
                raise InputError(f"No run of {method} came to its end: {failed.failure()}")
            folders = [member.folder for member, summary in point if summary]
            curves[method] = [JsonLines(folder / "metrics.jsonl").read() for folder in folders]
        plot_alignment_over_epochs(curves, out / "alignment.png")
        first, _ = points[0][0]
        baseline, *others = methods
        return {
            "config": first.config.to_dict(),
            "statistics": {method: statistics(found) for method, found in finished.items()},
            "differences": {
                method: differences_by_seed(finished[method], finished[baseline])
                for method in others
            },
            "runs": [summary for found in finished.values() for summary in found],
        }

    axes, options = {"spa.method": tuple(methods)}, {"together": False, "command": command}
    return train_and_record("comparison", config, axes, seeds, out, console, content, **options)


def format_table(comparison: Mapping[str, Any]) -> Table:
    """The comparison as a table: mean ± sample standard deviation over seeds, accuracy in %."""
    finished = Counter(run["spa_method"] for run in comparison["runs"])
    points = [
        {"settings": {"method": method}, "statistics": found, "finished": finished[method]}
        for method, found in comparison["statistics"].items()
    ]
    return points_table(_title(comparison), points, len(comparison["seeds"]))


def format_differences(comparison: Mapping[str, Any]) -> str:
    """A line for each variant: what it changes against the baseline, with the 95% interval."""
    baseline = next(iter(comparison["statistics"]))
    lines = ["Paired by seed, mean ± half the 95% interval (one that holds 0 shows no difference):"]
    for method, found in comparison["differences"].items():
        cells = cells_of(found, difference_text)
        parts = [f"{name} {cells[name]}" for name in ("test accuracy", "held-out cosine")]
        lines.append(f"  {method} minus {baseline}: {', '.join(parts)}")
    return "\n".join(lines) if len(lines) > 1 else ""


def markdown_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table, with what is needed to tell where it comes from."""
    means, differences = comparison["statistics"], comparison["differences"]
    corner = f"minus {next(iter(means))}"
    tables = []
    for name, part, text in (("method", means, mean_text), (corner, differences, difference_text)):
        rows = [[method, *cells_of(found, text).values()] for method, found in part.items()]
        tables.append(markdown_rows([[name, *COLUMNS], *rows]))
    seeds = ", ".join(str(seed) for seed in comparison["seeds"])
    hardware = comparison["hardware"]
    origin = (
        f"{_title(comparison)} (seeds {seeds}): mean ± sample standard deviation; below, the mean "
        "paired difference ± half its 95% interval. Split "
        f"`{comparison['split']['checksum'][:16]}`; jax {comparison['versions']['jax']}, "
        f"{hardware['cpu_count']} CPU cores, {hardware['platform']}; {comparison['date']}."
    )
    return "\n\n".join([*tables, origin]) + "\n"


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
    if "checkpoint.every_epochs" not in config_flags.get_override_values(values["config"]):
        config.checkpoint.every_epochs = values.checkpoint_every
    out = Path(values.out)
    record = Path(values.record) if values.record else None
    if record is not None and (record.suffix != ".json" or record.is_dir()):
        stop(f"--record={record} must be a file that ends in .json; a figure is put next to it.")
    try:
        _, methods = parse_axis(f"spa.method={values.methods}", "--methods")
        command = own_command("-m spa_jax.compare")
        comparison = compare(config, methods, parse_seeds(values.seeds), out, console, command)
    except InputError as error:
        stop(str(error))
    if record is not None:
        write_text_whole(record, (out / "comparison.json").read_text())
        shutil.copyfile(out / "alignment.png", record.with_suffix(".png"))
    console.print(format_table(comparison))
    console.print(format_differences(comparison), markup=False, highlight=False)
    console.print(f"Alignment over epochs: {out / 'alignment.png'}", markup=False)


def define_flags() -> None:
    """The command line; not at import, since flags are global to a process."""
    config_flags.DEFINE_config_file("config", None, "The configuration file.")
    flags.DEFINE_string("methods", ",".join(VARIANTS), "Variants of SpA, the baseline first.")
    flags.DEFINE_string("seeds", "0,1,2", "A number of seeds from 0, or a list with commas.")
    flags.DEFINE_string("out", None, "Folder for the runs, the table and the figure.")
    flags.DEFINE_string("record", None, "A JSON file for a copy; the figure goes next to it.")
    flags.DEFINE_integer("checkpoint_every", 0, "Epochs between checkpoints; 0: only at the end.")
    flags.mark_flags_as_required(["config", "out"])


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)

"""What one run writes into its folder while it trains, and at its end."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from spa_jax.data.dataset import LongTailedDataset
from spa_jax.files import write_json
from spa_jax.reporting.figures.run_plots import (
    plot_alignment_over_epochs,
    plot_cosine_by_class_size,
)
from spa_jax.training.config import Config
from spa_jax.training.evaluation import collapse_geometry
from spa_jax.training.metrics import Totals, number
from spa_jax.training.program import Program
from spa_jax.training.rundir.events import EventWriter
from spa_jax.training.rundir.first_run import FirstRun
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.summary import TRAIN_FIELDS, evaluation_line, make_summary, train_line
from spa_jax.training.rundir.workdir import (
    SUMMARY,
    check_config,
    check_data,
    check_init,
    claim_data,
    claimed_init,
    note_unread_test,
    write_config,
)
from spa_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run has come to: its serializable state and its last report, on the host."""

    state: TrainState
    report: dict[str, Any]


class RunRecord:
    """The files of one run: `config.json`, `metrics.jsonl`, `steps.jsonl`, event files, the end's.

    On several hosts one of them writes.

    Attributes:
      config: of the run.
      workdir: its folder.
      epochs: the lines of `metrics.jsonl`.
    """

    def __init__(self, config: Config, workdir: Path) -> None:
        """Nothing is written yet."""
        self.config, self.workdir = config, workdir
        self._primary = jax.process_index() == 0
        self.epochs = JsonLines(workdir / "metrics.jsonl", writes=self._primary)
        self._steps = JsonLines(workdir / "steps.jsonl", writes=self._primary)
        self._lines: list[dict[str, Any]] = []
        self._events: EventWriter | None = None

    def claim(self, data: LongTailedDataset, first: FirstRun | None = None) -> None:
        """Makes the folder this run's, on these data and from this first run.

        Args:
          data: what it is trained and tested on.
          first: what it starts from; None: from its seed alone, or from a checkpoint of its own.

        Raises:
          InputError: the folder is of another configuration, of other data, or of another first
            run, as it may be since it was looked at.
        """
        init = None if first is None else first.record
        check_config(self.workdir, self.config)
        check_data(self.workdir, data)
        check_init(self.workdir, init)
        if self._primary:
            claim_data(self.workdir, data, init)
            write_config(self.workdir, self.config)

    def lengthen(self) -> None:
        """Makes the folder's run, finished or not, one of as many epochs as the configuration has.

        An evaluation that it had only because it ended there is forgotten.
        """
        if self._primary:
            # First, or a crash would leave a finished run whose last line lacks its evaluation.
            (self.workdir / SUMMARY).unlink(missing_ok=True)
            lines = self.epochs.read()
            if lines and lines[-1]["epoch"] % self.config.evaluate_every:
                lines[-1] = {name: x for name, x in lines[-1].items() if name in TRAIN_FIELDS}
                self.epochs.write(lines)
            write_config(self.workdir, self.config)
        multihost_utils.sync_global_devices("the run has more epochs")

    def note_unread_test(self) -> None:
        """Lets the run go on with other test data, as these could not be read."""
        if self._primary:
            note_unread_test(self.workdir)

    def open(
        self, start: int, steps_per_epoch: int, checkpoints: Path, say: Callable[[str], None]
    ) -> None:
        """Drops what was written after the checkpoint that is continued; `start` is its step.

        Raises:
          InputError: a line of an epoch before it is missing.
        """
        every = self.config.evaluate_every
        self.epochs.check_epochs(start, steps_per_epoch, checkpoints, every)
        self._lines = self.epochs.cut_back(start)
        self._steps.cut_back(start - 1)  # the next step writes the line of this one
        if self._primary and self.config.logging.tensorboard:
            try:
                self._events = EventWriter(self.workdir / "events", start)
            except ImportError:
                say(
                    "No TensorBoard event files are written: the package tensorboard is not "
                    "installed (pip install '.[tensorboard]')."
                )

    def add_step(self, step: int, totals: Totals) -> dict[str, float | None]:
        """Writes the line of a step; returns what it says."""
        metrics = {name: number(value) for name, value in totals.last.items()}
        self._steps.append({"step": step, **metrics})
        if self._events is not None:
            self._events.write(step, "train", metrics)
        return metrics

    def lacks_evaluation(self, epoch: int) -> bool:
        """Whether an epoch (counted from 1) that is to be evaluated was trained and saved only."""
        due = epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs
        return due and bool(self._lines) and "test_loss" not in self._lines[-1]

    def add_epoch(self, epoch: int, step: int, totals: Totals, times: Mapping[str, float]) -> None:
        """Writes what the line of an epoch (counted from 0) says before it is evaluated."""
        self._lines.append(train_line(epoch, step, totals) | dict(times))
        self.epochs.append(self._lines[-1])

    def add_evaluation(self, report: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Completes the line of the last epoch, and returns it; `seconds` is what that took.

        It takes the place of the lines since the evaluation before, and has their seconds.
        """
        trained = [line for line in self._lines if "test_loss" not in line]
        line = trained[-1] | evaluation_line(report)
        line["seconds"] = seconds + sum(part["seconds"] for part in trained)
        self._lines = [*self._lines[: -len(trained)], line]
        self.epochs.write(self._lines)
        if self._events is not None:
            self._events.write(line["step"], "epoch", line)
        return line

    def best_step(self, steps: Collection[int]) -> int | None:
        """Of these steps the first that is best on the validation part; None if none has that."""
        name = "validation_accuracy"
        lines = [line for line in self._lines if line["step"] in steps and name in line]
        return max(lines, key=lambda line: line[name])["step"] if lines else None

    def close(self) -> None:
        """Flushes event files."""
        if self._events is not None:
            self._events.close()

    def finish(self, program: Program, trained: Trained, command: str | None) -> dict[str, Any]:
        """Writes what a finished run leaves, `summary.json` last; returns the summary.

        Args:
          program: that trained it.
          trained: what it has come to.
          command: the command line that made the run, if it is known.
        """
        config, data, report = self.config, program.data, trained.report
        summary = make_summary(
            config,
            data,
            program.layout,
            report,
            trained.state.params,
            self._lines,
            command,
            claimed_init(self.workdir),
        )
        if not self._primary:
            return summary
        if config.logging.plots:
            curves = {config.spa.method: [self._lines]}
            plot_alignment_over_epochs(curves, self.workdir / "alignment.png")
            plot_cosine_by_class_size(
                data.class_counts,
                report["cosines"][0],
                report["test_cosines"][0],
                data.class_names,
                self.workdir / "cosine_by_class_size.png",
            )
        if "collapse" in report:
            geometry: dict[str, Any] = collapse_geometry(report["collapse"])
            np.savez(
                self.workdir / "geometry.npz", heads=np.array(program.method.kernels), **geometry
            )
        write_json(self.workdir / SUMMARY, summary, indent=2)
        return summary

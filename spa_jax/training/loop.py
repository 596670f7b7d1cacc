"""The run: epochs of steps, evaluation, checkpoints, records, and the summary at the end."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spa_jax.files import write_text_whole
from spa_jax.reporting.figures.run_plots import (
    plot_alignment_over_epochs,
    plot_cosine_by_class_size,
)
from spa_jax.training.config import Config, check_config
from spa_jax.training.metrics import Totals, check_finite, epoch_line, fetch, number
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import Checkpoints, serializable
from spa_jax.training.rundir.events import EventWriter, NoEvents
from spa_jax.training.rundir.json_lines import JsonLines, ProgressBar
from spa_jax.training.rundir.summary import make_summary
from spa_jax.training.rundir.workdir import check_workdir, write_config
from spa_jax.training.state import TrainState


class RunStopped(Exception):
    """A run was stopped between two epochs, as its caller wanted; it can be continued."""


def run(
    config: Config,
    workdir: Path,
    program: Program | None = None,
    say: Callable[[str], None] = print,
    show_progress: bool = False,
    keep_going: Callable[[], bool] = lambda: True,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains a configuration to its end, from the start or from where its workdir stands.

    Args:
      config: see :func:`spa_jax.training.config.default_config`.
      workdir: gets `config.json`, `metrics.jsonl`, `steps.jsonl`, `summary.json`, checkpoints,
        event files and plots; on several hosts a folder that all of them see. A finished run is not
        run again.
      program: compiled functions to share with other runs whose configs differ only in the seed
        and the traced hyper-parameters; None builds one.
      say: gets a line for a person now and then.
      show_progress: draw a progress bar.
      keep_going: asked after each epoch but the last; False stops the run at a checkpoint.
      command: the command line that the summary names as the run's.

    Returns:
      The content of `summary.json`.

    Raises:
      InputError: wrong configuration, data or workdir; nothing has been trained or overwritten.
      FloatingPointError: the loss or its gradient became infinite or NaN; the message says when.
      RunStopped: `keep_going` said so.
    """
    check_config(config)
    check_workdir(workdir, config)
    summary_path = workdir / "summary.json"
    if summary_path.exists():
        summary = json.loads(summary_path.read_text())
        last = summary["test_accuracy"]["last"]
        say(f"The run in {workdir} is finished: test accuracy {last:.4f}. Nothing to do.")
        return summary
    if program is None:
        program = Program(config)
    program.check_fits(config)
    primary = jax.process_index() == 0
    if primary:
        write_config(workdir, config)
    with Checkpoints(workdir / "checkpoints", config.checkpoint.keep, say) as checkpoints:
        state, start = checkpoints.restore_newest(program.init_state(config))
        loop = _Loop(config, workdir, program, checkpoints, say)
        report, params = loop.train(state, start, show_progress, keep_going)
    summary = make_summary(config, program, report, params, loop.epochs.read(), command)
    if primary:
        write_results(config, workdir, program, report, summary)
    say(
        f"Finished: test accuracy {summary['test_accuracy']['last']:.4f}; see "
        f"{workdir / 'summary.json'}."
    )
    return summary


def full_report(program: Program, state: TrainState, config: Config) -> dict[str, Any]:
    """All that is evaluated at an epoch's end, still on the device."""
    report = program.evaluate(state)
    if config.logging.collapse:
        report["collapse"] = program.collapse(state)
    return report


def wants_checkpoint(config: Config, epochs_done: int) -> bool:
    """Whether a state is kept after so many epochs; the last one always is."""
    every = config.checkpoint.every_epochs
    return epochs_done == config.epochs or bool(every and epochs_done % every == 0)


def write_results(
    config: Config,
    workdir: Path,
    program: Program,
    report: dict[str, Any],
    summary: dict[str, Any],
) -> None:
    """Writes what a finished run leaves in its workdir: the plots, and last `summary.json`."""
    if config.logging.plots:
        lines = JsonLines(workdir / "metrics.jsonl").read()
        plot_alignment_over_epochs({config.spa.method: [lines]}, workdir / "alignment.png")
        plot_cosine_by_class_size(
            program.data.class_counts,
            report["cosines"][0],
            report["test_cosines"][0],
            program.data.class_names,
            workdir / "cosine_by_class_size.png",
        )
    if config.logging.collapse:
        heads = np.array(program.method.kernels)
        np.savez(workdir / "geometry.npz", heads=heads, **report["collapse"]["geometry"])
    # Written last: where it stands, everything else does.
    write_text_whole(workdir / "summary.json", json.dumps(summary, indent=2) + "\n")


@dataclasses.dataclass
class _Loop:
    """The epochs of one run, and the files it appends to."""

    config: Config
    workdir: Path
    program: Program
    checkpoints: Checkpoints
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        primary = jax.process_index() == 0
        self.epochs = JsonLines(self.workdir / "metrics.jsonl", writes=primary)
        self.steps = JsonLines(self.workdir / "steps.jsonl", writes=primary)
        self.events: EventWriter | NoEvents = NoEvents()
        self.older: Totals | None = None
        self.epoch_began = time.perf_counter()

    def train(
        self,
        state: TrainState,
        start: int,
        show_progress: bool,
        keep_going: Callable[[], bool],
    ) -> tuple[dict[str, Any], Any]:
        """Trains from a state of step `start`; returns the fetched last report and the params."""
        config, steps_per_epoch = self.config, self.program.steps_per_epoch
        data, layout = self.program.data, self.program.layout
        self.say(
            f"{data.name}: {len(data.train)} training images, {data.num_classes} classes; "
            f"SpA {config.spa.method}; {layout.mode} on {layout.num_devices} device(s); "
            f"{config.epochs} epochs of {steps_per_epoch} steps."
        )
        if start:
            self.say(f"Resuming {self.workdir} after epoch {start // steps_per_epoch}.")
        self.epochs.check_epochs(start, steps_per_epoch, self.workdir)
        self.epochs.cut_back(start)
        self.steps.cut_back(start)
        report = None
        total_steps = config.epochs * steps_per_epoch
        with (
            contextlib.closing(self.program.feed),
            contextlib.closing(self._open_events(start)) as self.events,
            ProgressBar(start, total_steps, show_progress) as bar,
            jax.transfer_guard("disallow"),
        ):
            for epoch in range(start // steps_per_epoch, config.epochs):
                self.epoch_began = time.perf_counter()
                state, totals = self._train_epoch(state, epoch, bar)
                train_seconds = time.perf_counter() - self.epoch_began
                report, totals = fetch((full_report(self.program, state, config), totals))
                check_finite(totals)
                self._record_epoch(epoch, totals, report, train_seconds, bar)
                stops = epoch + 1 < config.epochs and not keep_going()
                if stops or wants_checkpoint(config, epoch + 1):
                    self.checkpoints.save(fetch(serializable(state)))
                if stops:
                    raise RunStopped(f"stopped after epoch {epoch + 1} of {config.epochs}")
            if report is None:  # resumed after the last epoch: only the end was missing
                report = full_report(self.program, state, config)
            return fetch((report, state.params))

    def _train_epoch(
        self, state: TrainState, epoch: int, bar: ProgressBar
    ) -> tuple[TrainState, Totals]:
        program, every = self.program, self.config.logging.every_steps
        totals = program.zero_totals
        for i, inputs in enumerate(program.batches(state, self.config.seed, epoch)):
            state, totals = program.train_step(state, totals, inputs)
            step = epoch * program.steps_per_epoch + i + 1
            # The step before the newest: the device goes on with the newest meanwhile.
            if every and step % every == 0 and self.older is not None:
                self._record_step(step - 1, fetch(self.older), bar)
            self.older = totals
        jax.block_until_ready(totals)
        return state, totals

    def _record_step(self, step: int, totals: Totals, bar: ProgressBar) -> None:
        check_finite(totals)
        metrics = {name: number(value) for name, value in totals.last.items()}
        self.steps.append({"step": step, **metrics})
        self._write_events(step, "train", metrics)
        seconds = time.perf_counter() - self.epoch_began
        shown = {"loss": metrics["loss"], "train acc": metrics["accuracy"]}
        shown |= {"cosine": metrics["mean_cosine"]}
        shown |= {"img/s": int(totals.steps) * self.config.batch_size / seconds}
        bar.show(step, shown)

    def _record_epoch(
        self,
        epoch: int,
        totals: Totals,
        report: dict[str, Any],
        train_seconds: float,
        bar: ProgressBar,
    ) -> None:
        step = (epoch + 1) * self.program.steps_per_epoch
        line = {
            **epoch_line(epoch, step, totals, report),
            "images_per_second": int(totals.steps) * self.config.batch_size / train_seconds,
            "seconds": time.perf_counter() - self.epoch_began,
        }
        self.epochs.append(line)
        self._write_events(step, "epoch", line)
        bar.show(
            step,
            {
                "loss": line["train_loss"],
                "test acc": line["test_accuracy"],
                "cosine": line["mean_cosine"],
                "img/s": line["images_per_second"],
            },
        )

    def _open_events(self, start: int) -> EventWriter | NoEvents:
        if not self.config.logging.tensorboard or jax.process_index() != 0:
            return NoEvents()
        try:
            return EventWriter(self.workdir / "events", start)
        except ImportError:
            self.say(
                "No TensorBoard event files are written: the package tensorboard is not installed "
                "(pip install '.[tensorboard]')."
            )
            return NoEvents()

    def _write_events(self, step: int, group: str, record: dict[str, Any]) -> None:
        known = {name: value for name, value in record.items() if isinstance(value, int | float)}
        self.events.write(step, {f"{group}/{name}": value for name, value in known.items()})

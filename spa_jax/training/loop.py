"""The one loop over epochs: steps, evaluation, records and checkpoints, of one run or of many."""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spa_jax.errors import InputError
from spa_jax.training.config import Config, resolve
from spa_jax.training.interruption import Interruption
from spa_jax.training.metrics import Totals, check_finite, fetch
from spa_jax.training.program import Program
from spa_jax.training.progress import ProgressBar
from spa_jax.training.rundir.checkpoints import Checkpoints, saved_steps, serializable
from spa_jax.training.rundir.owner import owned
from spa_jax.training.rundir.run_record import RunRecord, Trained
from spa_jax.training.rundir.workdir import (
    check_data,
    check_finished,
    check_workdir,
    epochs_before,
    read_summary,
)
from spa_jax.training.state import STATE_PLACES, TrainState

Say = Callable[[str], None]


class RunStopped(Exception):
    """A run was stopped between two epochs, as its caller wanted; it can be continued."""


def run(
    config: Config,
    workdir: Path,
    program: Program | None = None,
    say: Say = print,
    show_progress: bool = False,
    keep_going: Callable[[], bool] = lambda: True,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains a configuration to its end, from the start or from where its workdir stands.

    Args:
      config: see :func:`spa_jax.training.config.default_config`.
      workdir: gets `config.json`, `metrics.jsonl`, `steps.jsonl`, `summary.json`, checkpoints,
        event files and plots; on several hosts a folder that all of them see. A finished run is not
        run again, but trained on where the configuration has more epochs than it.
      program: compiled functions to share with other runs whose configs differ only in the seed
        and the traced hyper-parameters; None builds one.
      say: gets a line for a person now and then.
      show_progress: draw a progress bar.
      keep_going: asked after each epoch but the last; False stops the run at a checkpoint.
      command: the command line that the summary names as the run's.

    Returns:
      The content of `summary.json`.

    Raises:
      InputError: wrong configuration, data or workdir, or another process trains there, and nothing
        has been trained or overwritten; or the disk is full.
      FloatingPointError: the loss or its gradient became infinite or NaN, or too many steps in a
        row were skipped; the message says when.
      RunStopped: `keep_going` said so.
      SystemExit: with status 75, after SIGTERM, at a checkpoint after the step that was under way;
        the run can be continued, also on other hosts. Handlers are installed where this is the main
        thread, and the program has none of its own.
      KeyboardInterrupt: the same, after Ctrl-C; a second one ends the process at once.
    """
    options = resolve(config)
    before = epochs_before(workdir, config)
    as_begun = copy.deepcopy(config)
    as_begun.epochs = before or config.epochs
    check_workdir(workdir, as_begun)  # which names what else is another than that run's
    if before is not None:
        options.check_longer(before)
    summary = read_summary(workdir)
    if summary is not None and before is None:
        check_finished(workdir, options.data)
        say(f"The run in {workdir} is finished: {_accuracy(summary)}. Nothing to do.")
        return summary
    if summary is not None and not saved_steps(workdir / "checkpoints"):
        raise InputError(
            f"The run in {workdir} is finished and has no checkpoint to train on from: put that of "
            "its last step back, or train anew in another workdir."
        )
    if program is None:
        program = Program(config)
    program.check_fits(config)
    if not saved_steps(workdir / "checkpoints"):
        _ = program.first_run  # which refuses what does not fit, before anything is written
    data, layout = program.data, program.layout
    say(
        f"{data.name}: {len(data.train)} training images, {data.num_classes} classes; "
        f"SpA {config.spa.method}; {layout.mode} on {layout.num_devices} device(s); "
        f"{config.epochs} epochs of {program.steps_per_epoch} steps."
    )
    record = RunRecord(config, workdir)
    loop = EpochLoop(program, [record], workdir / "checkpoints", say, show_progress, keep_going)
    with owned(workdir, say=say):
        if before is not None:
            check_data(workdir, data)
            record.lengthen()
            say(f"Training on from {before} epochs to {config.epochs}.")
        summary = record.finish(program, loop.train()[0], command)
    say(f"Finished: {_accuracy(summary)}; see {workdir / 'summary.json'}.")
    return summary


def _accuracy(summary: dict[str, Any]) -> str:
    """The last accuracy in words; over classes too where the test set is not balanced."""
    text = f"test accuracy {summary['test_accuracy']['last']:.4f}"
    balanced = summary.get("balanced_accuracy")
    return f"{text} ({balanced['last']:.4f} over classes, not images)" if balanced else text


@dataclasses.dataclass
class EpochLoop:
    """Trains the runs of a program to their end, from the start or from their newest checkpoint.

    Attributes:
      program: with a layout that has room for the runs.
      records: one a run.
      folder: of the checkpoints of all of them together.
      say, show_progress, keep_going: as for :func:`run`.
      closed: places of runs that are trained along, and of which nothing is written.
      fail: gets the place of a run whose loss or gradient is not finite any more; its record ends
        there, and the others go on. None: the error is raised.
      interruption: notices of SIGTERM and Ctrl-C while it trains.
    """

    program: Program
    records: Sequence[RunRecord]
    folder: Path
    say: Say = print
    show_progress: bool = False
    keep_going: Callable[[], bool] = lambda: True
    closed: Collection[int] = ()
    fail: Callable[[int, FloatingPointError], None] | None = None

    def __post_init__(self) -> None:
        self._open = {i: own for i, own in enumerate(self.records) if i not in self.closed}
        self._config = self.records[0].config
        self._older: Totals | None = None
        self._totals = self.program.zero_totals
        self._epoch_began = time.perf_counter()
        self._step = 0
        self._position: dict[str, Any] = {}
        self.interruption = Interruption()

    def train(self) -> dict[int, Trained]:
        """Trains; returns, by its place, what each run that is not closed has come to.

        Raises:
          InputError, FloatingPointError, RunStopped, SystemExit, KeyboardInterrupt: as :func:`run`.
        """
        program, config, spe = self.program, self._config, self.program.steps_per_epoch
        resumed = bool(saved_steps(self.folder))
        fresh = program.init_state(*(record.config for record in self.records), resumed=resumed)
        first = None if resumed else program.first_run
        for record in self._open.values():
            record.claim(program.data, first)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.interruption)
            checkpoints = Checkpoints(self.folder, config.checkpoint.keep, self.say)
            stack.enter_context(checkpoints)
            stack.callback(program.feed.close)
            state, start = checkpoints.restore_newest(fresh)
            self._position = checkpoints.position if start else {}
            done, inside = divmod(start, spe)
            if start:
                more = f" and {inside} step(s) of the next" if inside else ""
                self.say(f"Resuming {self.folder.parent} after epoch {done}{more}.")
            self._step = start
            if self._position:
                self._totals = program.zero_totals.placed(self._position["totals"])
                self._older = self._measured(state, self._totals)
            for record in self._open.values():
                record.open(start, spe, self.folder.parent, self.say)
                stack.callback(record.close)
            bar = ProgressBar(start, config.epochs * spe, self.show_progress)
            stack.enter_context(bar)
            stack.enter_context(jax.transfer_guard("disallow"))
            report = None
            if done and not inside:
                report = self._evaluate(state, done, bar)  # what a run before has not come to
            self._keep_best(checkpoints, state)
            while done < config.epochs and self._open:
                state = self._train_epoch(state, done, bar)
                done, inside = divmod(self._step, spe)
                ends = done == config.epochs
                stops = not (inside or ends or self.interruption.due or self.keep_going())
                every = config.checkpoint.every_epochs
                saved = stops or ends or (every and done % every == 0)
                if saved or self.interruption.due:
                    self._save(checkpoints, state)
                    self._check_interruption(checkpoints)
                # Saved first, so that an evaluation that fails costs no epoch.
                try:
                    report = self._evaluate(state, done, bar)
                except BaseException as error:
                    # On several hosts it may fail on one, and all of them would have to save.
                    if not saved and jax.process_count() == 1:
                        self._save(checkpoints, state)
                    if not isinstance(error, Exception):
                        self._check_interruption(checkpoints)
                    raise
                self._keep_best(checkpoints, state)
                if stops:
                    raise RunStopped(f"stopped after epoch {done} of {config.epochs}")
            if report is None:  # resumed after the last epoch: only the end was missing
                report = self._report(state)
            states = program.layout.unstack(fetch(serializable(state)), STATE_PLACES)
        if self.interruption.due:  # since the last evaluation: another run may be next
            raise self.interruption.error()
        reports = program.layout.unstack(report)
        return {i: Trained(states[i], reports[i]) for i in self._open}

    def _save(self, checkpoints: Checkpoints, state: TrainState) -> None:
        checkpoints.save(state, self._position)

    def _keep_best(self, checkpoints: Checkpoints, state: TrainState) -> None:
        """Keeps the checkpoint of the best epoch, which may be the one that was just evaluated."""
        if self._config.checkpoint.keep_best:
            (record,) = self._open.values()  # of runs trained together none is the best of all
            best = record.best_step({*checkpoints.steps, self._step})
            if best is not None and best not in checkpoints.steps:
                self._save(checkpoints, state)
            checkpoints.keep_best(best)

    def _check_interruption(self, checkpoints: Checkpoints) -> None:
        """Ends a run that was interrupted, once what has just been saved is whole."""
        if self.interruption.due:
            checkpoints.wait()
            with contextlib.suppress(OSError, SystemExit):  # Ctrl-C may have ended who reads this
                self.say(
                    f"Interrupted after step {self._step}, and saved in {self.folder}: the same "
                    "command goes on from there."
                )
            raise self.interruption.error()

    def _train_epoch(self, state: TrainState, epoch: int, bar: ProgressBar) -> TrainState:
        """The state after the rest of an epoch (counted from 0), or where the run is interrupted.

        Its lines still lack the evaluation.
        """
        program, spe = self.program, self.program.steps_per_epoch
        inside = self._step - epoch * spe
        totals = self._totals if inside else program.zero_totals
        self._epoch_began = time.perf_counter() - (self._position["seconds"] if inside else 0)
        for inputs in program.batches(state, self._config.seed, epoch, inside):
            state, totals = program.train_step(state, totals, inputs)
            self._step += 1
            # The step before the newest: the device goes on with the newest meanwhile.
            if self._older is not None:
                self._record_step(self._step - 1, fetch(self._older), bar)
            self._older = self._measured(state, totals)
            if self.interruption.reached(self._step):
                break
        ends = self._step == (epoch + 1) * spe
        totals = fetch(program.measure(state, totals) if ends else totals)
        elapsed = time.perf_counter() - self._epoch_began
        self._position = {"totals": totals.to_lists(), "seconds": elapsed}
        finite, seconds = self._finite(totals), elapsed / len(self.records)
        times = {"images_per_second": self._rate(spe), "seconds": seconds}
        for i, own in finite.items() if ends else ():
            self._open[i].add_epoch(epoch, self._step, own, times)
        return state

    def _measured(self, state: TrainState, totals: Totals) -> Totals | None:
        """What the line of the newest step is to say; None if it has none."""
        every = self._config.logging.every_steps
        due = every and (self._step + 1) % every == 0
        return self.program.measure(state, totals) if due else None

    def _evaluate(self, state: TrainState, epoch: int, bar: ProgressBar) -> dict[str, Any] | None:
        """The fetched report on an epoch (counted from 1), if it is to have one and has none yet.

        It completes the lines of the epoch.
        """
        waiting = {i: own for i, own in self._open.items() if own.lacks_evaluation(epoch)}
        if not waiting:
            return None
        began = time.perf_counter()
        report = self._report(state)
        seconds = (time.perf_counter() - began) / len(self.records)
        reports = self.program.layout.unstack(report)
        lines = [own.add_evaluation(reports[i], seconds) for i, own in waiting.items()]
        shown = {"loss": "train_loss", "test acc": "test_accuracy", "cosine": "mean_cosine"}
        shown["img/s"] = "images_per_second"
        bar.show(epoch * self.program.steps_per_epoch, _mean_of(lines, shown))
        return report

    def _report(self, state: TrainState) -> dict[str, Any]:
        """The fetched report; test data that cannot be read are noted, as they may be repaired."""
        try:
            with self.interruption.at_once():
                return fetch(self.program.evaluate(state))
        except InputError:
            for record in self._open.values():
                record.note_unread_test()
            raise

    def _record_step(self, step: int, totals: Totals, bar: ProgressBar) -> None:
        lines = [self._open[i].add_step(step, own) for i, own in self._finite(totals).items()]
        shown = {"loss": "loss", "train acc": "accuracy", "cosine": "mean_cosine"}
        done = (step - 1) % self.program.steps_per_epoch + 1
        bar.show(step, _mean_of(lines, shown) | {"img/s": self._rate(done)})

    def _rate(self, steps: int) -> float:
        """Images a second of the epoch's first steps, over all runs."""
        images = min(steps * self._config.batch_size, len(self.program.data.train))
        return images * len(self.records) / (time.perf_counter() - self._epoch_began)

    def _finite(self, totals: Totals) -> dict[int, Totals]:
        """The totals of each open run; those that are not finite any more are closed."""
        of_each = self.program.layout.unstack(totals)
        for i in list(self._open):
            try:
                check_finite(of_each[i])
            except FloatingPointError as error:
                if self.fail is None:
                    raise
                self.fail(i, error)
                del self._open[i]
        return {i: of_each[i] for i in self._open}


def _mean_of(lines: Sequence[dict[str, Any]], shown: dict[str, str]) -> dict[str, float | None]:
    """The means over runs of what a progress bar shows."""
    values = {name: [line[field] for line in lines] for name, field in shown.items()}
    return {
        name: float(np.mean(found)) if found and None not in found else None
        for name, found in values.items()
    }

"""Evaluates finished runs, each from the checkpoint of its last step alone.

python -m spa_jax.evaluate runs/a runs/b --out=evaluation/

On the test set, or with --part=validation on what was held out of the training set, or with
--data=FOLDER on the test part of another data set of the same classes. The run's own data are
needed too: pixel statistics and class sizes are those of its training set.

Prints three tables: accuracy over examples and over classes, macro-F1 and means of the recalls;
calibration; accuracy under post-hoc logit adjustment by its strength tau, and with
--tau-normalisation that of class weights over a power tau of their lengths. Of each run
DIR/RUN/PART/ gets `evaluation.json`, `predictions.npz` and figures. A copy of the numbers stays in
the run's folder, as `evaluation_PART.json`, for `python -m spa_jax.report`.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import spa_jax.extras  # noqa: F401

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from spa_jax.command_line import keep_compiled_programs
from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import EncodedImages, LabelledImages, LongTailedDataset
from spa_jax.data.sources.opening import SOURCES, load_data, read_source
from spa_jax.errors import InputError, with_status
from spa_jax.files import local_path, output_folder, read_json, write_json
from spa_jax.longtail.losses import adjust_logits, log_prior, tau_normalised
from spa_jax.reporting.evaluation_tables import EVALUATION_COLUMNS, evaluation_rows
from spa_jax.reporting.figures.predictions import confusion_drawing, reliability_drawing
from spa_jax.reporting.figures.style import RC, file_name, save
from spa_jax.reporting.finished_runs import Run, find_run_folders, read_run
from spa_jax.reporting.table_text import markdown_rows
from spa_jax.training.config import Config, resolve
from spa_jax.training.devices import Layout
from spa_jax.training.evaluation import tested_classifier
from spa_jax.training.metrics import fetch
from spa_jax.training.prediction_measures import prediction_measures, tau_sweep
from spa_jax.training.program import Program, compiled_differences
from spa_jax.training.rundir.checkpoints import Checkpoints, tree_checksum
from spa_jax.training.rundir.workdir import SUMMARY, check_data, made_config
from spa_jax.training.state import TrainState

PARTS = ("test", "validation")
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)

_NOTE = (
    "All in percent but tau itself, the sweep over classes. A tau that is read off the test set is "
    "chosen on it, and flatters; the chosen tau is chosen on the validation part, where the run "
    "has one."
)


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A finished run that can be evaluated; its test set may be that of another data set."""

    folder: Path
    record: Run
    config: Config
    data: LongTailedDataset


def evaluate(
    paths: Sequence[Path],
    out: Path,
    part: str = "test",
    other: Path | None = None,
    taus: Sequence[float] = TAUS,
    say: Callable[[str], None] = print,
    normalise: bool = False,
) -> dict[str, dict[str, Any]]:
    """Evaluates runs.

    Args:
      paths: folders of finished runs, or folders that hold some.
      out: gets `RUN/PART/` with `evaluation.json`, `predictions.npz` and two figures for each.
      part: "test" or "validation".
      other: the folder of another data set, whose test part is evaluated in place of the run's.
      taus: strengths of post-hoc logit adjustment, and of tau-normalisation.
      say: gets a line for a person now and then.
      normalise: whether class weights are divided by a power of their lengths, too, which the
        validation part chooses.

    Returns:
      By the names of the runs' folders the content of `evaluation.json`.

    Raises:
      InputError: a run that is not finished or has no checkpoint, data that are not the run's,
        other classes, or an evaluation on other examples under the same name; before anything is
        evaluated or written. Or a checkpoint cannot be read, or holds other weights than the run's.
    """
    if not np.isfinite(taus).all():
        raise InputError(f"--taus must be finite numbers, got {', '.join(map(str, taus))}.")
    what = part if other is None else file_name("data", other.resolve().name)
    results: dict[str, dict[str, Any]] = {}
    program = None
    opened = open_runs(paths, part, other)
    for run in opened if normalise else ():
        _check_normalised(run, part)
    for run in opened:
        for path in _written(run, out, what):
            _check_same_examples(path, getattr(run.data, part))
    for run in opened:
        examples = getattr(run.data, part)
        say(f"Evaluating {run.folder} on {what}: {len(examples)} examples.")
        # Runs that differ in the seed alone share what is compiled.
        if (
            program is None
            or program.data is not run.data
            or compiled_differences(program.config, run.config)
        ):
            program = Program(run.config, run.data, _layout(run.config))
        logits, result = _evaluate_run(program, run, part, taus, normalise)
        about = {
            "run": str(run.folder),
            "what": what,
            "data_folder": None if other is None else str(other.resolve()),
            "examples_checksum": examples.content_checksum,
        }
        result = about | result
        written = _written(run, out, what)
        folder = written[0].parent
        folder.mkdir(parents=True, exist_ok=True)
        ids = np.arange(len(examples)) if examples.names is None else np.asarray(examples.names)
        np.savez(folder / "predictions.npz", logits=logits, labels=examples.labels, ids=ids)
        shown = {run.folder.name: [result]}
        with matplotlib.rc_context(RC):
            save(reliability_drawing("reliability", shown), folder)
            save(confusion_drawing("confusion", shown), folder)
        for path in written:
            write_json(path, result, indent=None)
        results[run.folder.name] = result
    return results


def open_runs(paths: Sequence[Path], part: str, other: Path | None = None) -> list[OpenedRun]:
    """The runs that :func:`evaluate` evaluates; all that can be refused is refused here.

    Args:
      paths, part, other: as there.

    Raises:
      InputError: as there.
    """
    if other is not None and part != "test":
        raise InputError(f"--data has a test part only: leave --part={part} out.")
    opened: dict[str, OpenedRun] = {}

    @functools.cache
    def data_of(options: DataOptions) -> tuple[LongTailedDataset, LongTailedDataset]:
        """The data of runs, and those with the test part that is evaluated."""
        own = load_data(options)
        return own, own if other is None else _with_test(own, options, other)

    for folder in find_run_folders(paths):
        if not (folder / SUMMARY).exists():
            raise InputError(
                f"The run in {folder} is not finished, it has no {SUMMARY}: start its command "
                "again, which goes on from its last checkpoint, or leave it out."
            )
        record, config = read_run(folder), made_config(folder)
        step = record.summary.get("steps")
        if not (folder / "checkpoints" / str(step)).is_dir():
            raise InputError(
                f"The run in {folder} has no checkpoint of its last step, {step}: it was removed. "
                "Put it back from a copy, train the run again in another folder, or leave it out."
            )
        if folder.name in opened:
            raise InputError(
                f"{opened[folder.name].folder} and {folder} would be written to the same folder: "
                "evaluate them one after another, each with an --out of its own."
            )
        output_folder(folder)
        own, shown = data_of(resolve(config).data)
        check_data(folder, own)
        if getattr(shown, part) is None:
            raise InputError(
                f"The run in {folder} has no {part} part, as it was trained without "
                "--config.data.validation=True: evaluate it on the test set."
            )
        opened[folder.name] = OpenedRun(folder, record, config, shown)
    return list(opened.values())


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates the runs that the arguments name; 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.evaluate",
        description="Evaluates finished runs from their checkpoints.",
    )
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--out", required=True, help="folder for numbers, predictions and figures")
    parser.add_argument("--part", choices=PARTS, default="test", help="of the run's data")
    parser.add_argument("--data", help="folder of another data set of the same classes")
    parser.add_argument(
        "--taus", nargs="+", type=float, default=TAUS, help="strengths of logit adjustment"
    )
    parser.add_argument(
        "--tau-normalisation",
        action="store_true",
        help="also of class weights over a power tau of their lengths, chosen on validation",
    )
    values = parser.parse_args(argv)
    logging.set_verbosity(logging.FATAL)  # orbax reports every file that it touches
    keep_compiled_programs()
    out = output_folder(values.out, "--out", patterns=True)
    runs = [local_path(run, "The folder of runs") for run in values.runs]
    other = None if values.data is None else local_path(values.data, "--data")
    normalise = values.tau_normalisation
    results = evaluate(runs, out, values.part, other, values.taus, normalise=normalise)
    shown = {name: [result] for name, result in results.items()}
    for table in EVALUATION_COLUMNS:
        header, *_ = rows = evaluation_rows(table, shown)
        print("", markdown_rows([[*header], *([*row.values()] for row in rows)]), sep="\n")
    print("", _NOTE, f"Predictions and figures: {out}", sep="\n")


def _with_test(data: LongTailedDataset, options: DataOptions, folder: Path) -> LongTailedDataset:
    """A run's data with the test part of another data set in place of their own."""
    kind = SOURCES.get(options.name)
    takes_no_folder = kind is not None and kind.fits is None
    name = folder.resolve().name if takes_no_folder else options.name
    changes = {"name": name, "folder": str(folder), "train_list": "", "test_list": ""}
    source = read_source(dataclasses.replace(options, **changes))
    there, here = source.class_names, data.class_names
    numbered = tuple(map(str, range(len(here))))  # of data without names
    if len(there) != len(here) or (there != here and numbered not in (there, here)):
        raise InputError(
            f"{folder} has {len(there)} classes ({', '.join(there[:3])}, ...), and the run was "
            f"trained on {len(here)} ({', '.join(here[:3])}, ...): evaluate it on data of the same "
            "classes in the same order."
        )
    encoded = [isinstance(part.images, EncodedImages) for part in (source.test, data.test)]
    if encoded[0] != encoded[1]:
        raise InputError(
            f"Either {folder} or the data of the run are image files, and the other is not: bring "
            "the new data into the form of the run's."
        )
    return dataclasses.replace(data, test=source.test)


def _written(run: OpenedRun, out: Path, what: str) -> tuple[Path, Path]:
    """Where the numbers of a run go: to the evaluation's folder, and into its own."""
    return out / run.folder.name / what / "evaluation.json", run.folder / f"evaluation_{what}.json"


def _check_same_examples(path: Path, examples: LabelledImages) -> None:
    """Raises InputError if an evaluation on other examples would be overwritten."""
    if not path.exists():
        return
    found, now = read_json(path, "remove it, and evaluate again."), examples.content_checksum
    there = found.get("examples_checksum")
    if there not in (None, now):
        whose = found.get("data_folder") or "the run's data"
        raise InputError(
            f"{path} is an evaluation on other examples, of {whose}: their checksum is {there} "
            f"there, and {now} now. Rename the folder that --data names, whose name tells "
            "evaluations apart, or move that file away to replace it."
        )


def _check_normalised(run: OpenedRun, part: str) -> None:
    """Raises InputError unless class weights of a run can be normalised by a chosen tau."""
    method = resolve(run.config).longtail
    if part != "test":
        raise InputError(
            "--tau-normalisation chooses its tau on the validation part and is shown on the test "
            f"set: leave it out, or --part={part}."
        )
    if run.data.validation is None:
        raise InputError(
            f"The run in {run.folder} has no validation part, on which --tau-normalisation chooses "
            "its tau: train it with --config.data.validation=True, or leave the normalisation out."
        )
    if method.head != "linear" or method.unit_weights:
        raise InputError(
            "--tau-normalisation divides the weights of a linear head by a power of their lengths, "
            f"and those of {run.folder} all have one length, or no linear head: leave the "
            "normalisation out, or that run."
        )


def _normalising(program: Program, state: TrainState) -> Callable[[Any, float], Array]:
    """`(logits, tau)` -> the logits of tau-normalised class weights, without bias."""
    weights, bias = fetch(tested_classifier(state.evaluated, program.method))
    counts = jnp.asarray(program.data.class_counts, jnp.float32)
    of_zero = np.asarray(program.method.test_logits(bias[None], counts))  # of a feature of zeros
    lengths = np.linalg.norm(weights, axis=1)
    return lambda logits, tau: tau_normalised(logits - of_zero, lengths, tau)


def _logits_of(
    program: Program, state: TrainState, part: str, folder: Path
) -> Float[np.ndarray, "N C"]:
    """Raises InputError for logits that are no numbers: the largest of them predicts nothing."""
    logits = program.logits(state, part)
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise InputError(
            f"In {folder} the logits of {len(broken)} of {len(logits)} examples of the {part} part "
            f"are not finite, the first at position {broken[0]}: look at these images or features, "
            "and at whether the weights of the run are finite."
        )
    return logits


def _evaluate_run(
    program: Program, run: OpenedRun, part: str, taus: Sequence[float], normalise: bool
) -> tuple[Float[np.ndarray, "N C"], dict[str, Any]]:
    """The logits of a run, and what `evaluation.json` says of them."""
    summary, data = run.record.summary, run.data
    # So many are kept that closing them removes none.
    with Checkpoints(run.folder / "checkpoints", sys.maxsize, say=print) as checkpoints:
        like = program.init_state(run.config, resumed=True)
        state = checkpoints.restore_step(like, summary["steps"])
    recorded, found = summary.get("params_checksum"), tree_checksum(state.params)
    if recorded not in (None, found):
        raise InputError(
            f"The checkpoint of step {summary['steps']} in {run.folder / 'checkpoints'} does not "
            f"hold the weights of the run: their checksum is {found} there, and {recorded} in "
            f"{SUMMARY}. Put the run's own checkpoint back from a copy, or train it again in "
            "another folder."
        )
    logits, labels = _logits_of(program, state, part, run.folder), getattr(data, part).labels
    groups = summary["shot_groups"]["classes"]
    result = prediction_measures(logits, labels, summary["class_counts"], groups)
    held_out = None
    if part == "test" and data.validation is not None:
        held_out = (
            _logits_of(program, state, "validation", run.folder),
            data.validation.labels,
        )

    def swept(adjust: Callable[[Any, float], Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The sweep, and what the tau that is best on the validation part gives."""
        sweep = tau_sweep(adjust, logits, labels, taus)
        if held_out is None:
            return sweep, None
        there = tau_sweep(adjust, *held_out, taus)["class_accuracy"]
        tau = max(there, key=lambda tau: there[tau] or 0.0)
        of_tau = {name: values[tau] for name, values in sweep.items()}
        return sweep, {"tau": float(tau), "on": "validation", **of_tau}

    prior = log_prior(np.asarray(data.class_counts))
    sweep, chosen = swept(lambda logits, tau: adjust_logits(logits, prior, tau))
    result |= {"params_checksum": recorded, "tau_sweep": sweep, "chosen_tau": chosen}
    if normalise:
        sweep, chosen = swept(_normalising(program, state))
        result |= {"tau_normalisation_sweep": sweep, "tau_normalisation": chosen}
    program.feed.close()
    return logits, result


def _layout(config: Config) -> Layout:
    """All devices, if they could train the run; otherwise the first.

    The state is cut over them as in training, if their number allows it.
    """
    devices, mesh = jax.devices(), resolve(config).mesh
    shared = config.batch_size % (config.accumulation_steps * len(devices)) == 0
    devices = devices if shared else devices[:1]
    fits = len(devices) % mesh.classes == 0
    return Layout("jit", devices, options=dataclasses.replace(mesh, data=0) if fits else None)


if __name__ == "__main__":
    sys.exit(main())

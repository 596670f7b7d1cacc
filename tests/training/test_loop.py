"""What a run writes, how often it waits for the device, and what it refuses."""

import dataclasses
import json
import logging
import math
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from spa_jax.errors import InputError
from spa_jax.training import loop
from spa_jax.training.devices import PARALLEL_MODES
from spa_jax.training.interruption import Interruption
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.rundir.checkpoints import Checkpoints, tree_checksum
from spa_jax.training.rundir.run_record import RunRecord
from tests.parameters import first
from tests.refusals import refusal
from tests.training.small import small_config, small_program

EPOCH_FIELDS = {
    "epoch",
    "step",
    "train_loss",
    "test_accuracy",
    "mean_cosine",
    "min_cosine",
    "test_mean_cosine",
    "images_per_second",
}
SUMMARY_FIELDS = {
    "test_accuracy",
    "shot_groups",
    "per_class_accuracy",
    "per_class_cosine",
    "per_class_test_cosine",
    "split_checksum",
    "params_checksum",
    "seed",
    "versions",
    "hardware",
    "wall_time_seconds",
}


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def program():
    return small_program(small_config(spa__method="proj"), num_devices=8)


@pytest.fixture(scope="module")
def finished(program, tmp_path_factory):
    """A finished run with everything switched on, its folder and what it said."""
    workdir = tmp_path_factory.mktemp("run")
    said = []
    config = small_config(
        spa__method="proj", logging__every_steps=2, logging__tensorboard=True, logging__plots=True
    )
    summary = run(config, workdir, program, say=said.append)
    return config, workdir, summary, said


def test_a_run_writes_one_complete_line_an_epoch(finished):
    _, workdir, _, _ = finished
    lines = read_lines(workdir / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == [5, 10]
    for line in lines:
        assert line.keys() >= EPOCH_FIELDS
        assert all(math.isfinite(line[field]) for field in EPOCH_FIELDS)
        assert 0 <= line["test_accuracy"] <= 1
        assert -1 <= line["min_cosine"] <= line["mean_cosine"] <= 1


def test_step_lines_go_to_their_own_file(finished):
    _, workdir, _, _ = finished
    lines = read_lines(workdir / "steps.jsonl")
    # Logging steps 2, 4, 6, 8, 10 each report the step before, which is already there.
    assert [line["step"] for line in lines] == [1, 3, 5, 7, 9]
    assert all(0 <= line["corrected_share"] <= 1 for line in lines)


def test_the_summary_is_complete_and_agrees_with_the_lines(finished):
    config, workdir, summary, _ = finished
    assert summary == json.loads((workdir / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_FIELDS
    lines = read_lines(workdir / "metrics.jsonl")
    assert summary["test_accuracy"]["last"] == lines[-1]["test_accuracy"]
    assert summary["test_accuracy"]["best"] == max(line["test_accuracy"] for line in lines)
    assert summary["test_accuracy"]["last"] == pytest.approx(
        np.mean(summary["per_class_accuracy"]), abs=1e-12
    )  # 60 test images a class
    assert summary["mean_cosine"] == pytest.approx(np.mean(summary["per_class_cosine"]), abs=1e-6)
    assert summary["class_counts"] == [110, 78, 56, 40, 29, 20, 14, 10, 7, 5]
    assert summary["seed"] == config.seed


def test_files_and_plots_are_there(finished):
    _, workdir, _, _ = finished
    assert json.loads((workdir / "config.json").read_text())["spa"]["method"] == "proj"
    for name in ("alignment.png", "cosine_by_class_size.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    assert any((workdir / "events").iterdir())
    # Nothing is measured that was not asked for.
    assert "collapse" not in (workdir / "metrics.jsonl").read_text()
    assert not (workdir / "geometry.npz").exists()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "5"]


def test_a_finished_run_says_so_and_changes_nothing(finished):
    config, workdir, summary, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    said = []
    assert run(config, workdir, say=said.append) == summary
    assert "finished" in said[0]
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_the_workdir_of_another_config_is_refused_with_the_fields_that_differ(finished):
    config, workdir, _, _ = finished
    other = config.copy_and_resolve_references()
    other.spa.proj.gamma, other.seed = 0.3, 7
    expected = r"seed \(0 there, 7 now\), spa\.proj\.gamma \(0\.6 there"
    with pytest.raises(InputError, match=expected):
        run(other, workdir)


def noted(monkeypatch, owner, name, calls):
    """Adds the arguments of each call of a function to a list."""
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a: calls.append((name, a)) or real(*a))


def test_the_loop_fetches_at_logging_evaluation_and_end_only(program, tmp_path, monkeypatch):
    fetched, steps, seen = [], [], []
    noted(monkeypatch, loop, "fetch", fetched)
    noted(monkeypatch, program, "train_step", steps)
    add_step = RunRecord.add_step
    monkeypatch.setattr(
        RunRecord,
        "add_step",
        lambda self, step, totals: seen.append((step, len(steps))) or add_step(self, step, totals),
    )
    # With two epochs between checkpoints there is one, at the end; it fetches for itself.
    config = small_config(spa__method="proj", checkpoint__every_epochs=2, logging__every_steps=4)
    run(config, tmp_path, program, say=lambda line: None)
    logging_steps, totals, evaluations, end = 10 // 4, 2, 2, 1
    assert len(fetched) == logging_steps + totals + evaluations + end
    assert seen == [(3, 4), (7, 8)]  # each older than the newest dispatched


@pytest.mark.device
@pytest.mark.parametrize("mode", first(1, PARALLEL_MODES))
def test_nothing_compiles_after_the_first_epoch_and_buffers_are_donated(mode, program, caplog):
    config = small_config(spa__method="proj", parallel=mode)
    fresh = program if mode == "jit" else small_program(config, num_devices=8)
    state = fresh.init_state(config)
    for epoch in range(2):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            totals = fresh.zero_totals
            for step, inputs in enumerate(fresh.batches(state, config.seed, epoch)):
                old = state
                state, totals = fresh.train_step(state, totals, inputs)
                assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params))
                if (epoch, step) == (0, 0):
                    caplog.clear()
            compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
            assert compiled == []
            fresh.measure(state, totals)
            fresh.evaluate(state)
            if epoch:
                assert not any("Compiling" in r.getMessage() for r in caplog.records)


@pytest.mark.device
def test_the_loop_forbids_transfers_that_are_not_asked_for(program, tmp_path, monkeypatch):
    dispatch = program.train_step

    def with_a_host_array(state, totals, inputs):
        images, labels, orders = inputs
        labels = labels + np.zeros(labels.shape, np.int32)
        return dispatch(state, totals, (images, labels, orders))

    monkeypatch.setattr(program, "train_step", with_a_host_array)
    with pytest.raises(Exception, match=r"[Dd]isallowed host-to-device transfer"):
        run(small_config(spa__method="proj"), tmp_path, program, say=lambda line: None)


def test_an_epoch_is_seen_finite_then_saved_then_evaluated(program, tmp_path, monkeypatch):
    calls = []
    noted(monkeypatch, loop, "check_finite", calls)
    noted(monkeypatch, RunRecord, "add_epoch", calls)
    noted(monkeypatch, Checkpoints, "save", calls)
    noted(monkeypatch, RunRecord, "add_evaluation", calls)
    run(small_config(spa__method="proj"), tmp_path, program, say=lambda line: None)
    order = ["check_finite", "add_epoch", "save", "add_evaluation"]
    assert [name for name, _ in calls] == order * 2


def without_times(lines):
    return [
        {key: line[key] for key in line.keys() - {"seconds", "images_per_second"}} for line in lines
    ]


@pytest.mark.parametrize("every_epochs", [1, 0])
def test_an_evaluation_that_fails_costs_no_epoch(
    every_epochs, program, finished, tmp_path, monkeypatch
):
    """The run goes on with the evaluation of the epoch that it had saved."""
    config, whole, summary, _ = finished
    config = config.copy_and_resolve_references()
    config.checkpoint.every_epochs = every_epochs
    evaluate, steps = program.evaluate, []

    def fails_after_an_epoch(state):
        if int(state.step) == 5:
            raise InputError("images/7.jpg is cut off")
        return evaluate(state)

    monkeypatch.setattr(program, "evaluate", fails_after_an_epoch)
    with pytest.raises(InputError, match="cut off"):
        run(config, tmp_path, program, say=lambda line: None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    (line,) = read_lines(tmp_path / "metrics.jsonl")
    assert line["train_loss"] > 0
    assert "test_loss" not in line
    claim = tmp_path / "data.json"
    assert json.loads(claim.read_text())["test_unread"] is True
    monkeypatch.setattr(program, "evaluate", evaluate)
    noted(monkeypatch, program, "train_step", steps)
    said = []
    resumed = run(config, tmp_path, program, say=said.append)
    assert "test_unread" not in json.loads(claim.read_text())
    assert "after epoch 1" in said[1]
    assert len(steps) == 5  # of the second epoch
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert without_times(lines) == without_times(read_lines(whole / "metrics.jsonl"))
    assert resumed["params_checksum"] == summary["params_checksum"]


@pytest.fixture
def default_handlers():
    """Of a program that has none of its own, which test runners may have."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def signalled(monkeypatch, program, function, number, step):
    """Sends this process a signal when a function of the program is called at a step."""
    real = getattr(program, function)

    def call(state, *args):
        if int(state.step) == step:
            os.kill(os.getpid(), number)
        return real(state, *args)

    monkeypatch.setattr(program, function, call)


@pytest.mark.usefixtures("default_handlers")
def test_a_notice_after_the_last_evaluation_keeps_the_next_run_from_beginning(
    program, finished, tmp_path, monkeypatch
):
    config, _, summary, _ = finished
    leave = Checkpoints.__exit__

    def leave_late(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return leave(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="75"):
        patch.setattr(Checkpoints, "__exit__", leave_late)
        run(config, tmp_path, program, say=lambda line: None)
    again = run(config, tmp_path, program, say=lambda line: None)
    assert again["params_checksum"] == summary["params_checksum"]


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize(
    "interrupted",
    first(
        2,
        [
            ("train_step", signal.SIGTERM, SystemExit, 6, 7),
            ("evaluate", signal.SIGTERM, SystemExit, 5, 5),
            ("train_step", signal.SIGINT, KeyboardInterrupt, 4, 5),
            ("train_step", signal.SIGTERM, SystemExit, 9, 10),
        ],
    ),
)
def test_interrupted_at_any_step_a_run_goes_on_from_there_bit_for_bit(
    interrupted, program, finished, tmp_path, monkeypatch
):
    function, number, error, at, saved = interrupted
    config, whole, summary, _ = finished
    config = config.copy_and_resolve_references()
    config.checkpoint.every_epochs = 0
    said = []
    with monkeypatch.context() as patch, pytest.raises(error) as caught:
        signalled(patch, program, function, number, at)
        run(config, tmp_path, program, say=said.append)
    assert error is KeyboardInterrupt or caught.value.code == 75
    assert f"Interrupted after step {saved}" in said[-1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [str(saved)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    steps = []
    noted(monkeypatch, program, "train_step", steps)
    resumed = run(config, tmp_path, program, say=lambda line: None)
    assert len(steps) == 10 - saved
    assert resumed["params_checksum"] == summary["params_checksum"]
    for name in ("metrics.jsonl", "steps.jsonl"):
        lines = [without_times(read_lines(folder / name)) for folder in (tmp_path, whole)]
        assert lines[0] == lines[1]


@pytest.mark.usefixtures("default_handlers")
def test_handlers_of_a_program_or_of_another_thread_are_left_alone():
    def inside():
        with Interruption():
            return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    defaults = [signal.SIG_DFL, signal.default_int_handler]
    assert all(one != other for one, other in zip(inside(), defaults, strict=True))
    with ThreadPoolExecutor() as threads:
        assert threads.submit(inside).result() == defaults
    own = [lambda *of_a_signal: None, signal.SIG_IGN]
    signal.signal(signal.SIGTERM, own[0])
    signal.signal(signal.SIGINT, own[1])
    assert inside() == own


@pytest.mark.usefixtures("default_handlers")
def test_a_second_ctrl_c_is_the_operating_systems():
    with Interruption() as interruption:
        assert not interruption.reached(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.reached(2)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert isinstance(interruption.error(), KeyboardInterrupt)


def test_epochs_between_evaluations_have_no_line_once_the_next_is_evaluated(
    program, finished, tmp_path, monkeypatch
):
    """A run that is stopped in between, and goes on, ends with the lines of one that was not."""
    _, whole, summary, _ = finished
    evaluations = []
    noted(monkeypatch, program, "evaluate", evaluations)
    config = small_config(spa__method="proj", evaluate_every=2)
    with pytest.raises(RunStopped, match="after epoch 1 of 2"):
        run(config, tmp_path, program, say=lambda line: None, keep_going=lambda: False)
    (trained,) = read_lines(tmp_path / "metrics.jsonl")
    assert trained["epoch"] == 1
    assert "test_accuracy" not in trained
    resumed = run(config, tmp_path, program, say=lambda line: None)
    (line,) = read_lines(tmp_path / "metrics.jsonl")
    assert without_times([line]) == without_times(read_lines(whole / "metrics.jsonl")[1:])
    assert line["seconds"] > trained["seconds"]
    assert len(evaluations) == 1
    assert resumed["test_accuracy"]["last"] == summary["test_accuracy"]["last"]
    assert resumed["test_accuracy"]["best_epoch"] == 2
    assert resumed["wall_time_seconds"] == line["seconds"]


def test_an_epoch_whose_last_step_is_not_finite_is_not_saved(program, tmp_path, monkeypatch):
    dispatch = program.train_step

    def poisoned(state, totals, inputs):
        step = int(state.step) + 1
        state, totals = dispatch(state, totals, inputs)
        bad = totals.replace(bad_step=program.layout.replicate(np.int32(10)))
        return state, bad if step == 10 else totals

    monkeypatch.setattr(program, "train_step", poisoned)
    with pytest.raises(FloatingPointError, match="step 10"):
        run(small_config(spa__method="proj"), tmp_path, program, say=lambda line: None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert [line["epoch"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1]


@pytest.mark.parametrize(
    ("accuracies", "every_epochs", "kept"),
    [((0.6, 0.4), 1, {"5", "10"}), ((0.6, 0.4), 0, {"5", "10"}), ((0.4, 0.6), 1, {"10"})],
)
def test_the_best_on_the_validation_part_is_kept_beside_the_last(
    accuracies, every_epochs, kept, program, tmp_path, monkeypatch
):
    """Whatever the test set says, over a stop, and where it was not to be saved."""
    evaluate = program.evaluate

    def with_validation(state):
        report = jax.device_get(evaluate(state))
        right = np.full(10, 100 * accuracies[int(state.step) // 5 - 1])
        on_test = (100 - right) * report["count"] / 100
        validation = {"validation_correct": right, "validation_count": np.full(10, 100)}
        return report | validation | {"correct": on_test}

    config = small_config(
        spa__method="proj",
        checkpoint__keep=1,
        checkpoint__keep_best=True,
        checkpoint__every_epochs=every_epochs,
    )
    assert "there is none: set config.data.validation" in refusal(run, config, tmp_path, program)
    held_out = dataclasses.replace(program.data, validation=program.data.test)
    monkeypatch.setattr(program.feed, "data", held_out)
    monkeypatch.setattr(program, "evaluate", with_validation)
    if every_epochs:
        with pytest.raises(RunStopped):
            run(config, tmp_path, program, say=lambda line: None, keep_going=lambda: False)
    summary = run(config, tmp_path, program, say=lambda line: None)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == kept
    assert summary["validation_accuracy"]["best"] == pytest.approx(0.6)
    assert summary["test_accuracy"]["best_epoch"] != summary["validation_accuracy"]["best_epoch"]


def test_a_program_of_another_config_is_refused(program, tmp_path):
    config = small_config(spa__method="slerp", spa__slerp__alpha_max=1.0, spa__decay=0.5)
    with pytest.raises(InputError, match=r"other values of spa\.decay, spa\.method"):
        run(config, tmp_path, program)
    program.check_fits(small_config(spa__method="proj", seed=9, spa__proj__gamma=0.1))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(program, tmp_path):
    """The rate is traced, so that no program is needed but the one of all."""
    config = small_config(spa__method="proj", optimizer__learning_rate=1e20, logging__every_steps=1)
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+") as error:
        run(config, tmp_path, program, say=lambda line: None)
    bad_step = int(str(error.value).split("step ")[1].split(";")[0])
    lines = read_lines(tmp_path / "steps.jsonl")
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["step"] == bad_step - 1
    folder = tmp_path / "checkpoints"
    assert all(int(path.name) < bad_step for path in folder.iterdir() if path.name.isdigit())
    assert not (tmp_path / "summary.json").exists()


def test_without_tensorboard_the_run_goes_on_and_says_so_once(program, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    said = []
    config = small_config(spa__method="proj", logging__tensorboard=True)
    run(config, tmp_path, program, say=said.append)
    assert len([line for line in said if "No TensorBoard event files" in line]) == 1
    assert (tmp_path / "summary.json").exists()
    assert not (tmp_path / "events").exists()


def test_seeds_share_a_program_and_give_what_their_own_program_gives(program, finished, tmp_path):
    config = small_config(spa__method="proj", seed=3)
    shared = run(config, tmp_path / "shared", program, say=lambda line: None)
    own = run(config, tmp_path / "own", say=lambda line: None)
    assert shared["params_checksum"] == own["params_checksum"]
    assert finished[2]["params_checksum"] != own["params_checksum"]


def test_the_checksum_of_the_params_is_that_of_the_checkpointed_params(finished, program):
    config, workdir, summary, _ = finished
    with Checkpoints(workdir / "checkpoints", keep=2, say=print) as checkpoints:
        state, step = checkpoints.restore_newest(program.init_state(config))
    assert step == 10
    assert tree_checksum(jax.device_get(state.params)) == summary["params_checksum"]

"""Many runs: together or in turn, each in a folder of its own, whatever becomes of the others."""

import json

import jax
import numpy as np
import pytest

from spa_jax.sweeps import runner
from spa_jax.sweeps.chunks import Chunk, open_chunks
from spa_jax.sweeps.grid import make_grid
from spa_jax.sweeps.runner import Runner
from spa_jax.training import loop
from spa_jax.training.config import resolve
from spa_jax.training.devices import Layout
from spa_jax.training.interruption import Interruption
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import Checkpoints, tree_checksum
from spa_jax.training.rundir.first_run import FirstRun
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.run_record import RunRecord
from spa_jax.training.rundir.workdir import write_config
from tests.devices import only_devices
from tests.refusals import refusal
from tests.training.small import small_config, small_program

GAMMAS = {"spa.proj.gamma": (0.1, 0.5, 0.9)}
TIMES = {"seconds", "images_per_second", "wall_time_seconds"}


def silent(line):
    del line


def grid(out, axes, seeds=(0,), **changes):
    changes = {"spa__method": "proj", "model__small__widths": (4,)} | changes
    return make_grid(small_config(**changes), axes, seeds, out)


def read_lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three members trained together in two chunks of two, with all records; and what was said."""
    out = tmp_path_factory.mktemp("together")
    logs = {"logging__plots": True, "logging__every_steps": 2, "logging__tensorboard": True}
    members = grid(out, GAMMAS, (5,), **logs)
    said = []
    with only_devices(1):
        Runner(out, True, at_once=2, say=said.append, command="a command").train(members)
    return members, out, said


def test_each_member_leaves_what_a_run_of_its_own_leaves(finished, tmp_path):
    members, _, said = finished
    assert "3 runs together, in 2 chunk(s) of up to 2." in said
    member = members[1]  # the second of its chunk
    alone = run(member.config, tmp_path, small_program(member.config), say=silent)
    summary, folder = member.summary(), member.folder
    assert summary.keys() == alone.keys()
    assert (summary["parallel"], summary["command"]) == ("vmap", "a command")
    assert json.loads((folder / "config.json").read_text())["spa"]["proj"]["gamma"] == 0.5
    for name in ("metrics.jsonl", "steps.jsonl"):
        for own, other in zip(read_lines(tmp_path, name), read_lines(folder, name), strict=True):
            assert own.keys() == other.keys()
            for field in own.keys() - TIMES:
                assert other[field] == pytest.approx(own[field], abs=0.02), field
    assert summary["test_accuracy"]["last"] == read_lines(folder)[-1]["test_accuracy"]
    here, there = ({path.name for path in f.iterdir()} for f in (folder, tmp_path))
    assert there == here
    for name in ("alignment.png", "cosine_by_class_size.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert any((folder / "events").iterdir())


def test_the_last_checkpoint_of_a_member_is_one_that_a_single_run_reads(finished):
    member = finished[0][1]
    program = small_program(member.config)
    with Checkpoints(member.folder / "checkpoints", keep=2, say=print) as checkpoints:
        state, step = checkpoints.restore_newest(program.init_state(member.config))
    assert step == int(state.step) == 10
    assert tree_checksum(jax.device_get(state.params)) == member.summary()["params_checksum"]
    assert float(state.hyperparams["gamma"]) == np.float32(0.5)
    report = jax.device_get(program.evaluate(state))
    assert report["correct"].sum() / 600 == pytest.approx(member.summary()["test_accuracy"]["last"])


def test_nothing_of_the_chunks_is_left_and_finished_members_are_not_trained_again(finished):
    members, out, _ = finished
    assert not (out / "together").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    Runner(out, together=True, say=pytest.fail).train(members)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


class Killed(Exception):
    """What takes a process down at a moment of the test's choice."""


def killed_at_line(monkeypatch, number):
    """Lets the given number of epoch lines be written, and stops at the next."""
    append, written = JsonLines.append, []

    def append_or_die(lines, record):
        if len(written) == number:
            raise Killed
        written.append(record)
        append(lines, record)

    monkeypatch.setattr(JsonLines, "append", append_or_die)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three members, trained on two devices without a stop."""
    out = tmp_path_factory.mktemp("whole")
    members = grid(out, GAMMAS)
    with only_devices(2):
        Runner(out, together=True, at_once=3, say=silent).train(members)
    return members


@pytest.mark.thorough
@pytest.mark.parametrize("every", [1, 0])
def test_a_killed_chunk_goes_on_and_ends_bit_for_bit_as_without(
    every, whole, tmp_path, on_devices, monkeypatch
):
    on_devices(2)
    broken = grid(tmp_path, GAMMAS, checkpoint__every_epochs=every)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at_line(patch, 4)  # in the middle of the second epoch's lines
        Runner(tmp_path, together=True, at_once=3, say=silent).train(broken)
    assert [len(read_lines(member.folder)) for member in broken] == [2, 1, 1]
    (chunk,) = open_chunks(broken, tmp_path)
    assert chunk.members == broken
    assert chunk.size == 4
    assert len(list(chunk.folder.glob("checkpoints/5"))) == every
    said = []
    Runner(tmp_path, together=True, at_once=1, say=said.append).train(broken)
    assert (f"Resuming {chunk.folder} after epoch 1." in said) == bool(every)
    for one, other in zip(whole, broken, strict=True):
        assert [line["epoch"] for line in read_lines(other.folder)] == [1, 2]
        assert list(map(without_times, read_lines(one.folder))) == list(
            map(without_times, read_lines(other.folder))
        )
        assert without_times(one.summary()) == without_times(other.summary())
    assert not (tmp_path / "together").exists()


@pytest.mark.thorough
def test_a_chunk_that_is_interrupted_inside_an_epoch_goes_on_from_there(
    whole, tmp_path, on_devices, monkeypatch
):
    on_devices(2)
    broken = grid(tmp_path, GAMMAS)

    def reached(interruption, step):
        interruption.due = step == 7
        return interruption.due

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="75"):
        patch.setattr(Interruption, "reached", reached)
        Runner(tmp_path, together=True, at_once=3, say=silent).train(broken)
    said = []
    Runner(tmp_path, together=True, say=said.append).train(broken)
    (resuming,) = [line for line in said if line.startswith("Resuming")]
    assert resuming.endswith("after epoch 1 and 2 step(s) of the next.")
    for one, other in zip(whole, broken, strict=True):
        assert list(map(without_times, read_lines(one.folder))) == list(
            map(without_times, read_lines(other.folder))
        )
        assert without_times(one.summary()) == without_times(other.summary())


@pytest.fixture
def stopped(tmp_path, on_devices):
    """Three members whose chunk of four was stopped after the first of two epochs."""
    on_devices(2)
    members = grid(tmp_path, GAMMAS)
    with pytest.raises(RunStopped):
        Runner(tmp_path, together=True, say=silent, keep_going=lambda: False).train(members)
    (chunk,) = open_chunks(members, tmp_path)
    return members, chunk


@pytest.mark.thorough
def test_a_chunks_checkpoint_holds_all_its_places(stopped):
    members, chunk = stopped
    program = Program(members[0].config, layout=Layout("vmap", members=chunk.size))
    fresh = program.init_state(*(member.config for member in members))
    with Checkpoints(chunk.folder / "checkpoints", keep=2, say=print) as checkpoints:
        state, step = checkpoints.restore_newest(fresh)
    assert step == int(state.step) == 5
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state.params)} == {chunk.size}
    np.testing.assert_allclose(state.hyperparams["gamma"], [0.1, 0.5, 0.9, 0.9])


@pytest.mark.thorough
def test_lines_that_a_checkpoint_continues_from_must_be_there(stopped, tmp_path):
    members, chunk = stopped
    (members[1].folder / "metrics.jsonl").unlink()
    message = refusal(Runner(tmp_path, together=True, say=silent).train, members)
    assert "metrics.jsonl does not hold the epochs up to step 5" in message
    assert str(chunk.folder) in message


@pytest.mark.thorough
def test_a_chunk_that_was_killed_while_it_wrote_results_only_writes_them(stopped, monkeypatch):
    members, chunk = stopped
    runner = Runner(chunk.folder.parents[1], say=silent)
    finish, written = RunRecord.finish, []

    def die_at_the_second(record, *args):
        if written:
            raise Killed
        written.append(record)
        return finish(record, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunRecord, "finish", die_at_the_second)
        runner.train(members)
    assert [member.is_done for member in members] == [True, False, False]
    before = [read_lines(member.folder) for member in members]
    with monkeypatch.context() as patch:
        patch.setattr(loop.EpochLoop, "_train_epoch", pytest.fail)
        runner.train(members)
    assert [read_lines(member.folder) for member in members] == before
    assert all(member.summary()["epochs"] == 2 for member in members)


@pytest.mark.thorough
def test_a_member_that_diverges_is_recorded_and_does_not_touch_the_others(tmp_path, on_devices):
    on_devices(1)  # where the members share the convolutions
    rates = {"healthy": (0.1, 0.05), "sick": (0.1, 1e6), "all": (1e7, 1e6)}
    said = []
    members = {
        name: grid(
            tmp_path / name,
            {"optimizer.learning_rate": values},
            logging__every_steps=2,
        )
        for name, values in rates.items()
    }
    for name, of_name in members.items():
        Runner(tmp_path / name, together=True, say=said.append).train(of_name)
    fine, sick = members["sick"]
    assert sick.summary() is None
    assert "not finite at step" in sick.failure()
    assert not (sick.folder / "checkpoints").exists()
    assert f"{sick.name}: failed; see {sick.failure_path}" in said
    assert fine.failure() is None
    assert without_times(fine.summary()) == without_times(members["healthy"][0].summary())
    assert all(member.failure() for member in members["all"])
    assert not list(tmp_path.glob("*/together"))
    # And so all is done: nothing is left to train.
    Runner(tmp_path / "sick", together=True, say=pytest.fail).train(members["sick"])


def test_what_is_trained_next_is_what_was_begun_or_what_is_faster(tmp_path, monkeypatch):
    axes = {"batch_size": (32, 64), "spa.proj.gamma": (0.1, 0.9)}
    members = grid(tmp_path, axes)

    def chosen(together=None):
        return Runner(tmp_path, together).next_group(members)

    assert chosen() == members[:1]  # this is a CPU
    assert chosen(together=True) == members[:2]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen() == members[:2]
    assert chosen(together=False) == members[:1]
    Chunk.create(tmp_path, members[2:], 2)
    assert chosen() == chosen(together=False) == members[2:]


@pytest.mark.thorough
def test_what_was_begun_by_itself_is_ended_so_and_the_rest_together(tmp_path, on_devices):
    on_devices(1)
    members = grid(tmp_path, GAMMAS)
    begun = members[1]
    with pytest.raises(RunStopped):
        run(begun.config, begun.folder, say=silent, keep_going=lambda: False)
    Runner(tmp_path, together=True, say=silent).train(members)
    modes = [member.summary()["parallel"] for member in members]
    assert modes == ["vmap", "jit", "vmap"]
    assert [line["epoch"] for line in read_lines(begun.folder)] == [1, 2]


def test_what_cannot_be_one_program_is_trained_in_turn_unless_one_was_asked_for(
    tmp_path, on_devices, monkeypatch
):
    on_devices(1)
    members = grid(
        tmp_path,
        {"spa.proj.gamma": (0.1, 0.9)},
        data__feed="stream",
        loader__workers=0,
        epochs=1,
    )
    message = refusal(Runner(tmp_path, together=True, say=silent).train, members)
    assert "streamed" in message
    assert "config.data.feed=device" in message
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    said = []
    Runner(tmp_path, say=said.append).train(members)
    assert any("streamed" in line for line in said)
    assert [member.summary()["parallel"] for member in members] == ["jit", "jit"]
    assert not (tmp_path / "together").exists()


@pytest.mark.thorough
def test_every_group_of_a_grid_over_variants_and_an_untraced_axis_is_trained(tmp_path, on_devices):
    on_devices(1)
    axes = {"spa.method": ("none", "proj"), "batch_size": (32, 64)}
    members = grid(tmp_path, axes, (0, 1))
    Runner(tmp_path, together=True, say=silent).train(members)
    for member in members:
        summary = member.summary()
        assert summary["spa_method"] == member.settings["spa.method"]
        assert summary["steps"] == 2 * (369 // member.settings["batch_size"])
        assert (summary["seed"], summary["parallel"]) == (member.seed, "vmap")
    assert len({member.summary()["params_checksum"] for member in members}) == len(members) == 8


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", '{"test_accuracy":'),
        ("summary.json", "{}"),
        ("failed.json", "[]"),
        ("../together/0/members.json", '{"size": 2}'),
    ],
)
def test_a_damaged_file_is_refused_before_data_are_loaded(file, content, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "check_runs", pytest.fail)
    members = grid(tmp_path, GAMMAS)
    damaged = members[2].folder / file
    for folder in (members[2].folder, damaged.parent):
        folder.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content)
    message = refusal(Runner(tmp_path, say=silent).train, members)
    assert f"{damaged.name} cannot be read" in message


def test_a_run_whose_settings_make_too_long_a_name_is_refused(tmp_path):
    members = grid(tmp_path, {"data.folder": ("a" * 250, "b")})
    assert "longer than 255 bytes" in refusal(Runner(tmp_path, say=silent).train, members)


def claim(member, checksum, **more):
    member.folder.mkdir(parents=True, exist_ok=True)
    (member.folder / "data.json").write_text(json.dumps({"content_checksum": checksum, **more}))


def test_runs_on_other_data_do_not_stand_side_by_side(tmp_path, monkeypatch):
    """Whether both were begun or finished, or one of them would be on what is there now."""
    monkeypatch.setattr(runner, "check_runs", lambda configs, together, continued: {})
    members = grid(tmp_path, GAMMAS)
    claim(members[0], "a" * 64)
    claim(members[2], "a" * 64)
    Runner(tmp_path).check(members)
    claim(members[2], "b" * 64)
    message = refusal(Runner(tmp_path).check, members)
    assert f"{members[2].folder} and {members[0].folder} are not of the same data" in message
    assert "a" * 64 in message
    assert "b" * 64 in message
    claim(members[2], "a" * 64)
    now = {resolve(members[0].config).data: "c" * 64}
    monkeypatch.setattr(runner, "check_runs", lambda configs, together, continued: now)
    message = refusal(Runner(tmp_path).check, members)
    assert f"{members[0].folder} and what is there now are not of the same data" in message


def test_points_whose_settings_name_other_data_may_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "check_runs", lambda configs, together, continued: {})
    members = grid(tmp_path, {"data.imbalance_factor": (10.0, 20.0)}, (0, 1))
    for member in members:
        claim(member, str(member.settings))
    Runner(tmp_path).check(members)
    claim(members[3], "other")  # the second seed of the second point
    assert "not of the same data" in refusal(Runner(tmp_path).check, members)


def test_data_that_change_while_a_grid_is_trained_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "check_runs", lambda configs, together, continued: {})
    members = grid(tmp_path, GAMMAS)

    def train(self, group):
        claim(group[0], group[0].name)
        group[0].fail("made")

    monkeypatch.setattr(Runner, "train_group", train)
    assert "not of the same data" in refusal(Runner(tmp_path).train, members)


def start(step, run="runs/first"):
    """The record of a first run that stands at a step."""
    return {"run": run, "parts": "all", "step": step, "params_checksum": f"after {step}"}


class ProgramFromStep10(Program):
    """Knows its first run, and nothing else."""

    first_run = FirstRun({}, start(10))

    def __init__(self, config):
        del config


def test_runs_from_two_states_of_a_first_run_do_not_stand_side_by_side(tmp_path, monkeypatch):
    """Whether both were begun or finished, or the next would begin from what is there now."""
    monkeypatch.setattr(runner, "check_runs", lambda configs, together, continued: {})
    members = grid(tmp_path, GAMMAS, init__run="runs/first")
    claim(members[0], "a" * 64, init=start(5))
    claim(members[1], "a" * 64, init=start(10, "runs/another"))
    training = Runner(tmp_path, say=silent)
    training.check(members)
    monkeypatch.setattr(runner, "Program", ProgramFromStep10)
    message = refusal(training.train_group, members[2:])
    assert f"{members[2].folder}, begun now, and {members[0].folder} do not start" in message
    for part in ("step 5 (checksum after 5)", "step 10 (checksum after 10)", "another --out"):
        assert part in message
    assert not members[2].folder.exists()
    summary = {"test_accuracy": {"last": 0.5}, "init": start(10)}
    members[2].folder.mkdir()
    (members[2].folder / "summary.json").write_text(json.dumps(summary))
    message = refusal(training.check, members)
    assert f"{members[2].folder} and {members[0].folder} do not start from one state" in message


def test_what_has_no_whole_checkpoint_is_checked_as_one_that_starts(tmp_path, monkeypatch):
    numbers = []

    def count(configs, together, continued):
        numbers.append((len([*configs]), len([*continued])))
        return {}

    monkeypatch.setattr(runner, "check_runs", count)
    members = grid(tmp_path, GAMMAS)
    claim(members[0], "a" * 64)
    write_config(members[0].folder, members[0].config)
    (members[0].folder / "checkpoints/5.orbax-checkpoint-tmp-1").mkdir(parents=True)
    chunk = Chunk.create(tmp_path, members[1:], 2)
    Runner(tmp_path).check(members)
    (chunk.folder / "checkpoints/5").mkdir(parents=True)
    Runner(tmp_path).check(members)
    (members[0].folder / "checkpoints/5").mkdir()
    Runner(tmp_path).check(members)
    assert numbers == [(3, 0), (1, 2), (0, 3)]

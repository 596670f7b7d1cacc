"""Lines of JSON that survive a crash, TensorBoard events that TensorBoard reads, a quiet bar."""

import importlib.util
import json
import sys
import time

import pytest

from spa_jax.training.rundir.events import EventWriter, NoEvents
from spa_jax.training.rundir.json_lines import JsonLines, ProgressBar

LINES = [{"step": 10 * i, "epoch": i, "loss": 1 / i, "mean_cosine": None} for i in range(1, 5)]
HALF_LINE = '{"step": 50, "epoch": 5, "lo'


@pytest.fixture
def lines(tmp_path):
    """A file of four lines."""
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for line in LINES:
        lines.append(line)
    return lines


def half_write(lines, text):
    with lines.path.open("a") as file:
        file.write(text)


def test_what_was_appended_is_read_back_one_line_each(lines):
    assert lines.read() == LINES
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == LINES


def test_another_object_goes_on_where_the_first_stopped(lines):
    JsonLines(lines.path).append({"step": 50})
    assert lines.read() == [*LINES, {"step": 50}]


def test_a_file_that_does_not_exist_has_no_lines_and_cutting_it_back_makes_none(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    assert lines.read() == []
    assert lines.cut_back(3) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", range(1, len(HALF_LINE)))
def test_a_half_written_last_line_is_left_out(lines, length):
    half_write(lines, HALF_LINE[:length])
    assert lines.read() == LINES


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (9, 0), (10, 1), (25, 2), (40, 4), (99, 4)])
@pytest.mark.parametrize("ending", ["", HALF_LINE], ids=["whole", "half a line"])
def test_cutting_back_drops_the_lines_after_a_step_and_half_lines(lines, step, kept, ending):
    half_write(lines, ending)
    assert lines.cut_back(step) == LINES[:kept]
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == LINES[:kept]


@pytest.mark.parametrize("ending", ["", HALF_LINE, json.dumps({"step": 50})])
def test_after_cutting_back_new_lines_stand_on_their_own(lines, ending):
    half_write(lines, ending)
    kept = lines.cut_back(60)
    lines.append({"step": 70})
    assert lines.read() == [*kept, {"step": 70}]
    assert kept[:4] == LINES


def test_cutting_back_twice_gives_the_same_file(lines):
    lines.cut_back(20)
    before = lines.path.read_bytes()
    lines.cut_back(20)
    assert lines.path.read_bytes() == before


def test_cutting_back_replaces_the_file_at_once(lines):
    """A reader that has the file open sees the old lines to their end, a new one the new lines."""
    before, inode = lines.path.read_text(), lines.path.stat().st_ino
    with lines.path.open() as reader:
        lines.cut_back(20)
        assert reader.read() == before
    assert lines.path.stat().st_ino != inode
    assert [path.name for path in lines.path.parent.iterdir()] == [lines.path.name]


def accumulated(folder):
    """What TensorBoard shows of a folder: tag -> list of (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def write_events(folder, start_step, scalars):
    writer = EventWriter(folder, start_step)
    for step, values in scalars.items():
        writer.write(step, values)
    writer.close()


def test_tensorboard_reads_the_events(tmp_path):
    write_events(tmp_path, 0, {1: {"train/loss": 2.5, "train/cosine": -0.5}, 2: {"train/loss": 2}})
    assert accumulated(tmp_path) == {
        "train/loss": [(1, 2.5), (2, 2.0)],
        "train/cosine": [(1, -0.5)],
    }


def test_every_event_has_a_wall_time_and_the_first_starts_a_session(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    began = time.time()
    write_events(tmp_path, 30, {31: {"loss": 1.0}})
    (path,) = tmp_path.iterdir()
    version, start, scalar = EventFileLoader(str(path)).Load()
    assert version.file_version.startswith("brain.Event")
    assert start.HasField("session_log")
    assert (start.step, scalar.step) == (31, 31)
    assert all(began - 1 <= event.wall_time <= time.time() for event in (start, scalar))


def test_a_restart_makes_tensorboard_forget_the_later_steps(tmp_path, monkeypatch):
    write_events(tmp_path, 0, {step: {"loss": float(step)} for step in (10, 20, 30, 40)})
    # TensorBoard reads the files of a folder in the order of the seconds in their names.
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    write_events(tmp_path, 20, {30: {"loss": -3.0}})
    assert accumulated(tmp_path) == {"loss": [(10, 10.0), (20, 20.0), (30, -3.0)]}


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="where TensorFlow is installed, the tensorboard package itself imports it",
)
def test_events_are_written_without_tensorflow(tmp_path):
    write_events(tmp_path, 0, {1: {"loss": 1.0}})
    assert accumulated(tmp_path) == {"loss": [(1, 1.0)]}
    assert "tensorflow" not in sys.modules


def test_where_no_events_are_written_the_calls_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events = NoEvents()
    events.write(1, {"loss": 1.0})
    events.close()
    assert not list(tmp_path.iterdir())


def shown_by_a_bar(capfd, enabled):
    with ProgressBar(start=0, total_steps=8, enabled=enabled) as bar:
        bar.show(4, {"loss": 0.512, "acc": None, "img/s": 1234.5})
        bar.show(8, {"loss": 0.25, "acc": 0.75, "img/s": 2000.0})
    captured = capfd.readouterr()
    return captured.out + captured.err


def test_a_disabled_progress_bar_writes_nothing(capfd):
    assert shown_by_a_bar(capfd, enabled=False) == ""


def test_an_enabled_progress_bar_shows_the_newest_numbers(capfd):
    shown = " ".join(shown_by_a_bar(capfd, enabled=True).split())
    assert "8/8" in shown
    assert "loss 0.250 acc 0.750 img/s 2,000" in shown


def test_the_progress_bar_keeps_out_of_standard_output(capfd):
    """It is enabled where standard error is a terminal; standard output may be a file."""
    with ProgressBar(start=0, total_steps=8, enabled=True) as bar:
        bar.show(8, {"loss": 0.25})
    assert capfd.readouterr().out == ""

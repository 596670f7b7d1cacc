"""TensorBoard events that TensorBoard reads, and that need no TensorFlow."""

import importlib.util
import sys
import time

import pytest

from spa_jax.training.rundir.events import EventWriter


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
        writer.write(step, "train", values)
    writer.close()


def test_tensorboard_reads_the_events(tmp_path):
    write_events(tmp_path, 0, {1: {"loss": 2.5, "cosine": -0.5}, 2: {"loss": 2, "cosine": None}})
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
    assert accumulated(tmp_path) == {"train/loss": [(10, 10.0), (20, 20.0), (30, -3.0)]}


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="where TensorFlow is installed, the tensorboard package itself imports it",
)
def test_events_are_written_without_tensorflow(tmp_path):
    write_events(tmp_path, 0, {1: {"loss": 1.0}})
    assert accumulated(tmp_path) == {"train/loss": [(1, 1.0)]}
    assert "tensorflow" not in sys.modules

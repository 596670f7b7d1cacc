"""A folder that cannot be a run's is refused before anything is trained, whatever stands there."""

from spa_jax.training.loop import run
from spa_jax.training.rundir.workdir import SUMMARY
from tests.refusals import refusal
from tests.training.small import small_config


def test_a_folder_below_a_file_is_refused_with_the_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refusal(run, small_config(), tmp_path / "file" / "runs" / "one")
    assert message.startswith(f"{tmp_path / 'file'} is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_summary_is_refused_by_name(tmp_path):
    (tmp_path / SUMMARY).write_text('{"test_accuracy":')
    assert str(tmp_path / SUMMARY) in refusal(run, small_config(), tmp_path)


def test_a_finished_run_is_read_where_nobody_may_write(tmp_path, monkeypatch):
    (tmp_path / SUMMARY).write_text('{"test_accuracy": {"last": 0.5}}')
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    said = []
    run(small_config(), tmp_path, say=said.append)
    assert "test accuracy 0.5000. Nothing to do." in said[0]
    message = refusal(run, small_config(), tmp_path / "new")
    assert f"{tmp_path} cannot be written to (Read-only file system)" in message


def refused(**options):
    raise OSError(30, "Read-only file system")

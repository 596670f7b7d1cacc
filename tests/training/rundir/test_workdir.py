"""A folder that cannot be a run's is refused before anything is trained, whatever stands there."""

import json
import shutil

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.training.config import resolve
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.rundir.run_record import RunRecord
from spa_jax.training.rundir.workdir import (
    SUMMARY,
    check_data,
    check_workdir,
    claim_data,
    claimed_data,
    note_unread_test,
    write_config,
)
from tests.refusals import refusal
from tests.training.small import small_config

pytestmark = pytest.mark.usefixtures("one_device")


def test_a_folder_below_a_file_is_refused_with_the_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refusal(run, small_config(), tmp_path / "file" / "runs" / "one")
    assert message.startswith(f"{tmp_path / 'file'} is a file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [
        '{"test_accuracy":',
        "{}",
        '{"test_accuracy": 3}',
        '{"test_accuracy": {"last": null}}',
        '{"test_accuracy": {"last": 0.5}, "balanced_accuracy": 3}',
        '{"test_accuracy": {"last": 0.5}, "class_names": 0.5}',
    ],
)
def test_a_damaged_summary_is_refused_by_name(content, tmp_path):
    (tmp_path / SUMMARY).write_text(content)
    message = refusal(run, small_config(), tmp_path)
    assert f"{tmp_path / SUMMARY} cannot be read" in message


def test_a_finished_run_is_read_where_nobody_may_write(tmp_path, monkeypatch):
    (tmp_path / SUMMARY).write_text('{"test_accuracy": {"last": 0.5}}')
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    said = []
    run(small_config(), tmp_path, say=said.append)
    assert "test accuracy 0.5000. Nothing to do." in said[0]
    message = refusal(run, small_config(), tmp_path / "new")
    assert f"{tmp_path} cannot be written to (Read-only file system)" in message


def test_a_folder_that_became_another_runs_since_it_was_looked_at_is_refused(tmp_path):
    record = RunRecord(small_config(), tmp_path)
    write_config(tmp_path, small_config(seed=7))
    message = refusal(record.claim, load_data(resolve(small_config()).data))
    assert f"{tmp_path} was made by another config" in message
    assert "seed (7 there, 0 now)" in message


def refused(**options):
    raise OSError(30, "Read-only file system")


@pytest.fixture
def folder(tmp_path):
    """Random images of two classes, as npz files."""
    rng = np.random.default_rng(0)
    for part, size in (("train", 40), ("test", 10)):
        images = rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
        write_npz(tmp_path / "data", part, images, np.arange(size) % 2)
    return tmp_path / "data"


def write_npz(folder, part, images, labels):
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{part}.npz", image=images, label=labels)


def other_pixel(images, labels):
    images[3, 0, 0, 0] ^= 1
    return images, labels


def exchanged_pixels(images, labels):
    return images[[2, 1, 0, *range(3, len(images))]], labels  # both of class 0


def other_label(images, labels):
    labels[3] ^= 1
    return images, labels


def one_less(images, labels):
    return images[:-1], labels[:-1]


def load(folder):
    return load_data(DataOptions(name="mine", folder=str(folder), profile="natural"))


def change_part(folder, part, change):
    with np.load(folder / f"{part}.npz") as arrays:
        write_npz(folder, part, *change(arrays["image"].copy(), arrays["label"].copy()))


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("change", [other_pixel, exchanged_pixels, other_label, one_less])
def test_other_data_under_the_same_path_are_refused_with_both_checksums(
    part, change, folder, tmp_path
):
    before = load(folder)
    claim_data(tmp_path / "run", before)
    change_part(folder, part, change)
    after = load(folder)
    message = refusal(check_data, tmp_path / "run", after)
    assert f"{before.content_checksum} there, and {after.content_checksum} now" in message


def test_the_same_data_elsewhere_are_taken_and_what_was_begun_before_claims_existed(
    folder, tmp_path
):
    claim_data(tmp_path / "run", load(folder))
    check_data(tmp_path / "run", load(shutil.copytree(folder, tmp_path / "moved")))
    check_data(tmp_path / "another", load(folder))
    (tmp_path / "run" / "data.json").write_text("{}")
    message = refusal(check_data, tmp_path / "run", load(folder))
    assert "data.json cannot be read (it lacks content_checksum)" in message
    (tmp_path / "run" / "data.json").write_text('{"content_checksum": null}')
    message = refusal(check_data, tmp_path / "run", load(folder))
    assert "data.json cannot be read (its content_checksum is None)" in message


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints"])
def test_a_run_without_a_claim_is_not_continued(name, tmp_path):
    config = small_config()
    write_config(tmp_path, config)
    check_workdir(tmp_path, config)
    (tmp_path / name).mkdir()
    assert "holds a run but no data.json" in refusal(check_workdir, tmp_path, config)


def test_after_test_data_that_could_not_be_read_others_are_taken_but_no_other_training_data(
    folder, tmp_path
):
    claim_data(tmp_path / "run", load(folder))
    note_unread_test(tmp_path / "run")
    change_part(folder, "test", other_pixel)
    check_data(tmp_path / "run", load(folder))
    assert claimed_data(tmp_path / "run") is None
    change_part(folder, "train", other_pixel)
    assert "what is trained on is" in refusal(check_data, tmp_path / "run", load(folder))
    claim_data(tmp_path / "run", load(folder))
    assert claimed_data(tmp_path / "run") == load(folder).content_checksum


def test_a_finished_run_is_not_shown_as_one_of_other_data(folder, tmp_path):
    """By `data.json`, or where that is missing by what its summary says."""
    options = {"data__name": "mine", "data__profile": "natural", "batch_size": 16}
    config = small_config(data__folder=str(folder), **options)
    summary = {"test_accuracy": {"last": 0.5}, "content_checksum": load(folder).content_checksum}
    write_config(tmp_path / "run", config)
    (tmp_path / "run" / SUMMARY).write_text(json.dumps(summary))
    assert run(config, tmp_path / "run", say=quiet) == summary
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert run(small_config(data__folder=str(moved), **options), tmp_path / "run", say=quiet)
    change_part(moved, "test", other_pixel)
    other = small_config(data__folder=str(moved), **options)
    message = refusal(run, other, tmp_path / "run", say=quiet)
    assert f"{summary['content_checksum']} there, and {load(moved).content_checksum} now" in message
    shutil.rmtree(folder)
    shutil.rmtree(moved)
    assert run(config, tmp_path / "run", say=quiet) == summary  # it needs no data to be read
    assert "There is no folder" in refusal(run, other, tmp_path / "run", say=quiet)


def test_a_run_is_not_resumed_on_other_data_and_goes_on_with_its_own(folder, tmp_path):
    config = small_config(
        data__name="mine",
        data__folder=str(folder),
        data__profile="natural",
        batch_size=16,
        model__small__widths=(4,),
    )
    with pytest.raises(RunStopped):
        run(config, tmp_path / "run", say=quiet, keep_going=lambda: False)
    shutil.copytree(folder, tmp_path / "kept")
    change_part(folder, "train", one_less)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert "was begun on other data" in refusal(run, config, tmp_path / "run", say=quiet)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    config.data.folder = str(tmp_path / "kept")
    summary = run(config, tmp_path / "run", say=quiet)
    claim = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (
        summary["content_checksum"]
        == claim["content_checksum"]
        == load(tmp_path / "kept").content_checksum
    )


def quiet(line):
    del line

"""A folder that cannot be a run's is refused before anything is trained, whatever stands there."""

import json
import shutil

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.rundir.workdir import SUMMARY, check_data, claim_data
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


@pytest.mark.usefixtures("quick_compilation")
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

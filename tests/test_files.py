"""Paths that a person gives are checked before anything is read or written; damage is named."""

import json
import os
import stat

import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.files import local_path, output_file, output_folder, read_json
from tests.refusals import refusal

ELSEWHERE = ["gs://bucket/run", "s3://bucket", "hdfs://host:9000/run", "file:///tmp/run"]
LONG = "x" * 300


@pytest.mark.parametrize("check", [local_path, output_folder, output_file])
@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        *((place, "is not a folder of this machine") for place in ELSEWHERE),
        (LONG, "longer than 255 bytes"),
        (f"new/{LONG}/run", "longer than 255 bytes"),
        ("é" * 150, "longer than 255 bytes"),
        ("/".join(["deep"] * 1500), "cannot be a path here"),
        ("~no_such_user_here/run", "cannot be a path here"),
        ("two\nlines", "cannot be printed"),
        ("nul\0", "cannot be printed"),
    ],
)
def test_what_is_no_path_of_this_machine_is_refused_with_the_flag(check, given, part, tmp_path):
    message = refusal(check, given, "--out")
    assert part in message
    assert message.startswith("--out")


def test_a_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder("~/runs/a", "--workdir") == tmp_path / "runs" / "a"
    assert output_folder("runs/~a", "--workdir").parts == ("runs", "~a")


@pytest.mark.parametrize("name", ["widths=[8,16]", "back\\slash", "star*", "what?", "[!x]", "a**b"])
def test_a_name_that_checkpoints_are_not_found_by_is_refused(name, tmp_path, monkeypatch):
    """Wherever it stands in the whole path: above the folder that was given, too."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for given in (tmp_path / name, tmp_path / name / "run", "run"):
        message = refusal(output_folder, given, "--workdir")
        assert str(tmp_path / name) in message
        assert "reads as a pattern or a separator" in message
    assert output_folder(tmp_path / name, "--out", patterns=True) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["lr=0.1,gamma=0.5", "a b", "ü", "{a,b}", "100%", "$x", "a:b", "-a"]
)
def test_other_names_are_taken_as_they_are(name, tmp_path):
    assert output_folder(tmp_path / name, "--workdir") == tmp_path / name
    assert not (tmp_path / name).exists()


def test_a_place_at_or_below_a_file_is_refused_with_the_file(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for there in (file, link):
        for given in (there, there / "runs" / "one"):
            assert f"{there} is a file" in refusal(output_folder, given, "--out")
    assert f"{file} is a file" in refusal(output_file, file / "record.json", "--record")
    assert "is a folder" in refusal(output_file, tmp_path, "--records")


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    """As /proc, whoever asks; and folders and files of others, where one is not root."""
    assert "/proc cannot be written to" in refusal(output_folder, "/proc/run", "--out")
    assert "/proc cannot be written to" in refusal(output_file, "/proc/record.json", "--record")
    locked = tmp_path / "locked"
    locked.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid():
        message = refusal(output_folder, locked / "runs", "--out")
        assert f"{locked} cannot be written to (Permission denied)" in message


@pytest.mark.parametrize("field", ["folder", "train_list", "test_list"])
def test_places_of_data_are_checked_when_the_configuration_is_read(field):
    for given in (*ELSEWHERE, LONG):
        message = refusal(DataOptions, **{field: given})
        assert message.startswith(f"config.data.{field}={given[:5]}")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'{"reason":', "Expecting value"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[1]", "no JSON object"),
        (b"[" * 10**5, "maximum recursion depth"),
        (b'{"other": 1}', "it lacks reason"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(content, part, tmp_path):
    path = tmp_path / "failed.json"
    path.write_bytes(content)
    message = refusal(read_json, path, "remove it.", {"reason": str})
    assert message.startswith(f"{path} cannot be read (")
    assert part in message
    assert message.endswith("): remove it.")
    path.write_text(json.dumps({"reason": "so"}))
    assert read_json(path, "remove it.", {"reason": str}) == {"reason": "so"}
    assert "Is a directory" in refusal(read_json, tmp_path, "remove it.")

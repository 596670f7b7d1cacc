"""`python -m spa_jax.data.check`: every file is decoded, and the bad ones are listed."""

import numpy as np
import pytest

from spa_jax.data.check import bad_files, main
from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from tests.data.tiny_tfds import damage, encode, shards_of, tiny_imagenet2012

# ml_collections loads a configuration's file so.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

NAMES = [f"{part}/{kind}/{n}.jpg" for part in ("train", "val") for kind in "ab" for n in range(3)]
CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({"data": {"name": "mine", "folder": "", "profile": "natural"}})
"""


@pytest.fixture
def images(tmp_path):
    """A folder of twelve JPEG files, beside a configuration."""
    for number, name in enumerate(NAMES):
        image = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(image, "JPEG"))
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path


def run(images, *arguments):
    return main([str(images / "config.py"), f"--config.data.folder={images}", *arguments])


def test_whole_files_end_with_status_0(images, capsys):
    assert run(images) == 0
    assert capsys.readouterr() == ("0 of the 12 images cannot be decoded.\n", "")


def test_each_bad_file_is_listed_and_ends_with_status_1(images, capsys):
    whole = (images / NAMES[1]).read_bytes()
    (images / NAMES[1]).write_bytes(whole[: len(whole) // 2])  # its header is whole
    (images / NAMES[4]).write_bytes(b"")
    (images / NAMES[9]).write_bytes(b"<html>")
    assert run(images) == 1
    out, err = capsys.readouterr()
    assert err == ""
    *listed, last = out.splitlines()
    assert last == "3 of the 12 images cannot be decoded."
    assert [next(n for n in NAMES if n in line) for line in listed] == [
        NAMES[1],
        NAMES[4],
        NAMES[9],
    ]


def test_a_damaged_record_of_tfds_is_listed_among_whole_ones(tmp_path):
    """Of our own finding: files are not the only thing that can be damaged."""
    tiny_imagenet2012(tmp_path)
    data = load_data(DataOptions(name="imagenet2012", folder=str(tmp_path), profile="natural"))
    assert bad_files(data.train) == bad_files(data.test) == []
    damage(shards_of(tmp_path, "train")[0], keep_time=True)
    data = load_data(DataOptions(name="imagenet2012", folder=str(tmp_path), profile="natural"))
    assert 0 < len(bad_files(data.train)) < len(data.train)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--config.data.folder=/nowhere",), "There is no folder /nowhere"),
        (("--config.data.fodler=x",), 'Did you mean "folder"'),
        (("--config.data.profile=steep",), "config.data.profile must be one of"),
    ],
)
def test_what_cannot_be_opened_ends_with_status_2_and_one_paragraph(
    images, capsys, arguments, says
):
    assert run(images, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_configuration_that_is_not_there_ends_with_status_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.py")]) == 2
    assert str(tmp_path / "none.py") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        ("def get_config(:\n", (), "SyntaxError"),
        ("import no_such_module\n", (), "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config():\n    return 1 / 0\n", (), "ZeroDivisionError"),
        ("def get_config():\n    pass\n", (), "returns NoneType"),
        (CONFIG, ("--config.no_such=1",), "no_such"),
        (CONFIG, ("more",), "Unknown arguments: more"),
    ],
)
def test_a_configuration_that_raises_ends_with_status_2_and_one_paragraph(
    tmp_path, capsys, content, arguments, says
):
    (tmp_path / "mine.py").write_text(content)
    assert main([str(tmp_path / "mine.py"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err

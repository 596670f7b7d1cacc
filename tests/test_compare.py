"""The comparison of SpA's variants: a grid over `spa.method`, with differences to the first."""

import json
import shutil
import sys

import pytest
from absl import flags

from spa_jax import compare
from spa_jax.command_line import parse_flags
from spa_jax.reporting.statistics import paired_differences
from tests.devices import only_devices

# By which ml_collections reads a file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG_FILE = """
from tests.training.small import small_config


def get_config():
    return small_config(epochs=1, model__small__widths=(4,), logging__plots=False)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A function that compares as the command line says, on one device."""
    config = tmp_path_factory.mktemp("compare") / "config.py"
    config.write_text(CONFIG_FILE)

    def run(out, *arguments):
        known = {*flags.FLAGS}
        argv = ["compare", f"--config={config}", f"--out={out}", *arguments]
        with only_devices(1), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            try:
                compare.define_flags()
                parse_flags(argv)
                compare.main([])
            finally:
                flags.FLAGS.remove_flag_values({*flags.FLAGS} - known)

    return run


@pytest.fixture(scope="module")
def compared(command, tmp_path_factory):
    """The folder of a comparison of two variants with two seeds, recorded elsewhere too."""
    out = tmp_path_factory.mktemp("compared") / "out"
    command(out, "--methods=none,proj", "--seeds=2", f"--record={out.parent / 'record.json'}")
    return out


@pytest.fixture
def copy(compared, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(compared, tmp_path / "out")


def record_of(out):
    return json.loads((out / "comparison.json").read_text())


def fail(folder):
    (folder / "summary.json").unlink()
    (folder / "failed.json").write_text(json.dumps({"reason": "not finite at step 3"}))


@pytest.mark.thorough
def test_a_number_of_seeds_stands_for_those_from_0(compared):
    folders = sorted(path.name for path in compared.iterdir() if path.is_dir())
    assert folders == ["none-seed0", "none-seed1", "proj-seed0", "proj-seed1"]
    record = record_of(compared)
    assert record["seeds"] == [0, 1]
    assert [(run["spa_method"], run["seed"]) for run in record["runs"]] == [
        ("none", 0),
        ("none", 1),
        ("proj", 0),
        ("proj", 1),
    ]
    assert all("-m spa_jax.compare" in run["command"] for run in record["runs"])
    assert list(record["statistics"]) == ["none", "proj"]
    assert list(record["differences"]) == ["proj"]
    accuracies = [run["test_accuracy"]["last"] for run in record["runs"]]
    difference = record["differences"]["proj"]["test accuracy"]
    expected = (accuracies[2] + accuracies[3] - accuracies[0] - accuracies[1]) / 2
    assert difference["mean"] == pytest.approx(expected)
    for name, content in (("record.json", "comparison.json"), ("record.png", "alignment.png")):
        assert (compared.parent / name).read_bytes() == (compared / content).read_bytes()


def test_a_difference_over_classes_is_printed_where_the_test_set_is_unbalanced():
    runs = [
        {"test_accuracy": {"last": last}, "balanced_accuracy": {"last": last - 0.25}}
        for last in (0.875, 0.5)
    ]
    found = paired_differences([tuple(runs)])
    text = compare.format_differences(
        {"statistics": {"none": {}, "reg": {}}, "differences": {"reg": found}}
    )
    assert "test accuracy +37.5, accuracy over classes +37.5, held-out cosine -" in text


def test_a_finished_comparison_is_read_and_printed_again(copy, command, capsys):
    stamps = {path: path.stat().st_mtime_ns for path in copy.rglob("metrics.jsonl")}
    command(copy, "--methods=none,proj", "--seeds=0,1")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("metrics.jsonl")} == stamps
    printed = " ".join(capsys.readouterr().out.split())
    for found in record_of(copy)["statistics"].values():
        assert f"{100 * found['test accuracy']['mean']:.1f}" in printed
    assert "proj minus none: test accuracy" in printed
    assert "training images, last epoch, seeds 0, 1: mean ± std" in printed


def test_a_run_that_failed_is_told_and_its_seed_is_left_out_of_the_pairs(copy, command, capsys):
    before = record_of(copy)
    fail(copy / "proj-seed1")
    command(copy, "--methods=none,proj", "--seeds=2")
    record = record_of(copy)
    assert "(1 failed)" in capsys.readouterr().out
    assert [(run["spa_method"], run["seed"]) for run in record["runs"]] == [
        ("none", 0),
        ("none", 1),
        ("proj", 0),
    ]
    of_seed_0 = [run["test_accuracy"]["last"] for run in before["runs"] if run["seed"] == 0]
    difference = record["differences"]["proj"]["test accuracy"]
    assert difference["mean"] == pytest.approx(of_seed_0[1] - of_seed_0[0])


def test_runs_on_other_data_are_not_compared(copy, command, capsys):
    claim = copy / "proj-seed1" / "data.json"
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"content_checksum": "other"}))
    before = (copy / "comparison.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        command(copy, "--methods=none,proj", "--seeds=2")
    error = capsys.readouterr().err
    assert f"{copy / 'proj-seed1'} and what is there now are not of the same data" in error
    assert (copy / "comparison.json").read_bytes() == before


def test_finished_runs_are_not_shown_as_those_of_other_data(copy, command, capsys):
    for claim in copy.glob("*/data.json"):
        content = json.loads(claim.read_text()) | {"content_checksum": "other"}
        claim.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="2"):
        command(copy, "--methods=none,proj", "--seeds=2")
    assert "what is there now are not of the same data" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_variant_of_which_every_run_fails_ends_the_comparison_after_the_others(
    command, tmp_path, capsys
):
    """So large a weight that the gradient is not finite."""
    with pytest.raises(SystemExit, match="2"):
        command(tmp_path, "--methods=reg,none", "--seeds=7,", "--config.spa.reg.weight=1e38")
    error = capsys.readouterr().err
    assert "No run of reg came to its end" in error
    assert "not finite at step" in error
    assert (tmp_path / "reg-seed7" / "failed.json").exists()
    assert (tmp_path / "none-seed7" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seeds=0,0"], ("--seeds=0,0", "twice")),
        (["--seeds=none"], ("--seeds", "'none'")),
        (["--methods=proj,proj"], ("--methods", "'proj' twice")),
        (["--methods=none,prj"], ("config.spa.method must be one of none, reg", "'prj'")),
        (["--config.method.name=etf"], ("nothing to act on", "etf")),
        (["--config.spa.gama=1"], ("config.spa.gama is not a field",)),
    ],
)
def test_what_could_not_be_compared_is_refused_before_anything_is_trained(
    arguments, parts, command, tmp_path, capsys
):
    with pytest.raises(SystemExit, match="2"):
        command(tmp_path / "out", *arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_checkpoints_that_the_config_asks_for_are_kept(copy, command):
    shutil.rmtree(copy / "proj-seed1")
    again = ("--methods=none,proj", "--seeds=2", "--config.checkpoint.every_epochs=3")
    command(copy, *again)
    every = {
        path.parent.name: json.loads(path.read_text())["checkpoint"]["every_epochs"]
        for path in copy.glob("*/config.json")
    }
    assert every == {"none-seed0": 0, "none-seed1": 0, "proj-seed0": 0, "proj-seed1": 3}


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ("folder", "is a folder, and a file is needed"),
        ("figure.png", "must be a file that ends in .json"),
        ("config.py/record.json", "config.py is a file"),
    ],
)
def test_a_record_that_is_no_json_file_is_refused_before_anything_is_trained(
    record, part, command, tmp_path, capsys
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "config.py").write_text("")
    with pytest.raises(SystemExit, match="2"):
        command(tmp_path / "out", "--seeds=1", f"--record={tmp_path / record}")
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

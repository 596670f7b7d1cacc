"""A sweep trains every point of its grid once, in either way, and says what came out."""

import json

import numpy as np
import pytest
from rich.console import Console

from spa_jax.sweep import format_table, sweep
from spa_jax.training.grid import parse_axes, parse_seeds
from tests.refusals import refusal
from tests.training.small import small_config

AXES = {"spa.gamma": (0.1, 0.9), "batch_size": (32, 64)}


def silent():
    return Console(quiet=True)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A grid of two programs, of two strengths each, with one seed."""
    out = tmp_path_factory.mktemp("sweep")
    return sweep(small_config(spa__method="proj"), AXES, [3], out, silent()), out


def test_every_point_is_a_run_with_its_settings(swept):
    record, out = swept
    assert [point["settings"] for point in record["points"]] == [
        {"spa.gamma": gamma, "batch_size": size} for gamma in (0.1, 0.9) for size in (32, 64)
    ]
    for run in record["runs"]:
        config = json.loads((out / run["folder"] / "config.json").read_text())
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        assert config["spa"]["gamma"] == run["settings"]["spa.gamma"]
        assert config["batch_size"] == run["settings"]["batch_size"]
        assert config["seed"] == run["seed"] == 3
        assert run["test_accuracy"] == summary["test_accuracy"]
    assert json.loads((out / "sweep.json").read_text()) == json.loads(json.dumps(record))


def test_a_sweep_that_is_started_again_trains_nothing_again(swept):
    record, out = swept
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    again = sweep(small_config(spa__method="proj"), AXES, [3], out, silent())
    assert [run["test_accuracy"] for run in again["runs"]] == [
        run["test_accuracy"] for run in record["runs"]
    ]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")} == stamps


def test_the_table_has_a_row_for_each_point(swept):
    record, _ = swept
    table = format_table(record)
    console = Console(width=140, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(table)
    text = captured.get()
    for run in record["runs"]:
        assert f"{100 * run['test_accuracy']['last']:.1f}" in text
    assert table.row_count == 4


def test_one_program_for_all_records_collapse_as_runs_of_their_own_do(tmp_path):
    config = small_config(spa__method="proj", logging__collapse=True, epochs=1)
    axes = {"spa.gamma": (0.1, 0.9)}
    records = {
        together: sweep(config, axes, [0], tmp_path / str(together), silent(), together)
        for together in (True, False)
    }
    for one, other in zip(*(record["runs"] for record in records.values()), strict=True):
        lines = [
            json.loads((tmp_path / str(together) / run["folder"] / "metrics.jsonl").read_text())
            for together, run in ((True, one), (False, other))
        ]
        nc1 = [line["collapse"]["test"]["nc1"] for line in lines]
        assert nc1[0] == pytest.approx(nc1[1], rel=1e-3)
        with np.load(tmp_path / "True" / one["folder"] / "geometry.npz") as geometry:
            assert geometry["weights"].shape == (1, 10, 8)


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        (["spa.gama=0.1"], ("spa.gama is not a field", "spa.gamma?")),
        (["spa.gamma=low"], ("spa.gamma", "'low'")),
        (["spa.gamma="], ("spa.gamma",)),
        (["spa.gamma=0.1,0.1"], ("0.1", "spa.gamma")),
        (["spa.gamma=0.1", "spa.gamma=0.2"], ("spa.gamma",)),
        (["spa.gamma"], ("spa.gamma",)),
    ],
)
def test_axes_that_make_no_grid_are_refused(axes, parts):
    message = refusal(parse_axes, axes)
    for part in parts:
        assert part in message


def test_seeds_are_a_number_of_them_or_a_list():
    assert list(parse_seeds("3")) == [0, 1, 2]
    assert list(parse_seeds("0,3")) == [0, 3]
    for wrong in ("", "0", "a", "1,1", "-1,2"):
        assert "seeds" in refusal(parse_seeds, wrong)


def test_a_value_out_of_range_is_refused_before_anything_is_trained(tmp_path):
    out = tmp_path / "out"
    axes = {"spa.gamma": (0.1, 2.0)}
    message = refusal(sweep, small_config(), axes, [0], out, silent())
    assert "config.spa.gamma must be in [0, 1]" in message
    assert not out.exists()


def test_one_program_cannot_have_batches_of_two_sizes(tmp_path):
    config = small_config(spa__method="proj")
    message = refusal(sweep, config, AXES, [0], tmp_path, silent(), True)
    assert "--together trains one program, and batch_size" in message

"""A sweep trains every point of its grid once, in either way, and says what came out."""

import json

import numpy as np
import pytest
from rich.console import Console

from spa_jax.reporting.statistics import COLUMNS, statistics
from spa_jax.sweep import format_table, open_console, sweep
from spa_jax.sweeps.grid import make_grid
from spa_jax.training.rundir.workdir import write_config
from tests.devices import only_devices
from tests.refusals import refusal
from tests.training.small import small_config

AXES = {"spa.proj.gamma": (0.1, 0.9), "batch_size": (32, 64)}


def silent():
    return Console(quiet=True)


def proj_config(**changes):
    return small_config(spa__method="proj", model__small__widths=(4,), epochs=1, **changes)


def printed(record):
    with (console := Console(width=200)).capture() as captured:
        console.print(format_table(record))
    return captured.get()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A grid of two programs, of two strengths and two seeds each, on one device."""
    out = tmp_path_factory.mktemp("sweep")
    with only_devices(1):
        return sweep(proj_config(), AXES, [3, 5], out, silent()), out


def test_every_point_is_a_run_with_its_settings(swept):
    record, out = swept
    assert [point["settings"] for point in record["points"]] == [
        {"spa.proj.gamma": gamma, "batch_size": size} for gamma in (0.1, 0.9) for size in (32, 64)
    ]
    assert [run["seed"] for run in record["runs"]] == 4 * [3, 5]
    for run in record["runs"]:
        config = json.loads((out / run["folder"] / "config.json").read_text())
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        assert config["spa"]["proj"]["gamma"] == run["settings"]["spa.proj.gamma"]
        assert config["batch_size"] == run["settings"]["batch_size"]
        assert config["seed"] == run["seed"]
        assert run["test_accuracy"] == summary["test_accuracy"]
        assert run["parallel"] == "jit"
    assert json.loads((out / "sweep.json").read_text()) == json.loads(json.dumps(record))


def test_a_points_statistics_are_those_of_its_seeds(swept):
    record, _ = swept
    accuracies = [run["test_accuracy"]["last"] for run in record["runs"]]
    for point, of_point in zip(record["points"], np.reshape(accuracies, (4, 2)), strict=True):
        assert point["finished"] == 2
        found = point["statistics"]["test accuracy"]
        assert found["mean"] == pytest.approx(np.mean(of_point))
        assert found["std"] == pytest.approx(np.std(of_point, ddof=1))


def test_a_sweep_that_is_started_again_trains_nothing_again(swept):
    record, out = swept
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    again = sweep(proj_config(), AXES, [3, 5], out, silent())
    assert again["runs"] == record["runs"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")} == stamps


def test_the_table_has_a_row_for_each_point(swept):
    record, _ = swept
    text = printed(record)
    for point in record["points"]:
        assert f"{100 * point['statistics']['test accuracy']['mean']:.1f}" in text
    assert format_table(record).row_count == 4


def test_an_unbalanced_test_set_has_a_column_over_classes_and_a_sentence():
    runs = [{"test_accuracy": {"last": 0.892}, "balanced_accuracy": {"last": 0.65}}]
    points = [
        {"settings": {"spa.method": "none"}, "finished": 1, "statistics": statistics(runs, columns)}
        for columns in (None, COLUMNS)
    ]
    record = {"config": {"data": {"name": "made"}}, "seeds": [0], "points": points}
    text = " ".join(printed(record).split())
    assert "test accuracy ┃ accuracy over classes" in text
    assert "89.2 │ 65.0" in text
    assert "not as many images of each class" in text
    assert "over classes" not in printed(record | {"points": points[1:]})


@pytest.mark.thorough
def test_one_program_for_all_records_collapse_as_runs_of_their_own_do(tmp_path, on_devices):
    on_devices(1)
    config, axes = proj_config(logging__collapse=True), {"spa.proj.gamma": (0.1, 0.9)}
    records = [
        sweep(config, axes, [0], tmp_path / str(together), silent(), together)
        for together in (True, False)
    ]
    for one, other in zip(*(record["runs"] for record in records), strict=True):
        lines = [
            json.loads((tmp_path / str(together) / run["folder"] / "metrics.jsonl").read_text())
            for together, run in ((True, one), (False, other))
        ]
        nc1 = [line["collapse"]["test"]["nc1"] for line in lines]
        assert nc1[0] == pytest.approx(nc1[1], rel=1e-3)
        with np.load(tmp_path / "True" / one["folder"] / "geometry.npz") as geometry:
            assert geometry["weights"].shape == (1, 10, 4)


def test_a_value_out_of_range_is_refused_before_anything_is_trained(tmp_path):
    out = tmp_path / "out"
    axes = {"spa.proj.gamma": (0.1, 2.0)}
    message = refusal(sweep, proj_config(), axes, [0], out, silent())
    assert "config.spa.proj.gamma must be at least 0 and at most 1" in message
    assert not out.exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path):
    config, axes = proj_config(), {"spa.proj.gamma": (0.1, 0.2)}
    (member, _) = make_grid(config, axes, [0], tmp_path)
    write_config(member.folder, member.config)
    config.epochs = 7
    message = refusal(sweep, config, axes, [0], tmp_path, silent())
    assert "epochs (1 there, 7 now)" in message
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in refusal(sweep, config, axes, [0], file, silent())


def test_a_run_that_diverges_is_recorded_and_the_next_are_trained(tmp_path, on_devices):
    on_devices(1)
    config, axes = proj_config(), {"optimizer.learning_rate": (1e6, 0.1)}
    record = sweep(config, axes, [0], tmp_path, silent())
    sick, healthy = record["runs"]
    assert "not finite at step" in sick["failed"]
    assert sick["test_accuracy"] is None
    assert healthy["failed"] is None
    assert [point["finished"] for point in record["points"]] == [0, 1]
    assert record["points"][0]["statistics"] is None
    assert "- (1 failed)" in printed(record)
    reason = tmp_path / sick["folder"] / "failed.json"
    before = reason.stat().st_mtime_ns
    sweep(config, axes, [0], tmp_path, silent())
    assert reason.stat().st_mtime_ns == before


def test_a_table_of_many_axes_is_whole_in_a_pipe(capsys):
    settings = {f"optimizer.a_field_with_a_long_name_{i}": 0.123456789 for i in range(6)}
    point = {"settings": settings, "finished": 0, "statistics": None}
    record = {"config": {"data": {"name": "digits"}}, "seeds": [0], "points": [point]}
    open_console().print(format_table(record))
    printed = capsys.readouterr().out
    assert all(field in printed for field in settings)
    assert printed.count("0.123456789") == 6
    assert "…" not in printed

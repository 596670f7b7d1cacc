"""A sweep trains every point of its grid once, in either way, and says what came out."""

import json

import numpy as np
import pytest
from rich.console import Console

from spa_jax import sweep as command
from spa_jax.sweep import format_table, sweep
from spa_jax.sweeps.grid import make_grid, parse_axes, parse_seeds
from spa_jax.sweeps.together import Chunk
from spa_jax.training import loop
from spa_jax.training.rundir.workdir import write_config
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


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        (["seed=1,2"], ("--seeds",)),
        (["logging.every_steps=1,2"], ("logging.every_steps", "would be the same")),
        (["spa=1,2"], ("group of fields", "spa.gamma")),
        (["spa.center=maybe"], ("type bool", "'maybe'")),
        (["epochs=2.5"], ("type int", "'2.5'")),
        (["model.widths=8,wide"], ("type tuple", "'8,wide'")),
        (["spa.gamma=0.1,,0.2"], ("lacks a value",)),
        (["spa.gamma=0.1,0.10"], ("0.1 twice",)),
    ],
)
def test_axes_that_no_sweep_has_are_refused_with_what_to_do(axes, parts):
    message = refusal(parse_axes, axes)
    for part in parts:
        assert part in message


def test_values_get_the_type_of_their_field():
    texts = ["config.spa.gamma=1,0.5", "epochs=1", "spa.center=true,False", "spa.method=reg,none"]
    axes = parse_axes([*texts, "model.widths=8,16;32"])
    assert axes == {
        "spa.gamma": (1.0, 0.5),
        "epochs": (1,),
        "spa.center": (True, False),
        "spa.method": ("reg", "none"),
        "model.widths": ((8, 16), (32,)),
    }
    assert type(axes["spa.gamma"][0]) is float


def test_a_strength_that_no_run_reads_is_refused_with_the_method_that_does(tmp_path):
    strengths = {"spa.gamma": "proj", "spa.weight": "reg", "spa.threshold": "slerp"}
    for field, method in strengths.items():
        message = refusal(make_grid, small_config(), {field: (0.1, 0.2)}, [0], tmp_path)
        assert f"--config.spa.method={method}" in message
    axes = {"spa.method": ("none", "proj"), "spa.gamma": (0.1, 0.2)}
    assert len(make_grid(small_config(), axes, [0], tmp_path)) == 4


def test_runs_have_folders_of_their_own_below_out_whatever_the_values(tmp_path):
    axes = {"data.folder": ("a/b", "../c", "a%2Fb"), "model.widths": ((8,), (8, 16))}
    members = make_grid(small_config(), axes, [0, 1], tmp_path)
    assert len({member.name for member in members}) == len(members) == 12
    assert {member.folder.parent for member in members} == {tmp_path}
    assert not any("/" in member.name for member in members)


def test_a_folder_of_another_sweep_is_refused(tmp_path):
    config, axes = small_config(spa__method="proj"), {"spa.gamma": (0.1, 0.2)}
    (member, _) = make_grid(config, axes, [0], tmp_path)
    write_config(member.folder, member.config)
    config.epochs = 7
    message = refusal(sweep, config, axes, [0], tmp_path, silent())
    assert "epochs (2 there, 7 now)" in message
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in refusal(sweep, config, axes, [0], file, silent())


def test_a_run_that_diverges_is_recorded_and_the_next_are_trained(tmp_path):
    config, axes = small_config(epochs=1), {"optimizer.learning_rate": (1e6, 0.1)}
    record = sweep(config, axes, [0], tmp_path, silent())
    sick, healthy = record["runs"]
    assert "not finite at step" in sick["failed"]
    assert sick["test_accuracy"] is None
    assert healthy["failed"] is None
    assert [point["finished"] for point in record["points"]] == [0, 1]
    assert record["points"][0]["statistics"] is None
    with (console := Console(width=140)).capture() as captured:
        console.print(format_table(record))
    assert "- (1 failed)" in captured.get()
    reason = tmp_path / sick["folder"] / "failed.json"
    before = reason.stat().st_mtime_ns
    sweep(config, axes, [0], tmp_path, silent())
    assert reason.stat().st_mtime_ns == before


def test_what_was_not_asked_for_is_what_is_faster_or_was_begun(tmp_path, monkeypatch):
    axes = {"spa.gamma": (0.1, 0.9)}
    members = make_grid(small_config(spa__method="proj"), axes, [0], tmp_path)

    def chosen(axes, members, asked=None):
        return command._trains_together(axes, members, tmp_path, asked)

    assert not chosen(axes, members)  # this is a CPU
    assert chosen(axes, members, asked=True)
    monkeypatch.setattr(command.jax, "default_backend", lambda: "gpu")
    assert chosen(axes, members)
    assert not chosen(axes, members[:1])
    assert not chosen(axes, members, asked=False)
    assert not chosen(AXES, members)
    monkeypatch.undo()
    Chunk.create(tmp_path, members, 2)
    assert chosen(axes, members)


def test_what_cannot_be_one_program_is_trained_in_turn_unless_one_was_asked_for(
    tmp_path, monkeypatch
):
    config = small_config(spa__method="proj", data__feed="stream", loader__workers=0, epochs=1)
    axes = {"spa.gamma": (0.1, 0.9)}
    assert "streamed" in refusal(sweep, config, axes, [0], tmp_path / "asked", silent(), True)
    monkeypatch.setattr(command.jax, "default_backend", lambda: "gpu")
    record = sweep(config, axes, [0], tmp_path, silent())
    assert [run["parallel"] for run in record["runs"]] == ["jit", "jit"]
    assert not (tmp_path / "together").exists()


def test_runs_begun_in_turn_are_ended_in_turn_and_the_rest_together(tmp_path):
    config, axes = small_config(spa__method="proj"), {"spa.gamma": (0.1, 0.9)}
    first, *_ = make_grid(config, axes, [0, 1], tmp_path)
    with pytest.raises(loop.RunStopped):
        loop.run(first.config, first.folder, say=lambda line: None, keep_going=lambda: False)
    record = sweep(config, axes, [0, 1], tmp_path, silent(), together=True)
    assert [entry["parallel"] for entry in record["runs"]] == ["jit", "vmap", "vmap", "vmap"]
    lines = (first.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    accuracies = [entry["test_accuracy"]["last"] for entry in record["runs"]]
    assert len(record["points"]) == 2
    for point, of_point in zip(record["points"], (accuracies[:2], accuracies[2:]), strict=True):
        assert point["finished"] == 2
        assert point["statistics"]["test accuracy"]["mean"] == pytest.approx(np.mean(of_point))
        assert point["statistics"]["test accuracy"]["std"] == pytest.approx(
            np.std(of_point, ddof=1)
        )

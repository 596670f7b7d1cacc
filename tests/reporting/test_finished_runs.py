"""Which folders are runs, what is read from them, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from spa_jax.reporting.finished_runs import find_run_folders, read_run, read_runs
from tests.refusals import refusal
from tests.reporting.made_runs import write_run


def test_a_run_is_read_with_its_config_flat_and_its_geometry(tmp_path):
    run = read_run(
        write_run(tmp_path / "a", {"seed": 3, "spa.proj.gamma": 0.2}, heads=("one", "two"))
    )
    assert run.config["spa.proj.gamma"] == 0.2
    assert run.config["data.name"] == "digits"
    assert [entry["epoch"] for entry in run.lines] == [1, 2, 3, 4, 5, 6]
    assert run.summary["seed"] == 3
    assert run.geometry is not None
    assert run.geometry.heads == ("one", "two")
    assert run.geometry.weights.shape == (2, 4, 6)
    assert read_run(write_run(tmp_path / "b", geometry=False)).geometry is None


def test_a_folder_of_runs_stands_for_the_runs_in_it_each_once(tmp_path):
    a, b = write_run(tmp_path / "runs" / "a"), write_run(tmp_path / "runs" / "b", {"seed": 1})
    (tmp_path / "runs" / "comparison.json").write_text("{}")
    (tmp_path / "runs" / "report").mkdir()
    assert find_run_folders([tmp_path / "runs"]) == [a, b]
    assert find_run_folders([b, tmp_path / "runs", a / ".." / "b"]) == [b, a]


def test_a_path_that_is_no_run_is_refused_by_name(tmp_path):
    message = refusal(find_run_folders, [tmp_path / "nowhere"])
    assert f"{tmp_path / 'nowhere'} does not exist" in message
    assert "runs/demo" in message
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(find_run_folders, [tmp_path / "file"])
    (tmp_path / "empty" / "deeper" / "still").mkdir(parents=True)
    message = refusal(find_run_folders, [tmp_path / "empty"])
    assert f"{tmp_path / 'empty'} is no run" in message
    assert "config.json" in message
    assert "No run was given" in refusal(find_run_folders, [])


def test_a_run_still_being_written_is_left_out_with_how_far_it_came(tmp_path):
    done, open_ = write_run(tmp_path / "done"), write_run(tmp_path / "open", {"seed": 1})
    (open_ / "summary.json").unlink()
    lines = (open_ / "metrics.jsonl").read_text().splitlines(keepends=True)
    (open_ / "metrics.jsonl").write_text("".join(lines[:2]) + '{"epoch": 3, "st')
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(done / "config.json", new)
    runs, left_out = read_runs([open_, done, new])
    assert [run.folder for run in runs] == [done]
    assert list(left_out) == [open_, new]
    assert "still being written, or cut off: epoch 2 of 6" in left_out[open_]
    assert "epoch 0 of 6" in left_out[new]


def test_with_no_finished_run_there_is_no_report(tmp_path):
    folders = [write_run(tmp_path / name) for name in "abcd"]
    for folder in folders:
        (folder / "summary.json").unlink()
    message = refusal(read_runs, folders)
    assert "None of the 4 runs is finished" in message
    assert str(folders[2]) in message
    assert str(folders[3]) not in message
    assert ", ..." in message


def test_runs_with_different_numbers_of_classes_are_refused(tmp_path):
    four, three = write_run(tmp_path / "four"), write_run(tmp_path / "three", counts=(9, 5, 1))
    message = refusal(read_runs, [four, three])
    assert f"4 ({four}); 3 ({three})" in message
    assert "one report for each data set" in message


def damage_summary(folder):
    (folder / "summary.json").write_text('{"test_accuracy": ')


def damage_summary_kind(folder):
    (folder / "summary.json").write_text("[]")


def lack_fields(folder):
    content = json.loads((folder / "summary.json").read_text())
    del content["split_checksum"], content["class_names"]
    (folder / "summary.json").write_text(json.dumps(content))


def wrong_kind(field, value=3):
    def damage(folder):
        content = json.loads((folder / "summary.json").read_text()) | {field: value}
        (folder / "summary.json").write_text(json.dumps(content))

    return damage


def damage_lines(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")


def lose_lines(folder):
    (folder / "metrics.jsonl").unlink()


def empty_lines(folder):
    (folder / "metrics.jsonl").write_text("")


def lines_without_epochs(folder):
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')


def damage_geometry(folder):
    (folder / "geometry.npz").write_bytes(b"PK")


def cut_geometry(folder):
    path = folder / "geometry.npz"
    path.write_bytes(path.read_bytes()[:500])


def lack_arrays(folder):
    np.savez(folder / "geometry.npz", weights=np.zeros((1, 4, 6)))


def other_classes(folder):
    means = np.zeros((5, 6))
    arrays = {"train_means": means, "test_means": means, "heads": np.array(["head"])}
    np.savez(folder / "geometry.npz", weights=means[None], **arrays)


def other_heads(folder):
    means = np.zeros((4, 6))
    arrays = {"train_means": means, "test_means": means, "heads": np.array(["one", "two"])}
    np.savez(folder / "geometry.npz", weights=means[None], **arrays)


def other_width(folder):
    arrays = {"train_means": np.zeros((4, 6)), "heads": np.array(["head"])}
    np.savez(
        folder / "geometry.npz",
        weights=np.zeros((1, 4, 6)),
        test_means=np.zeros((4, 5)),
        **arrays,
    )


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (damage_summary, ["summary.json cannot be read"]),
        (damage_summary_kind, ["summary.json cannot be read (it holds no JSON object)"]),
        (lack_fields, ["summary.json lacks class_names, split_checksum"]),
        *(
            (wrong_kind(field), [f"summary.json cannot be read (its {field} is 3)"])
            for field in (
                "test_accuracy",
                "balanced_accuracy",
                "class_counts",
                "class_names",
                "heads",
                "shot_groups",
                "test_class_counts",
                "balanced_shot_groups",
                "init",
            )
        ),
        (wrong_kind("test_accuracy", {"last": None}), ["cannot be read (the last test_accuracy"]),
        (wrong_kind("class_counts", ["a"] * 4), ["summary.json cannot be read (its class_counts"]),
        (wrong_kind("mean_cosine", "x"), ["summary.json cannot be read (its mean_cosine is 'x')"]),
        (wrong_kind("class_names", ["a"] * 3), ["its class_names are not 4, one for each class"]),
        (wrong_kind("shot_groups", {"few": "x"}), ["summary.json cannot be read ("]),
        (wrong_kind("heads", {"head": {"mean_cosine": [1]}}), ["summary.json cannot be read ("]),
        (wrong_kind("per_class_accuracy", [0.5] * 3), ["per_class_accuracy is no list of 4"]),
        (wrong_kind("per_class_cosine", [0, 1, 0, "x"]), ["summary.json cannot be read ("]),
        (damage_lines, ["metrics.jsonl cannot be read (line 2 is no JSON: "]),
        (lose_lines, ["metrics.jsonl cannot be read"]),
        (empty_lines, ["metrics.jsonl", "it does not hold one JSON object an epoch"]),
        (lines_without_epochs, ["metrics.jsonl", "it does not hold one JSON object an epoch"]),
        (damage_geometry, ["geometry.npz cannot be read"]),
        (cut_geometry, ["geometry.npz cannot be read"]),
        (lack_arrays, ["geometry.npz cannot be read", "heads"]),
        (other_classes, ["geometry.npz", "it must hold weights", "C = 4", "(1, 5, 6)"]),
        (other_heads, ["geometry.npz", "it must hold weights", "H = 2", "(1, 4, 6)"]),
        (other_width, ["geometry.npz", "it must hold weights", "(4, 5)"]),
    ],
)
def test_a_damaged_file_is_refused_by_name_with_what_to_do(damage, parts, tmp_path):
    folder = write_run(tmp_path / "a")
    damage(folder)
    message = refusal(read_run, folder)
    for part in [str(folder), "run the experiment again", *parts]:
        assert part in message

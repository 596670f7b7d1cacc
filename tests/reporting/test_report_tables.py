"""The numbers in the tables of a report, from the recorded ones by hand."""

import statistics as reference

import numpy as np
import pytest
from scipy.stats import ttest_rel

from spa_jax.report import words
from spa_jax.reporting import report_tables as tables
from spa_jax.reporting.figures.classes import mean_angles
from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import group_runs
from tests.reporting.made_runs import write_run

NONE, REG = (0.80, 0.82, 0.87), (0.81, 0.86, 0.86)


def rows_of(made):
    """The cells of the one table that was made, by the first of each row."""
    (table,) = made
    rows = ([*row.values()] for row in table.rows)
    return {name: cells for name, *cells in rows}


@pytest.fixture
def groups(tmp_path):
    """Three seeds without alignment, three with SpA-Reg, one of SpA-Proj on another split."""
    folders = []
    for seed in range(3):
        shots = {"shot_groups": {"few": 0.5 if seed else None}}
        folders += [
            write_run(tmp_path / f"none{seed}", {"seed": seed}, NONE[seed], min_cosine=-0.25),
            write_run(
                tmp_path / f"reg{seed}", {"seed": seed, "spa.method": "reg"}, REG[seed], **shots
            ),
        ]
    folders.append(write_run(tmp_path / "proj", {"spa.method": "proj"}, 0.7, split="other"))
    return group_runs([read_run(folder) for folder in folders])


def test_accuracies_are_percent_with_sample_deviation_and_a_mark_for_another_split(groups):
    rows = rows_of(tables.accuracy_table(groups))
    assert list(rows) == ["spa.method=none", "spa.method=reg", "spa.method=proj †"]
    for label, values in (("spa.method=none", NONE), ("spa.method=reg", REG)):
        mean, std = 100 * reference.mean(values), 100 * reference.stdev(values)
        assert rows[label][:2] == ["3", f"{mean:.1f} ± {std:.1f}"]
        assert rows[label][2] == f"{mean + 1:.1f} ± {std:.1f}"
    assert rows["spa.method=none"][-1] == "63.0 ± 3.6"  # few-shot: 20 points below
    assert rows["spa.method=reg"][-1] == "-"  # null in one of three seeds
    assert rows["spa.method=proj †"][:3] == ["1", "70.0", "71.0"]
    (table,) = tables.accuracy_table(groups)
    assert "the 1 largest classes" in words("accuracy_caption", table.facts)


def test_cosines_have_three_decimals_and_keep_their_sign(groups):
    (table,) = tables.cosines_table(groups)
    row = table.rows[0]
    assert row["configuration"] == "spa.method=none"
    assert row["lowest, EMA means"] == "-0.250 ± 0.000"
    assert row["mean, held-out means"] == "0.800 ± 0.000"
    assert row["mean, EMA means"] == "0.900 ± 0.000"
    assert row["lowest, held-out means"] == "0.600 ± 0.000"


def test_differences_are_paired_and_another_split_is_named_in_place_of_numbers(groups):
    rows = rows_of(tables.differences_table(groups))
    assert list(rows) == ["spa.method=reg", "spa.method=proj"]
    interval = ttest_rel(REG, NONE).confidence_interval(0.95)
    mean = reference.mean(REG) - reference.mean(NONE)
    low, high = 100 * interval.low, 100 * interval.high
    expected = f"{100 * mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    assert rows["spa.method=reg"][:3] == ["spa.method=none", "3", expected]
    assert rows["spa.method=reg"][3] == "-"
    assert rows["spa.method=proj"] == [
        "spa.method=none",
        "0 (not paired: 1 with another split or other data)",
        *["-"] * 4,
    ]
    assert list(tables.differences_table(groups[:1])) == []


def test_one_shared_seed_gives_a_difference_without_an_interval(tmp_path):
    folders = [
        write_run(tmp_path / "a", {"seed": 1}, 0.5),
        write_run(tmp_path / "b", {"seed": 1, "spa.method": "reg"}, 0.75),
    ]
    table = tables.differences_table(group_runs([read_run(folder) for folder in folders]))
    assert rows_of(table)["spa.method=reg"][1:3] == ["1", "+25.0"]


def test_every_run_is_named_with_its_command_or_that_there_is_none(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", {"seed": 1}, command=None)]
    (group,) = group_runs([read_run(folder) for folder in folders])
    rows = rows_of(tables.runs_table([group]))
    assert list(rows) == [str(folder) for folder in folders]
    first, second = rows.values()
    checksum = group.runs[0].summary["split_checksum"]
    assert first[:5] == ["spa.method=none", "0", "80.0", checksum[:8], "12\u00a0s"]
    assert first[5] == "python train.py --config=configs/digits_lt.py --workdir=a"
    assert second[5] == "command not recorded"


def test_classes_are_listed_largest_first_if_they_are_few_and_the_same(tmp_path):
    shuffled = {"counts": (5, 50, 10), "names": ("x", "y", "z")}
    folders = [write_run(tmp_path / "a", **shuffled)]
    accuracies = [0.0, 0.5, 0.25]
    folders.append(
        write_run(tmp_path / "b", {"seed": 1}, per_class_accuracy=accuracies, **shuffled)
    )
    groups = group_runs([read_run(folder) for folder in folders])
    table = tables.classes_table(groups)
    assert rows_of(table) == {"y": ["50", "62.5"], "z": ["10", "37.5"], "x": ["5", "50.0"]}
    other = read_run(write_run(tmp_path / "c", {"spa.method": "reg"}, counts=(5, 50, 9)))
    assert list(tables.classes_table([*groups, *group_runs([other])])) == []
    many = read_run(write_run(tmp_path / "d", counts=tuple(range(21, 0, -1))))
    assert list(tables.classes_table(group_runs([many]))) == []


def test_a_class_without_test_images_has_no_accuracy(tmp_path):
    run = read_run(write_run(tmp_path / "a", per_class_accuracy=[1.0, None, 0.5, 0.25]))
    table = tables.classes_table(group_runs([run]))
    assert [row[-1] for row in rows_of(table).values()] == ["100.0", "-", "50.0", "25.0"]


@pytest.fixture
def unbalanced(tmp_path):
    """Two groups tested on 40, 20, 5 and 0 images of their four classes."""
    tested = {
        "test_class_counts": [40, 20, 5, 0],
        "balanced_accuracy": {"last": 0.65, "best": 0.7, "best_epoch": 3},
        "balanced_shot_groups": {"many": 0.975, "medium": 0.4875, "few": None},
        "per_class_accuracy": [0.975, 0.875, 0.1, None],
        "per_class_test_cosine": [0.9, 0.8, 0.7, None],
    }
    folders = [
        write_run(tmp_path / "none", accuracy=0.892, **tested),
        write_run(tmp_path / "reg", {"spa.method": "reg"}, 0.9, **tested),
    ]
    return group_runs([read_run(folder) for folder in folders])


def test_an_unbalanced_test_set_has_accuracies_over_images_and_over_classes(unbalanced):
    (table,) = tables.accuracy_table(unbalanced)
    row = table.rows[0]
    assert [row[name] for name in ("last", "last, over classes", "best, over classes")] == [
        "89.2",
        "65.0",
        "70.0",
    ]
    shots = [row[f"{name}-shot, over classes"] for name in ("many", "medium", "few")]
    assert shots == ["97.5", "48.8", "-"]
    assert list(row)[:5] == ["configuration", "seeds", "last", "best", "last, over classes"]
    assert "not as many images of each class" in words("accuracy_caption", table.facts)
    (differences,) = tables.differences_table(unbalanced)
    assert differences.rows[0]["accuracy over classes"] == "+0.0"
    (classes,) = tables.classes_table(unbalanced)
    assert [row["test images"] for row in classes.rows] == ["40", "20", "5", "0"]
    assert [row["spa.method=none"] for row in classes.rows] == ["97.5", "87.5", "10.0", "-"]


def test_a_balanced_test_set_says_nothing_of_classes(groups):
    (table,) = tables.accuracy_table(groups)
    assert "over classes" not in "".join(table.rows[0])
    assert "over classes" not in words("accuracy_caption", table.facts)
    (classes,) = tables.classes_table(groups)
    assert "test images" not in classes.rows[0]


def test_a_class_without_test_images_has_no_held_out_angle_and_the_others_have(unbalanced):
    mean, _ = mean_angles(unbalanced[0], held_out=True)
    assert np.isnan(mean[0]).tolist() == [False, False, False, True]

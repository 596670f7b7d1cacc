"""Methods next to cross-entropy: the record of docs/methods.md, and its table."""

import json

from studies.methods import main, measure
from studies.tables import record_table
from tests.refusals import refusal
from tests.reporting.made_runs import write_run

SPLIT = {"imbalance_factor": 10.0, "class_counts": [50, 20, 10, 5], "checksum": "c" * 64}
MACHINE = {"platform": "cpu", "cpu_count": 2}


def write_methods(root, accuracies, **changes):
    """Runs of the seeds 0, 1, ... of each method, with these accuracies."""
    for method, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            fields = {"method.name": method, "seed": seed, "data.class_order": "reversed"}
            folder, made = root / f"{method}-seed{seed}", {"hardware": MACHINE}
            write_run(folder, fields | changes, accuracy, **made)
            summary = json.loads((folder / "summary.json").read_text()) | {"split": SPLIT}
            (folder / "summary.json").write_text(json.dumps(summary))
    return root


def test_a_method_is_within_three_points_by_its_mean_over_paired_seeds(tmp_path, capsys):
    write_methods(tmp_path / "a", {"focal": (0.75, 0.79)})
    write_methods(tmp_path / "b", {"lade": (0.76, 0.80), "cross_entropy": (0.80, 0.82)})
    record = tmp_path / "methods.json"
    main([str(tmp_path / "a"), str(tmp_path / "b"), f"--record={record}"])
    found = json.loads(record.read_text())
    assert found["benchmark"] == "methods" and found["seeds"] == [0, 1]
    table = record_table(found)
    assert table in capsys.readouterr().out
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == ["| cross-entropy", "| focal loss", "| LADE"]
    # Off by 5 and 3 points, and by 4 and 2.
    assert rows[3][1].startswith("77.0 ±") and rows[3][-2].startswith("-4.0 ±")
    assert [row[-1] for row in rows[3:]] == ["no |", "yes |"]
    assert rows[4][-2].startswith("-3.0 ±")
    assert "6 epochs" in table and "seeds 0, 1" in table and "Split `cccccccccccccccc`" in table


def test_runs_that_differ_in_more_than_the_method_are_refused(tmp_path):
    write_methods(tmp_path / "a", {"cross_entropy": (0.8,)})
    write_methods(tmp_path / "b", {"focal": (0.8,)}, **{"optimizer.learning_rate": 0.2})
    message = refusal(measure, [tmp_path / "a", tmp_path / "b"])
    assert "differ in optimizer.learning_rate, and should in method and seed only" in message


def test_runs_without_cross_entropy_are_refused(tmp_path):
    write_methods(tmp_path / "a", {"focal": (0.8,)})
    assert "no run of cross_entropy to compare with, only of focal" in refusal(
        measure, [tmp_path / "a"]
    )


def test_the_command_says_what_is_wrong_and_ends_with_2(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "error: " in capsys.readouterr().err

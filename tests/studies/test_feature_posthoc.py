"""Controls that need no training, against NumPy and by hand."""

import numpy as np
import pytest

from spa_jax.data.sources.opening import load_data
from spa_jax.reproduction.feature_tables import SEEDS
from spa_jax.reproduction.tables import find_table
from spa_jax.training.config import resolve
from spa_jax.training.recipes import features
from studies.feature_posthoc import Runs, accuracies, image_interval, main, nearest_mean
from studies.reproduction.feature_sections import posthoc_tables
from tests.data.test_features import CLASSES, arrays, write_npz


def test_the_nearest_mean_has_the_largest_cosine_with_the_centred_example(tmp_path):
    config = features(imbalance_factor=2.5)
    config.data.folder = str(write_npz(tmp_path / "bank"))
    data = load_data(resolve(config).data)
    train, test = data.train, arrays("test")
    shown = np.asarray(train.images[:], np.float64)
    means = np.array([shown[train.labels == c].mean(axis=0) for c in range(CLASSES)])
    centre = means.mean(axis=0)
    expected = []
    for feature in test["feature"].astype(np.float64):
        cosines = [
            (feature - centre) @ (mean - centre) / np.linalg.norm(mean - centre) for mean in means
        ]
        expected.append(int(np.argmax(cosines)))
    predicted = nearest_mean(data)
    assert predicted.tolist() == expected
    assert (predicted == test["label"]).mean() > 0.9


def test_accuracies_are_of_all_and_of_each_shot_group():
    right, labels = np.array([True, False, True, True]), np.array([0, 0, 1, 2])
    found = accuracies(right, labels, {"many": [0], "medium": [], "few": [1, 2]})
    assert found == {"all": 0.75, "many": 0.5, "few": 1.0}


def test_the_interval_over_images_is_that_of_a_mean_of_as_many_draws():
    rng = np.random.default_rng(0)
    gains = rng.choice([-0.1, 0.0, 0.05, 0.3], size=4000, p=[0.2, 0.5, 0.2, 0.1])
    mean, low, high = image_interval(gains, np.random.default_rng(1))
    half = 1.96 * gains.std() / len(gains) ** 0.5
    assert mean == pytest.approx(gains.mean())
    assert [low, high] == pytest.approx([mean - half, mean + half], abs=0.1 * half)


def test_the_tables_say_what_was_measured():
    seeds = [{"all": 0.4, "many": 0.5, "medium": 0.4, "few": 0.3}] * 2
    found = {"tau": 0.75, "nearest_mean": seeds, "tau_normalised": seeds}
    found["image_intervals"] = {"cross_entropy slerp": [0.012, 0.001, 0.023]}
    text = posthoc_tables(
        {
            "table": "features_cifar100",
            "runs_until": "2026-11-30",
            "resamples": 2000,
            "jax": "0.10.2",
            "factors": {"100": found},
        }
    )
    assert "| 100 | cross-entropy, tau-normalised by 0.75 | 2 | 40.0 ± 0.0 |" in text
    assert "| 100 | cross-entropy | SLERP | +1.20 [+0.10, +2.30] |" in text


def test_groups_with_a_run_that_diverged_are_left_out(tmp_path):
    place = {"stage": "final", "spa_method": "none", "imbalance_factor": 100.0}
    cells = [
        cell
        for cell in find_table("features_cifar100").cells([])
        if all(getattr(cell, key) == x for key, x in place.items())
        and cell.method in ("arb", "crt")
    ]
    assert len(cells) == 2 * len(SEEDS)
    diverged = next(cell for cell in cells if cell.method == "crt")
    records = {
        cell.name: {"cell": cell.name, "summary": None if cell == diverged else {"seed": cell.seed}}
        for cell in cells
    }
    runs = Runs("features_cifar100", tmp_path, tmp_path, records)
    assert [group.method for group in runs.groups(**place)] == ["arb"]


def test_without_records_the_command_says_how_to_make_some(tmp_path, capsys):
    records, out = tmp_path / "none.jsonl", tmp_path / "posthoc.json"
    given = ["features_cifar100", f"--bank={tmp_path}", f"--runs={tmp_path}"]
    assert main([*given, f"--records={records}", f"--out={out}"]) == 2
    assert "python -m spa_jax.reproduce features_cifar100" in capsys.readouterr().err
    assert not out.exists()

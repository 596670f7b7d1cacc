"""The numbers of the studies are those of the runs they are made of."""

import doctest
import json
import math

import numpy as np
import pytest
from scipy import stats

from studies import names, study_numbers
from studies.study_runs import clean_training_cosines, read_experiment
from tests.studies.made_experiments import tables_of, write_curves, write_experiment


def test_correlations_over_epochs_are_of_levels_and_of_changes(tmp_path):
    cosine, accuracy = [0.1, 0.3, 0.4, 0.7, 0.6, 0.8], [0.2, 0.5, 0.4, 0.6, 0.7, 0.9]
    curves = {"test_mean_cosine": cosine, "test_accuracy": accuracy}
    write_curves(tmp_path / "a", "none", 0, curves)
    (values,) = study_numbers.alignment_and_accuracy(read_experiment(tmp_path))["runs"]["none"]
    assert values["r_epochs"] == pytest.approx(stats.pearsonr(cosine, accuracy)[0])
    changes = stats.pearsonr(np.diff(cosine), np.diff(accuracy))[0]
    assert values["r_changes"] == pytest.approx(changes)
    assert values["r_changes"] != pytest.approx(values["r_epochs"], abs=0.1)


def test_a_missing_value_leaves_a_correlation_out(tmp_path):
    curves = {"test_mean_cosine": [None, 0.3, 0.4, 0.7, 0.6, 0.8]}
    write_curves(tmp_path / "a", "none", 0, curves)
    (values,) = study_numbers.alignment_and_accuracy(read_experiment(tmp_path))["runs"]["none"]
    assert values["r_epochs"] is None
    assert study_numbers.correlation([1.0, 2.0], [1.0, 3.0]) is None


def test_over_seeds_changes_of_cosine_are_put_next_to_changes_of_accuracy(tmp_path):
    experiment = read_experiment(write_experiment(tmp_path, seeds=(0, 1, 2, 3)))
    numbers = study_numbers.alignment_and_accuracy(experiment)
    changes = {
        name: [
            run.summary[name] - base.summary[name]
            if name == "test_mean_cosine"
            else run.summary[name]["last"] - base.summary[name]["last"]
            for run, base in zip(
                experiment.groups["reg"].runs, experiment.baseline.runs, strict=True
            )
        ]
        for name in ("test_mean_cosine", "test_accuracy")
    }
    found = numbers["over_seeds"]["reg"]
    assert found["n"] == 4
    assert found["r"] == pytest.approx(stats.pearsonr(*changes.values())[0])
    assert "r_epochs" not in numbers["differences"]["reg"]


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_needed_correlation_has_a_chance_of_one_in_twenty(n):
    r = study_numbers.needed_correlation(n)
    assert r is not None
    # The exact distribution of the correlation of n independent normal pairs.
    chance = 2 * stats.beta(n / 2 - 1, n / 2 - 1, loc=-1, scale=2).cdf(-r)
    assert chance == pytest.approx(0.05, rel=1e-6)
    assert study_numbers.needed_correlation(2) is None


def test_nc2_is_its_last_value_its_mean_and_the_first_epoch_at_the_baselines_end(tmp_path):
    etf, angles = "collapse.train.nc2_etf_means", "collapse.train.nc2_equiangular_means"
    none = {etf: [1.0, 0.9, 0.5, 0.7, 0.6, 0.6], angles: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]}
    reg = {etf: [1.0, 0.6, 0.8, 0.5, 0.4, 0.3], angles: [0.9, 0.8, 0.7, 0.6, 0.5, 0.45]}
    for method, curves in (("none", none), ("reg", reg)):
        for seed in range(2):
            write_curves(tmp_path / f"{method}{seed}", method, seed, curves)
    numbers = study_numbers.nc2_convergence(read_experiment(tmp_path))
    base, values = numbers["runs"]["none"][0], numbers["runs"]["reg"][0]
    assert base["nc2_etf_means_reached"] == 3
    assert values["nc2_etf_means_reached"] == 2
    assert values["nc2_equiangular_means_reached"] is None
    assert values["nc2_etf_means_last"] == 0.3
    assert values["nc2_etf_means_mean"] == pytest.approx(3.6 / 6)
    difference = numbers["differences"]["reg"]
    assert difference["nc2_etf_means_last"]["mean"] == pytest.approx(-0.3)
    assert numbers["verdicts"]["reg"]["nc2_etf_means_last"] == "helps"
    assert numbers["verdicts"]["reg"]["nc2_equiangular_means_last"] == "hinders"
    assert difference["nc2_equiangular_means_reached"]["mean"] is None
    table = tables_of("nc2_convergence", numbers)
    assert "| -0.300 ± 0.000 | -0.117 ± 0.000 | -1.0 ± 0.0 | helps |" in table
    assert "| 0 of 2 get there | hinders |" in table


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (-0.2, 0.1, "helps"),
        (0.2, 0.1, "hinders"),
        (-0.1, 0.2, "no difference shown"),
        (0.1, 0.2, "no difference shown"),
        (0.1, 0.1, "no difference shown"),
        (0.1, None, "not measured"),
        (None, None, "not measured"),
    ],
)
def test_a_verdict_needs_an_interval_off_zero(mean, half_width, expected):
    assert study_numbers.verdict(mean, half_width) == expected


def test_clean_training_cosines_are_with_centred_class_means(tmp_path):
    folder = write_curves(tmp_path / "a", "none", 0)
    (run,) = read_experiment(tmp_path).baseline.runs
    with np.load(folder / "geometry.npz") as arrays:
        weights, means = arrays["weights"][0].tolist(), arrays["train_means"].tolist()
    centre = [sum(column) / len(means) for column in zip(*means, strict=True)]
    for weight, mean, found in zip(weights, means, clean_training_cosines(run), strict=True):
        centred = [x - c for x, c in zip(mean, centre, strict=True)]
        product = sum(w * x for w, x in zip(weight, centred, strict=True))
        expected = product / (math.hypot(*weight) * math.hypot(*centred))
        assert found == pytest.approx(expected, abs=1e-6)


def test_gaps_are_training_side_minus_held_out_by_shot_group(tmp_path):
    ema, held_out = [0.9, 0.8, 0.7, 0.9], [0.8, 0.8, 0.6, 0.6]
    recorded = {"per_class_cosine": ema, "per_class_test_cosine": held_out}
    write_curves(tmp_path / "a", "none", 0, **recorded)
    numbers = study_numbers.train_and_held_out(read_experiment(tmp_path))
    (values,) = numbers["runs"]["none"]
    assert values["cosine_ema"] == pytest.approx(0.825)
    assert values["cosine_held_out"] == pytest.approx(0.7)
    assert values["ema_gap_many"] == pytest.approx(0.1)
    assert values["ema_gap_few"] == pytest.approx(0.3)
    assert values["ema_gap_few_minus_many"] == pytest.approx(0.2)
    counts = read_experiment(tmp_path).baseline.class_counts
    slope = stats.linregress(np.log10(counts), np.subtract(ema, held_out))[0]
    assert values["ema_gap_slope"] == pytest.approx(slope)
    assert values["ema_gap_slope"] < 0


def test_collapse_is_read_at_the_first_epoch_at_zero_training_error_and_at_the_end(tmp_path):
    curves = {
        "train_accuracy": [0.5, 0.9, 1.0, 0.99, 1.0, 1.0],
        "collapse.train.nc3": [0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        "collapse.test.nc4": [0.1, 0.2, 0.3, 0.4, 0.5, 0.9],
    }
    write_curves(tmp_path / "a", "none", 0, curves)
    numbers = study_numbers.neural_collapse(read_experiment(tmp_path))
    (values,) = numbers["runs"]["none"]
    assert values["zero_epoch"] == 3
    assert numbers["differences"]["train_nc3"]["mean"] == pytest.approx(-0.3)
    moments = [values[f"{moment}_train_nc3"] for moment in ("first", "zero", "last")]
    assert moments == [0.6, 0.4, 0.1]
    assert values["last_test_not_nc4"] == pytest.approx(0.1)
    assert values["last_training_error"] == 0


def test_a_run_that_never_fits_its_training_set_says_so(tmp_path):
    write_curves(tmp_path / "a", "none", 0, {"train_accuracy": [0.5] * 6})
    numbers = study_numbers.neural_collapse(read_experiment(tmp_path))
    assert numbers["runs"]["none"][0]["zero_epoch"] is None
    assert numbers["runs"]["none"][0]["zero_train_nc3"] is None
    table = tables_of("neural_collapse", numbers)
    assert "for the first time after epoch none" in table
    assert "| - |" in table


def test_architectures_are_compared_at_the_last_epoch(tmp_path):
    names = ("nc1_over_c", "nc2_etf_means", "nc3")
    for method, change in (("none", 0.0), ("reg", 0.25)):
        for seed in range(2):
            last = {f"collapse.train.{name}": [1.0] * 5 + [0.5 + change] for name in names}
            scalars = {"accuracy": 0.5 + change / 10, "test_mean_cosine": 0.6 + change}
            write_curves(tmp_path / f"{method}{seed}", method, seed, last, **scalars)
    experiment = read_experiment(tmp_path)
    numbers = study_numbers.architectures(experiment)
    assert numbers["runs"]["none"][0]["nc3"] == 0.5
    found = {name: value["mean"] for name, value in numbers["differences"]["reg"].items()}
    expected = {"accuracy": 0.025, "held_out_cosine": 0.25, **dict.fromkeys(names, 0.25)}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value)
    table = tables_of("architectures", numbers)
    assert "| Reg | +2.5 ± 0.0 | " in table
    assert "| +0.250 ± 0.000 | +0.250 ± 0.000 | +0.250 ± 0.000 | +0.250 ± 0.000 |" in table


def test_a_network_is_named_unless_it_is_the_small_convolutional_one(tmp_path):
    small = read_experiment(write_experiment(tmp_path / "small"))
    assert small.title == "Digits-LT, imbalance factor 10"
    assert small.network == "convolutional network"
    for name, words in (("vit", "vision transformer"), ("resnet18", "resnet18")):
        folder = write_experiment(tmp_path / name)
        for path in folder.glob("*/config.json"):
            config = json.loads(path.read_text())
            config["model"] = {"name": name}
            path.write_text(json.dumps(config))
        assert read_experiment(folder).title == f"Digits-LT, imbalance factor 10, {words}"


@pytest.mark.parametrize("module", [study_numbers, names])
def test_examples_of_the_modules_run(module):
    result = doctest.testmod(module)
    assert result.attempted >= 1
    assert result.failed == 0

"""The studies: their pages are those of their records, their numbers those of the runs."""

import json
import math
import re
import statistics as reference

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from studies import study_figures, study_numbers
from studies.build import PAGES, REPOSITORY
from studies.study import STUDIES, study_tables
from studies.study_runs import clean_training_cosines, read_experiment
from tests.refusals import refusal
from tests.studies.made_experiments import tables_of, write_curves, write_experiment


def text_of(name):
    """The record of a study."""
    return (REPOSITORY / f"results/studies_{name}.json").read_text()


def data_sets(*names):
    """The data sets of published records, with an id that says which."""
    return [
        pytest.param(numbers, id=f"{name}: {numbers['title']}")
        for name in names
        for numbers in json.loads(text_of(name))["data_sets"]
    ]


# The published pages and records.


def test_every_study_has_a_page_and_every_page_is_made():
    pages = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "docs/studies").glob("*.md")}
    assert {str(path) for path in pages} <= {*PAGES.values()}
    assert {path.stem for path in pages} >= {*STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_shows_its_figure_its_command_and_no_file_of_a_machine(name):
    page = REPOSITORY / PAGES[name]
    text = page.read_text()
    assert f"]({name}.png)" in text
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert re.findall(r"<!-- table: (\S+) -->", text) == [f"results/studies_{name}.json"]
    assert f"python -m studies.build {name} --runs runs/" in text
    assert json.loads(text_of(name))["study"] == name
    assert not re.search(r"(?<![\w.])/(root|tmp|home|work|Users)\b", text + text_of(name))
    for part in ("**Question.**", "**Measured", "**Answer.**", "**Limits.**"):
        assert part in text


@pytest.mark.parametrize("numbers", data_sets(*STUDIES))
def test_runs_are_of_three_seeds_or_more_and_all_different(numbers):
    seeds = list(numbers["seeds"].values())
    assert all(found == seeds[0] and len({*found}) >= 3 for found in seeds)
    sums = [checksum for found in numbers["params_checksums"].values() for checksum in found]
    assert len({*sums}) == len(sums) == sum(len(found) for found in seeds)
    assert {method: len(runs) for method, runs in numbers["runs"].items()} == {
        method: len(found) for method, found in numbers["seeds"].items()
    }


@pytest.mark.parametrize("numbers", data_sets(*STUDIES))
def test_published_means_and_deviations_are_those_of_the_seeds(numbers):
    checked = 0
    for method, columns in numbers["statistics"].items():
        for name, found in columns.items():
            values = [run[name] for run in numbers["runs"][method]]
            if None in values:
                assert found == {"mean": None, "std": None}
                continue
            assert found["mean"] == pytest.approx(reference.mean(values), abs=1e-9)
            assert found["std"] == pytest.approx(reference.stdev(values), abs=1e-9)
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize(
    "numbers", data_sets("alignment_and_accuracy", "nc2_convergence", "architectures")
)
def test_published_differences_are_those_of_the_paired_t_test(numbers):
    checked = 0
    for method, columns in numbers["differences"].items():
        for name, found in columns.items():
            later, base = ([run[name] for run in numbers["runs"][m]] for m in (method, "none"))
            if None in later + base:
                assert found == {"mean": None, "half_width": None}
                continue
            assert_interval(found, stats.ttest_rel(later, base), np.subtract(later, base))
            checked += 1
    assert checked >= 12


@pytest.mark.parametrize("numbers", data_sets("neural_collapse"))
def test_published_collapse_after_zero_training_error_is_that_of_the_seeds(numbers):
    runs = numbers["runs"]["none"]
    assert len(set(numbers["class_counts"])) == 1
    for run in runs:
        assert run["last_training_error"] == 0
        for name in ("nc1_over_c", "nc2_etf_means", "nc2_equiangular_means", "nc3"):
            assert (
                run[f"last_train_{name}"] < run[f"zero_train_{name}"] < run[f"first_train_{name}"]
            )
    for name, found in numbers["differences"].items():
        later, base = ([run[f"{moment}_{name}"] for run in runs] for moment in ("last", "zero"))
        if np.ptp(np.subtract(later, base)) > 0:
            assert_interval(found, stats.ttest_rel(later, base), np.subtract(later, base))


@pytest.mark.parametrize("numbers", data_sets("train_and_held_out"))
def test_published_gaps_are_those_of_the_classes(numbers):
    counts = np.array(numbers["class_counts"])
    order = np.argsort(-counts, kind="stable")
    k = max(1, math.floor(0.3 * len(counts)))
    for method, columns in numbers["intervals"].items():
        runs = numbers["classes"][method]
        for side in ("ema", "training"):
            gaps = np.array([np.subtract(run[side], run["held_out"]) for run in runs])
            many, few = gaps[:, order[:k]].mean(axis=1), gaps[:, order[-k:]].mean(axis=1)
            slopes = [stats.linregress(np.log10(counts), gap)[0] for gap in gaps]
            expected = {"many": many, "few": few, "few_minus_many": few - many, "slope": slopes}
            for part, values in expected.items():
                found = columns[f"{side}_gap_{part}"]
                assert_interval(found, stats.ttest_1samp(values, 0.0), np.asarray(values))


def assert_interval(found, test, differences):
    interval = test.confidence_interval(0.95)
    assert found["mean"] == pytest.approx(differences.mean(), abs=1e-9)
    assert found["mean"] - found["half_width"] == pytest.approx(interval.low, abs=1e-7)
    assert found["mean"] + found["half_width"] == pytest.approx(interval.high, abs=1e-7)


# From runs to tables and figures.


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """Two data sets."""
    root = tmp_path_factory.mktemp("experiments")
    write_experiment(root / "one", methods=("proj", "reg", "none"))
    write_experiment(root / "two", seeds=(0, 1), methods=("none", "reg"))
    return [read_experiment(root / name) for name in ("one", "two")]


PANELS = {
    "alignment_and_accuracy": 6,
    "nc2_convergence": 8,
    "train_and_held_out": 5,  # of three methods and of two
    "neural_collapse": 12,
    "architectures": 8,
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_measures_draws_and_tabulates_every_data_set(experiments, name):
    found = [getattr(study_numbers, name)(experiment) for experiment in experiments]
    figure = getattr(study_figures, name)(experiments, found)
    assert len(figure.axes) == PANELS[name]
    described = [
        experiment.describe() | numbers
        for experiment, numbers in zip(experiments, found, strict=True)
    ]
    record = {"study": name, "date": "2026-01-31", "data_sets": described}
    json.dumps(record, allow_nan=False)
    text = study_tables(record)
    assert text.count("**Digits-LT, imbalance factor 10**") == 2
    assert re.findall(r"seeds ([0-9, ]+);", text) == ["0, 1, 2", "0, 1"]


def test_methods_come_in_the_order_of_every_table_the_baseline_first(experiments):
    assert list(experiments[0].groups) == ["none", "reg", "proj"]


def test_points_of_a_figure_are_the_differences_of_its_table(experiments):
    found = [study_numbers.alignment_and_accuracy(experiment) for experiment in experiments]
    figure = study_figures.alignment_and_accuracy(experiments, found)
    assert isinstance(figure, Figure)
    points = {line.get_label(): line for line in figure.axes[2].get_lines()}["Reg \u2212 none"]
    differences = found[0]["differences"]["reg"]
    for values, name, scale in (
        (points.get_xdata(), "held_out_cosine", 1),
        (points.get_ydata(), "accuracy", 100),
    ):
        assert np.mean(np.asarray(values)) == pytest.approx(scale * differences[name]["mean"])
    tables = tables_of("alignment_and_accuracy", found[0])
    _, row = (line for line in tables.splitlines() if line.startswith("| Reg |"))
    mean, half = (100 * differences["accuracy"][part] for part in ("mean", "half_width"))
    assert row.split("|")[2].strip() == f"{mean:+.1f} ± {half:.1f}"


# What is refused.


def test_runs_without_neural_collapse_are_refused(tmp_path):
    write_experiment(tmp_path, collapse=False)
    message = refusal(read_experiment, tmp_path)
    assert "epochs without neural collapse" in message
    assert "--config.logging.collapse=True" in message


def test_runs_that_differ_in_more_than_method_and_seed_are_refused(tmp_path):
    write_experiment(tmp_path)
    config = json.loads((tmp_path / "none0" / "config.json").read_text())
    config["optimizer"]["learning_rate"] = 0.5
    (tmp_path / "none0" / "config.json").write_text(json.dumps(config))
    message = refusal(read_experiment, tmp_path)
    assert "differ in optimizer.learning_rate" in message
    assert "a folder for each data set" in message


def test_seeds_without_their_partner_are_refused(tmp_path):
    write_experiment(tmp_path, seeds=(0, 1))
    write_curves(tmp_path / "none2", "none", 2)
    message = refusal(read_experiment, tmp_path)
    assert "reg has seeds [0, 1] and none has [0, 1, 2], 2 of them on the same split" in message


def test_an_unfinished_run_is_waited_for(tmp_path):
    write_experiment(tmp_path)
    (tmp_path / "reg1" / "summary.json").unlink()
    message = refusal(read_experiment, tmp_path)
    assert f"{tmp_path / 'reg1'} is not finished" in message


def test_a_run_without_geometry_has_no_clean_training_cosines(tmp_path):
    write_curves(tmp_path / "a", "none", 0, geometry=False)
    (run,) = read_experiment(tmp_path).baseline.runs
    assert "has no geometry.npz" in refusal(clean_training_cosines, run)


def test_of_two_classifiers_one_is_chosen(tmp_path):
    heads = ("fc/kernel", "fc_cb/kernel")
    write_curves(tmp_path / "both", "none", 0, heads=heads)
    (run,) = read_experiment(tmp_path).baseline.runs
    message = refusal(clean_training_cosines, run)
    assert "fc/kernel, fc_cb/kernel" in message
    assert "--config.spa.classifier" in message
    run.summary["heads"] = {"fc_cb/kernel": {}}
    chosen = clean_training_cosines(run)
    run.summary["heads"] = {"fc/kernel": {}}
    assert not np.allclose(chosen, clean_training_cosines(run))


def test_classes_of_one_size_have_no_rare_ones(tmp_path):
    write_experiment(tmp_path, counts=(7, 7, 7, 7))
    experiment = read_experiment(tmp_path)
    assert experiment.title == "Digits, balanced"
    message = refusal(study_numbers.train_and_held_out, experiment)
    assert "All classes" in message
    assert "7 training images" in message

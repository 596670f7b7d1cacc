"""The studies: their pages are those of their records, their numbers those of the runs."""

import doctest
import json
import math
import re
import statistics as reference

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from benchmarks import studies, study_numbers
from benchmarks.studies import REPOSITORY, STUDIES, make_study, with_studies
from benchmarks.study_figures import draw_alignment_and_accuracy
from benchmarks.study_pages import section
from benchmarks.study_runs import clean_training_cosines, read_experiment
from tests.dynamics.report_runs import write_run
from tests.refusals import refusal

PAGES = REPOSITORY / "docs/studies"
RECORDS = REPOSITORY / "results"


def record_of(name):
    return json.loads((RECORDS / f"studies_{name}.json").read_text())


def data_sets(*names):
    """The data sets of published records, with an id that says which."""
    return [
        pytest.param(numbers, id=f"{name}: {numbers['title']}")
        for name in names
        for numbers in record_of(name)["data_sets"]
    ]


# The published pages and records.


def test_every_study_has_a_page_with_the_tables_of_its_record():
    assert {path.stem for path in PAGES.glob("*.md")} == {*STUDIES}
    for name in STUDIES:
        text = (PAGES / f"{name}.md").read_text()
        assert re.findall(r"<!-- study: (\S+) -->", text) == [name]
        assert with_studies(text, RECORDS) == text
        assert record_of(name)["study"] == name


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_shows_its_figure_its_command_and_no_file_of_a_machine(name):
    text = (PAGES / f"{name}.md").read_text()
    assert f"]({name}.png)" in text
    assert (PAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"python -m benchmarks.studies {name} --runs runs/" in text
    published = text + (RECORDS / f"studies_{name}.json").read_text()
    assert not re.search(r"(?<![\w.])/(root|tmp|home|work|Users)\b", published)
    assert all(
        part in text for part in ("**Question.**", "**Measured", "**Answer.**", "**Limits.**")
    )


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


@pytest.mark.parametrize("numbers", data_sets("alignment_and_accuracy", "nc2_convergence"))
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


# The numbers that are made of runs.


def write_curves(folder, method, seed, curves=None, **options):
    """A run whose lines hold the given curves, by dotted names."""
    write_run(folder, {"spa.method": method, "seed": seed}, **options)
    summary = json.loads((folder / "summary.json").read_text())
    summary["split"] = {"imbalance_factor": 10.0}
    summary["hardware"] = {"platform": "cpu", "cpu_count": 2}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    for path, values in (curves or {}).items():
        *groups, name = path.split(".")
        for entry, value in zip(lines, values, strict=True):
            for group in groups:
                entry = entry[group]
            entry[name] = value
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return folder


def write_experiment(root, seeds=(0, 1, 2), methods=("none", "reg"), **options):
    """Runs of some methods and seeds with accuracies and cosines of their own."""
    for m, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng([m, seed])
            accuracy, cosine = rng.uniform(0.5, 0.9), rng.uniform(0.6, 0.9)
            train = [*np.linspace(0.4, 0.9, 3), 1.0, 0.95, 1.0]
            write_curves(
                root / f"{method}{seed}",
                method,
                seed,
                {"train_accuracy": train},
                accuracy=accuracy,
                test_mean_cosine=cosine,
                per_class_cosine=rng.uniform(0.5, 1, 4).tolist(),
                per_class_test_cosine=rng.uniform(0.5, 1, 4).tolist(),
                **options,
            )
    return root


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
    table = section({"study": "nc2_convergence", "date": "", "data_sets": [published(numbers)]})
    assert "| -0.300 ± 0.000 | -0.117 ± 0.000 | -1.0 ± 0.0 | helps |" in table
    assert "| 0 of 2 get there | hinders |" in table


def published(numbers):
    """Numbers with what a record adds."""
    origin = {"title": "Set", "training_images": 85, "epochs": 6, "seeds": {"none": [0, 1]}}
    machine = {"jax": "0", "hardware": {"cpu_count": 2, "platform": "cpu"}}
    return origin | machine | {"split_checksum": "0" * 64} | numbers


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
    table = section({"study": "neural_collapse", "date": "", "data_sets": [published(numbers)]})
    assert "for the first time after epoch none" in table
    assert "| - |" in table


# The command.


@pytest.mark.parametrize("name", STUDIES)
def test_the_command_writes_record_figure_and_page(tmp_path, name, capsys):
    write_experiment(tmp_path / "runs")
    page = tmp_path / "pages" / f"{name}.md"
    page.parent.mkdir()
    page.write_text(f"Before\n\n<!-- study: {name} -->\n\n<!-- end -->\n\nAfter\n")
    folders = ["--records", str(tmp_path / "results"), "--pages", str(page.parent)]
    assert studies.main([name, *folders]) == 0
    assert "Not run yet." in page.read_text()
    assert studies.main([name, "--runs", str(tmp_path / "runs"), *folders]) == 0
    text = page.read_text()
    assert text.startswith("Before\n")
    assert text.endswith("\nAfter\n")
    assert "**Digits-LT, imbalance factor 10**" in text
    assert "85 training images, 6 epochs, seeds 0, 1, 2;" in text
    record = (tmp_path / "results" / f"studies_{name}.json").read_text()
    assert str(tmp_path) not in record
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert studies.main([name, *folders]) == 0
    assert page.read_text() == text
    assert "Page:" in capsys.readouterr().out


def test_two_data_sets_are_two_rows_of_panels_and_two_tables(tmp_path):
    for name in ("one", "two"):
        write_experiment(tmp_path / name, methods=("proj", "reg", "none"))
    record = tmp_path / "record.json"
    folders = [tmp_path / "one", tmp_path / "two"]
    make_study("alignment_and_accuracy", folders, record, tmp_path / "figure.png")
    text = section(json.loads(record.read_text()))
    assert text.count("| minus none |") == 2
    assert text.index("| none |") < text.index("| Reg |") < text.index("| Proj |")
    experiments = [read_experiment(folder) for folder in folders]
    found = [study_numbers.alignment_and_accuracy(one) for one in experiments]
    figure = draw_alignment_and_accuracy(experiments, found)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 6
    points = {line.get_label(): line for line in figure.axes[2].get_lines()}["Reg \u2212 none"]
    differences = found[0]["differences"]["reg"]
    assert np.mean(np.asarray(points.get_xdata())) == pytest.approx(
        differences["held_out_cosine"]["mean"]
    )
    assert np.mean(np.asarray(points.get_ydata())) == pytest.approx(
        100 * differences["accuracy"]["mean"]
    )


def test_examples_of_the_modules_run():
    result = doctest.testmod(study_numbers)
    assert result.attempted >= 3
    assert result.failed == 0


# What is refused.


def test_a_study_needs_its_methods(tmp_path, capsys):
    write_experiment(tmp_path, methods=("none", "proj"))
    assert studies.main(["nc2_convergence", "--runs", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path} has no finished run with spa.method reg, only with none, proj" in message
    assert "--methods=none,reg,proj" in message


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

"""Means, deviations and paired differences, against the standard library and scipy."""

import statistics as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from spa_jax.reporting.statistics import COLUMNS, column_value, paired_differences, statistics

ONE = {"accuracy": ("test_accuracy", "last")}
accuracies = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=2, max_size=6)


def summaries(values):
    return [{"test_accuracy": {"last": value}} for value in values]


@given(accuracies)
def test_mean_and_sample_deviation_are_those_of_the_standard_library(values):
    found = statistics(summaries(values), ONE)["accuracy"]
    assert found["mean"] == pytest.approx(reference.mean(values), abs=1e-12)
    assert found["std"] == pytest.approx(reference.stdev(values), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=6))
def test_the_interval_of_differences_is_that_of_the_paired_t_test(pairs):
    runs, baseline = ([value / 1000 for value in side] for side in zip(*pairs, strict=True))
    sides = zip(summaries(runs), summaries(baseline), strict=True)
    found = paired_differences(list(sides), ONE)["accuracy"]
    differences = [run - base for run, base in zip(runs, baseline, strict=True)]
    mean, half_width = found["mean"], found["half_width"]
    assert mean is not None
    assert half_width is not None
    assert mean == pytest.approx(reference.mean(differences), abs=1e-12)
    if reference.stdev(differences) < 1e-9:
        assert half_width == pytest.approx(0, abs=1e-9)
        return
    interval = ttest_rel(runs, baseline).confidence_interval(0.95)
    assert mean - half_width == pytest.approx(interval.low, abs=1e-9)
    assert mean + half_width == pytest.approx(interval.high, abs=1e-9)


def test_what_a_run_does_not_have_is_null():
    runs = [*summaries([0.5]), {"test_accuracy": {"last": None}}]
    assert statistics(runs, ONE)["accuracy"] == {"mean": None, "std": None}
    nothing = {"mean": None, "half_width": None}
    assert paired_differences([(run, run) for run in runs], ONE)["accuracy"] == nothing
    assert paired_differences([], ONE)["accuracy"] == nothing
    assert statistics(summaries([0.5]), ONE)["accuracy"] == {"mean": 0.5, "std": None}
    one = paired_differences([tuple(summaries([0.5, 0.25]))], ONE)["accuracy"]
    assert one == {"mean": 0.25, "half_width": None}


def test_a_column_that_a_summary_lacks_is_none_at_every_depth():
    assert column_value({}, ("test_accuracy", "last")) is None
    assert column_value({"test_accuracy": {}}, ("test_accuracy", "last")) is None
    assert column_value({"test_accuracy": 0.5}, ("test_accuracy", "last")) is None
    assert list(statistics([{}])) == list(COLUMNS)

"""The figures show what the records say."""

import matplotlib
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from spa_jax.reporting.figures.style import RC
from spa_jax.reproduction.tables import TABLES
from studies.reproduction.pairing import TableRuns
from studies.reproduction.reproduction_figures import (
    FIGURES,
    differences_figure,
    epochs_figure,
    gamma_figure,
    imbalance_figure,
)
from tests.studies.made_records import record_of

CELLS = TABLES["fashion_mnist"].cells([])


@pytest.fixture(autouse=True)
def figure_style():
    with matplotlib.rc_context(RC):
        yield


def records_of(wanted, change):
    """Three seeds a group; `change(cell)` is what it adds to 0.8."""
    jitter = (0.001, -0.001, 0.0)
    records = []
    for cell in CELLS:
        if cell.stage != "tune" and cell.seed < 3 and wanted(cell):
            noise = 0.0 if cell.spa_method == "none" else jitter[cell.seed]
            records.append(record_of(cell, 0.8 + change(cell) + noise))
    return records


def runs(records):
    return TableRuns("fashion_mnist", records)


def points(axes):
    """Of each error bar: label, positions and half widths of the intervals, in data units."""
    found = {}
    for bars in axes.containers:
        assert isinstance(bars, ErrorbarContainer)
        line, _, (collection,) = bars
        ends = np.array(list(collection.get_segments()))
        found[bars.get_label()] = line.get_xydata(), np.ptp(ends, axis=1).max(axis=1) / 2
    return found


def test_a_point_is_the_mean_of_its_pairs_and_its_bar_the_interval():
    place = {"proj": 0.02, "reg": -0.01}

    def wanted(cell):
        return (cell.class_order, cell.imbalance_factor) == ("reversed", 100.0)

    records = records_of(wanted, lambda cell: place.get(cell.spa_method, 0.0))
    figure = differences_figure(runs(records))
    found = points(figure.axes[0])
    assert list(found) == ["Reg", "SLERP", "Proj"]
    half = 100 * 0.001 * 4.302653 / np.sqrt(3)  # Student's t with two degrees of freedom
    for name, x in (("Reg", -1.0), ("SLERP", 0.0), ("Proj", 2.0)):
        where, halves = found[name]
        np.testing.assert_allclose(where[:, 0], x, atol=1e-9)
        np.testing.assert_allclose(halves, half, rtol=1e-5)
        assert len(where) == 5


def test_strengths_are_on_the_axis_by_their_value():
    base = records_of(lambda cell: cell.group_name == "final-glmc-none-if100-reversed", lambda c: 0)
    of_gamma = records_of(
        lambda cell: cell.variant.startswith("gamma="),
        lambda cell: float(cell.variant.partition("=")[2]) / 100,
    )
    ((where, _),) = points(gamma_figure(runs(base + of_gamma)).axes[0]).values()
    np.testing.assert_allclose(where, [(g, g) for g in (0.1, 0.3, 0.5, 0.7, 0.9)], atol=1e-9)
    assert gamma_figure(runs(base + of_gamma[:3])) is None  # one value is no curve

    of_factor = records_of(
        lambda c: c.stage == "final" and c.method == "glmc" and c.spa_method in ("none", "proj"),
        lambda c: c.imbalance_factor / 10_000 if c.spa_method == "proj" else 0.0,
    )
    ((where, _),) = points(imbalance_figure(runs(of_factor)).axes[0]).values()
    factors = np.array([10, 20, 50, 100, 200, 500.0])
    np.testing.assert_allclose(where, np.stack([factors, factors / 100], 1), atol=1e-9)


def test_curves_are_of_both_or_of_none():
    names = {"final-glmc-none-if100-reversed": "a", "final-glmc-proj-tuned-if100-reversed": "b"}
    records = [
        record | {"curves": {"test_accuracy": [0.1, 0.2], "test_mean_cosine": [0.3, 0.4]}}
        for record in records_of(lambda cell: cell.group_name in names, lambda cell: 0.0)
    ]
    left, right = epochs_figure(names, runs(records)).axes
    for line in left.lines:
        np.testing.assert_allclose(line.get_xydata(), [(1, 10), (2, 20)])
    for line in right.lines:
        np.testing.assert_allclose(line.get_xydata(), [(1, 0.3), (2, 0.4)])
    assert epochs_figure(names, runs(records[:3])) is None


def test_without_records_there_are_no_figures():
    assert [draw(TableRuns(table, [])) for table, draw in FIGURES.values()] == [None] * 5

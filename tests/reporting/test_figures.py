"""What the figures of a report show, read back from their lines, points and cells."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from spa_jax.report import words
from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.classes import draw_angle_by_class_size
from spa_jax.reporting.figures.epochs import (
    draw_alignment,
    draw_collapse,
    draw_equinorm_equiangular,
)
from spa_jax.reporting.figures.gram_matrices import draw_gram_matrices
from spa_jax.reporting.figures.strengths import draw_sweeps
from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import group_runs
from tests.reporting.made_runs import COLLAPSE, lines_of, one_group, write_run

pytestmark = pytest.mark.usefixtures("figure_style")


def test_alignment_shows_means_over_seeds_and_a_band_of_one_deviation(groups):
    (drawing,) = draw_alignment(groups)
    panels = drawing.figure.axes
    accuracy = lines_of(panels[2])["spa.method=reg"]
    np.testing.assert_array_equal(accuracy.get_xdata(), np.arange(1, 7))
    shares = np.arange(1, 7) / 6
    np.testing.assert_allclose(accuracy.get_ydata(), 0.85 * shares)
    band = panels[2].collections[1].get_paths()[0].vertices
    deviation = 0.2 / 2**0.5
    assert band[:, 1].max() == pytest.approx(0.85 + deviation)
    at_end = band[band[:, 0] == 6, 1]
    assert at_end.min() == pytest.approx(0.85 - deviation)
    np.testing.assert_allclose(lines_of(panels[0])["spa.method=none"].get_ydata(), 0.9 * shares)
    np.testing.assert_allclose(lines_of(panels[1])["spa.method=none"].get_ydata(), 0.8 * shares)
    path = panels[3].get_lines()[0]
    np.testing.assert_allclose(path.get_xdata(), 0.8 * shares)
    np.testing.assert_allclose(path.get_ydata(), 0.75 * shares)


def test_null_leaves_a_gap_and_no_cosine_at_all_leaves_the_figure_out(tmp_path):
    (group,) = one_group(tmp_path / "a")
    group.runs[0].lines[2]["mean_cosine"] = None
    (drawing,) = draw_alignment([group])
    values = drawing.figure.axes[0].get_lines()[0].get_ydata()
    assert np.isnan(values).tolist() == [False, False, True, False, False, False]
    assert not drawing.figure.legends  # one curve needs none
    for line in group.runs[0].lines:
        line |= {"mean_cosine": None, "test_mean_cosine": None}
    assert list(draw_alignment([group])) == []


def test_epochs_that_were_not_evaluated_leave_no_gap(tmp_path):
    (group,) = one_group(tmp_path / "a")
    for line in group.runs[0].lines[::2]:
        del line["test_accuracy"], line["test_mean_cosine"], line["mean_cosine"]
    (drawing,) = draw_alignment([group])
    accuracy = drawing.figure.axes[2].get_lines()[0]
    np.testing.assert_array_equal(accuracy.get_xdata(), [2, 4, 6])
    np.testing.assert_allclose(accuracy.get_ydata(), 0.8 * np.array([2, 4, 6]) / 6)


def test_collapse_has_a_row_for_training_and_one_for_held_out_features(groups):
    (drawing,) = draw_collapse(groups)
    panels = np.reshape(drawing.figure.axes, (2, 4))
    shares = np.arange(1, 7) / 6
    for column, name in enumerate(("nc1_over_c", "nc2_etf_means", "nc3")):
        desired = COLLAPSE[name] / shares
        for row, factor in ((0, 1.0), (1, 1.3)):
            line = lines_of(panels[row, column])["spa.method=reg"]
            np.testing.assert_allclose(line.get_ydata(), factor * desired, rtol=1e-12)
    np.testing.assert_allclose(panels[0, 3].get_lines()[0].get_ydata(), 0.9 * shares)
    assert panels[0, 0].get_yscale() == "log"
    assert panels[0, 1].get_yscale() == "linear"
    (legend,) = drawing.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["spa.method=none", "spa.method=reg"]


def test_the_parts_of_nc2_are_those_of_means_above_and_of_weights_below(groups):
    (drawing,) = draw_equinorm_equiangular(groups)
    panels = np.reshape(drawing.figure.axes, (2, 3))
    for row, rows in enumerate(("means", "weights")):
        for column, name in enumerate(("equinorm", "equiangular", "etf")):
            last = panels[row, column].get_lines()[0].get_ydata()[-1]
            assert last == pytest.approx(COLLAPSE[f"nc2_{name}_{rows}"])


def test_nc1_is_averaged_as_a_logarithm():
    axes = style.panels(1, 1, 2)[1][0, 0]
    values = np.array([[1.0, 0.0], [49.0, 1.0]])
    style.draw_band_curve(axes, [1, 2], values.T, {"color": "black"}, logarithmic=True)
    mean = axes.get_lines()[0].get_ydata()
    assert mean[0] == pytest.approx(7)
    assert np.isnan(mean[1])
    spread = np.exp(np.std([0, np.log(49)], ddof=1))
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(7 * spread)


def test_without_collapse_and_geometry_their_figures_are_absent(tmp_path):
    groups = one_group(tmp_path / "a", collapse=False, geometry=False)
    for draw in (draw_collapse, draw_equinorm_equiangular, draw_gram_matrices):
        assert list(draw(groups)) == []
    (drawing,) = draw_angle_by_class_size(groups)
    assert "moving averages" in words("angle_by_class_size_caption", drawing.facts)


def test_a_sweep_shows_each_value_and_the_runs_without_alignment(tmp_path):
    runs = [write_run(tmp_path / f"none{s}", {"seed": s}, 0.6 + 0.2 * s) for s in (0, 1)]
    for gamma in (0.8, 0.0, 0.4):
        for seed, accuracy in enumerate((0.5 + gamma / 10, 0.7 + gamma / 10)):
            change = {"spa.method": "proj", "spa.proj.gamma": gamma, "seed": seed}
            runs.append(
                write_run(
                    tmp_path / f"{gamma}-{seed}", change, accuracy, test_mean_cosine=0.9 - gamma / 2
                )
            )
    (drawing,) = draw_sweeps(group_runs([read_run(run) for run in runs]))
    assert drawing.name == "sweep_spa_proj_gamma"
    accuracy, cosine = drawing.figure.axes
    curve = lines_of(accuracy)["spa.method=proj"]
    np.testing.assert_array_equal(curve.get_xdata(), [0, 0.4, 0.8])
    np.testing.assert_allclose(curve.get_ydata(), [0.6, 0.64, 0.68])
    band = accuracy.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(0.68 + 0.2 / 2**0.5)
    assert band.min() == pytest.approx(0.6 - 0.2 / 2**0.5)
    np.testing.assert_allclose(lines_of(accuracy)["spa.method=none"].get_ydata(), 0.7)
    np.testing.assert_allclose(lines_of(cosine)["spa.method=proj"].get_ydata(), [0.9, 0.7, 0.5])
    assert accuracy.get_xscale() == "linear"


def test_values_far_apart_have_a_logarithmic_axis_and_two_are_no_sweep(tmp_path):
    rates = [{"optimizer.learning_rate": rate} for rate in (0.001, 0.01, 0.1)]
    runs = [read_run(write_run(tmp_path / str(i), change)) for i, change in enumerate(rates)]
    (drawing,) = draw_sweeps(group_runs(runs))
    assert drawing.figure.axes[0].get_xscale() == "log"
    assert list(draw_sweeps(group_runs(runs[:2]))) == []


def test_curves_differ_without_colour_and_colours_differ_without_hue():
    looks = {(str(style.line_style(i)), style.marker_of(i)) for i in range(36)}
    assert len(looks) == 36
    first = [(str(style.line_style(i)["linestyle"]), style.marker_of(i)) for i in range(6)]
    assert len({dash for dash, _ in first}) == len({marker for _, marker in first}) == 6
    white = [to_rgb(style.line_style(i)["color"]) for i in range(6)]
    assert all(0.2126 * r + 0.7152 * g + 0.0722 * b < 0.7 for r, g, b in white)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 12])
def test_a_grid_has_a_panel_for_each_title_and_labels_at_its_edges(count):
    figure, axes = style.grid([f"panel {i}" for i in range(count)], "x", "y", 1.5)
    assert len(axes) == len(figure.axes) == count
    places = [panel.get_subplotspec() for panel in axes]
    cells = {(place.rowspan.start, place.colspan.start) for place in places}
    assert max(column for _, column in cells) < 4
    for panel, place in zip(axes, places, strict=True):
        row, column = place.rowspan.start, place.colspan.start
        at_the_bottom = (row + 1, column) not in cells
        assert panel.get_xlabel() == ("x" if at_the_bottom else "")
        assert panel.get_ylabel() == ("y" if column == 0 else "")
        assert panel.xaxis.get_tick_params()["labelbottom"] == at_the_bottom

"""What the figures of the classes show, read back from their points and cells."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spa_jax.reporting.figures.classes import (
    draw_angle_by_class_size,
    draw_train_against_held_out,
    mean_angles,
)
from spa_jax.reporting.figures.gram_matrices import (
    block_cosines,
    draw_gram_matrices,
    mean_gram_matrices,
)
from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import group_runs
from tests.reporting.made_runs import lines_of, one_group, titles, write_run

pytestmark = pytest.mark.usefixtures("figure_style")


def reference_angle(a, b):
    """Half the angle has the tangent |a - b| / |a + b| for unit vectors."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def test_angles_are_of_the_weights_and_clean_centred_means_and_of_recorded_cosines(groups):
    mean, spread = mean_angles(groups[0], held_out=False)
    desired = []
    for run in groups[0].runs:
        centred = run.geometry.train_means - run.geometry.train_means.mean(axis=0)
        pairs = zip(run.geometry.weights[0], centred, strict=True)
        desired.append([reference_angle(w, m) for w, m in pairs])
    np.testing.assert_allclose(mean[0], np.mean(desired, axis=0), rtol=1e-5)
    np.testing.assert_allclose(spread[0], np.std(desired, axis=0, ddof=1), rtol=1e-3)
    held_out = [run.summary["per_class_test_cosine"] for run in groups[0].runs]
    desired = np.degrees(np.arccos(held_out)).mean(axis=0)
    np.testing.assert_allclose(mean_angles(groups[0], held_out=True)[0][0], desired)


def test_without_geometry_the_training_angle_is_that_of_the_moving_averages(tmp_path):
    (group,) = one_group(tmp_path / "a", geometry=False)
    mean, spread = mean_angles(group, held_out=False)
    recorded = group.runs[0].summary["per_class_cosine"]
    np.testing.assert_allclose(np.cos(np.radians(mean[0])), recorded)
    assert np.isnan(spread).all()


def test_a_point_stands_at_the_size_of_its_class_with_the_deviation_over_seeds(groups):
    (drawing,) = draw_angle_by_class_size(groups)
    first = drawing.figure.axes[0]
    training, held_out = first.containers
    counts = np.array(groups[0].class_counts)
    np.testing.assert_allclose(held_out[0].get_xdata() / counts, 1, atol=0.05)
    assert (training[0].get_xdata() < held_out[0].get_xdata()).all()
    mean, spread = mean_angles(groups[0], held_out=True)
    np.testing.assert_allclose(held_out[0].get_ydata(), mean[0])
    (bars,) = held_out[2]
    heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, spread[0])
    assert first.get_xscale() == "log"
    assert titles(drawing) == ["spa.method=none", "spa.method=reg"]


def test_training_is_to_the_right_held_out_upwards_by_shot_group(groups):
    (drawing,) = draw_train_against_held_out(groups)
    axes = drawing.figure.axes[1]
    shots = lines_of(axes)
    x, y = (mean_angles(groups[1], held_out)[0][0] for held_out in (False, True))
    for name, labels in (("many", [0]), ("medium", [1, 2]), ("few", [3])):
        points = shots[f"{name}-shot classes"]
        np.testing.assert_allclose(points.get_xdata(), x[labels])
        np.testing.assert_allclose(points.get_ydata(), y[labels])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[1] >= max(x.max(), y.max())


def test_every_head_has_a_panel_of_its_own(tmp_path):
    groups = one_group(tmp_path / "a", heads=("mixed", "balanced"))
    (drawing,) = draw_angle_by_class_size(groups)
    assert titles(drawing) == ["spa.method=none: mixed", "spa.method=none: balanced"]
    (gram,) = draw_gram_matrices(groups)
    rows = {axes.get_ylabel().split("\n")[0] for axes in gram.figure.axes}
    assert {"training means", "held-out means", "weights of mixed", "weights of balanced"} <= rows
    groups = one_group(tmp_path / "b", heads=("mixed", "balanced"), geometry=False)
    (drawing,) = draw_angle_by_class_size(groups)
    assert titles(drawing) == ["spa.method=none: mixed", "spa.method=none: balanced"]


def test_a_head_that_alignment_does_not_act_on_is_not_taken_for_the_one_it_does(tmp_path):
    (group,) = one_group(tmp_path / "a", heads=("other/kernel", "head/kernel"))
    run = group.runs[0]
    for field in ("per_class_cosine", "per_class_test_cosine"):
        run.summary[field] = run.summary[field][1]
    run.summary["heads"] = {"head/kernel": {}}
    centred = run.geometry.train_means - run.geometry.train_means.mean(axis=0)
    desired = [reference_angle(w, m) for w, m in zip(run.geometry.weights[1], centred, strict=True)]
    np.testing.assert_allclose(mean_angles(group, held_out=False)[0], [desired], rtol=1e-5)
    (drawing,) = draw_angle_by_class_size([group])
    assert titles(drawing) == ["spa.method=none"]


def test_a_class_without_a_direction_is_left_out_of_every_figure(tmp_path):
    (group,) = one_group(tmp_path / "a", per_class_test_cosine=[0.9, None, 0.8, 0.7])
    run = group.runs[0]
    run.geometry.train_means[2] = 0
    run.geometry.weights[0, 3] = 0
    assert np.isnan(mean_angles(group, held_out=True)[0][0]).tolist() == [0, 1, 0, 0]
    assert np.isnan(mean_angles(group, held_out=False)[0][0]).tolist() == [0, 0, 1, 1]
    gram = mean_gram_matrices(group)
    assert np.isnan(gram["training means"][2]).all()
    assert np.isnan(gram["weights"][:, 3]).all()
    for drawing in (*draw_angle_by_class_size([group]), *draw_train_against_held_out([group])):
        drawing.figure.draw_without_rendering()


def test_gram_matrices_are_cosines_averaged_over_seeds_largest_class_first(tmp_path):
    counts = (5, 50, 20)
    runs = [read_run(write_run(tmp_path / str(s), {"seed": s}, counts=counts)) for s in range(3)]
    (group,) = group_runs(runs)
    (drawing,) = draw_gram_matrices([group])
    shown = [axes.images[0].get_array() for axes in drawing.figure.axes if axes.images]
    apart = ~np.eye(3, dtype=bool)
    kinds = ("training means", "held-out means", "weights")
    assert list(mean_gram_matrices(group)) == list(kinds)
    for kind, cells in zip(kinds, shown, strict=True):
        desired = np.zeros((3, 3))
        for run in runs:
            geometry = run.geometry
            rows = {"training means": geometry.train_means, "held-out means": geometry.test_means}
            vectors = rows[kind] - rows[kind].mean(axis=0) if kind in rows else geometry.weights[0]
            for i, a in enumerate((1, 2, 0)):
                for j, b in enumerate((1, 2, 0)):
                    desired[i, j] += np.cos(np.radians(reference_angle(vectors[a], vectors[b]))) / 3
        found = mean_gram_matrices(group)[kind]
        np.testing.assert_allclose(found[apart], desired[apart], atol=1e-5)
        assert np.isnan(found[~apart]).all()
        np.testing.assert_array_equal(cells.filled(np.nan), found)


def test_all_gram_matrices_have_one_scale_and_four_columns_a_figure(tmp_path):
    rates = [{"optimizer.learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]
    runs = [read_run(write_run(tmp_path / str(i), change)) for i, change in enumerate(rates)]
    drawings = list(draw_gram_matrices(group_runs(runs)))
    assert [drawing.name for drawing in drawings] == ["gram", "gram_2"]
    assert [len(titles(drawing)) for drawing in drawings] == [4, 1]
    limits = {
        axes.images[0].get_clim()
        for drawing in drawings
        for axes in drawing.figure.axes
        if axes.images
    }
    assert len(limits) == 1


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_a_block_is_the_mean_over_its_pairs_of_different_classes(count, most, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[rng.random(count) < 0.2] = 0
    found = block_cosines(rows, most)
    number = min(count, most)
    assert found.shape == (number, number)
    starts = [i * count // number for i in range(number)] + [count]
    blocks = [range(a, b) for a, b in itertools.pairwise(starts)]
    for i, one in enumerate(blocks):
        for j, other in enumerate(blocks):
            pairs = [
                rows[a] @ rows[b]
                for a in one
                for b in other
                if a != b and rows[a].any() and rows[b].any()
            ]
            desired = np.mean(pairs) if pairs else np.nan
            np.testing.assert_allclose(found[i, j], desired, atol=1e-9)

"""The figures of a run are written whatever its lines hold."""

import struct

import matplotlib.image
import numpy as np
import pytest

from spa_jax.dynamics.plots import plot_alignment_over_epochs, plot_cosine_by_class_size

FIELDS = ("mean_cosine", "test_mean_cosine", "test_accuracy")


def lines(epochs, height=0.5, missing=()):
    """Lines of `metrics.jsonl`; the named fields are null in the first half of the epochs."""
    result = []
    for epoch in range(1, epochs + 1):
        value = height * epoch / epochs
        line = {"epoch": epoch, **dict.fromkeys(FIELDS, value)}
        result.append(line | (dict.fromkeys(missing) if 2 * epoch <= epochs + 1 else {}))
    return result


def png_pixels(path):
    """The pixels of a PNG; its size is that in its header."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (height, width)
    return pixels


def draw_epochs(path, curves):
    plot_alignment_over_epochs(curves, path)
    return png_pixels(path)


CURVES = {
    "one run without a name": {"": [lines(5)]},
    "one run with a name": {"proj": [lines(5)]},
    "one epoch": {"": [lines(1)]},
    "several seeds": {"none": [lines(5), lines(5, 0.6), lines(5, 0.7)]},
    "runs of different length": {"none": [lines(5), lines(3)], "proj": [lines(2), lines(7)]},
    "null at first": {"": [lines(6, missing=FIELDS[:2])]},
    "null in one of two seeds": {"none": [lines(6, missing=FIELDS[:2]), lines(6)]},
    "null throughout": {"": [lines(1, missing=FIELDS[:2])]},
    "more names than styles": {f"method {i}": [lines(4, 0.1 * i)] for i in range(8)},
}


@pytest.mark.parametrize("case", CURVES)
def test_alignment_over_epochs_is_drawn_for(case, tmp_path):
    pixels = draw_epochs(tmp_path / "alignment.png", CURVES[case])
    assert pixels.shape[:2] == (512, 1600)
    assert pixels[..., :3].min() < 0.1 < 0.9 < pixels[..., :3].max()


@pytest.mark.parametrize("field", FIELDS)
def test_every_panel_shows_its_own_field(field, tmp_path):
    """Changing a field changes its third of the figure and no other."""
    base, other = lines(5), [line | {field: line[field] ** 2} for line in lines(5)]
    first = draw_epochs(tmp_path / "first.png", {"": [base]})
    second = draw_epochs(tmp_path / "second.png", {"": [other]})
    changed = np.where((first != second).any(axis=(0, 2)))[0]
    panel = FIELDS.index(field)
    assert 1600 * panel / 3 - 40 <= changed.min() <= changed.max() <= 1600 * (panel + 1) / 3 + 40


def test_null_leaves_a_gap(tmp_path):
    whole = draw_epochs(tmp_path / "whole.png", {"": [lines(6)]})
    gap = draw_epochs(tmp_path / "gap.png", {"": [lines(6, missing=FIELDS[:1])]})
    changed = np.where((whole != gap).any(axis=(0, 2)))[0]
    assert len(changed)
    assert changed.max() < 1600 / 3 + 40


def test_several_seeds_have_a_band_around_their_mean(tmp_path):
    apart = {"none": [lines(5, 0.4), lines(5, 0.6)]}
    equal = {"none": [lines(5, 0.5), lines(5, 0.5)]}
    drawn = {
        name: draw_epochs(tmp_path / f"{name}.png", curves)
        for name, curves in (("apart", apart), ("equal", equal))
    }
    shades = {name: ((0.7 < p[..., 0]) & (p[..., 0] < 0.95)).sum() for name, p in drawn.items()}
    assert shades["apart"] > shades["equal"] + 10_000


@pytest.mark.parametrize("counts", [(5, 50), (7, 7), (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)])
def test_cosine_by_class_size_is_drawn_for_few_classes(counts, tmp_path):
    cosines = np.linspace(0.2, 0.9, len(counts))
    names = [f"class {i}" for i in range(len(counts))]
    plot_cosine_by_class_size(counts, cosines, cosines / 2, names, tmp_path / "cosine.png")
    pixels = png_pixels(tmp_path / "cosine.png")
    assert pixels.shape[:2] == (576, 832)
    assert pixels[..., :3].min() < 0.1 < 0.9 < pixels[..., :3].max()


def test_cosine_by_class_size_is_drawn_for_a_hundred_classes(tmp_path):
    cosines = np.linspace(-1, 1, 100)
    names = [""] * 100
    plot_cosine_by_class_size(range(100, 0, -1), cosines, cosines, names, tmp_path / "cosine.png")
    assert png_pixels(tmp_path / "cosine.png").shape[:2] == (576, 832)


@pytest.mark.parametrize("missing", [slice(0, 1), slice(0, 3)])
def test_cosine_by_class_size_is_drawn_without_the_classes_that_have_no_cosine(missing, tmp_path):
    cosines = np.array([0.5, 0.2, -0.1])
    cosines[missing] = np.nan
    path = tmp_path / "cosine.png"
    plot_cosine_by_class_size((9, 5, 2), cosines, cosines, ("a", "b", "c"), path)
    assert png_pixels(path).shape[:2] == (576, 832)

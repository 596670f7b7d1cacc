"""The figures of a run are written whatever its lines hold."""

import struct

import matplotlib.image
import numpy as np
import pytest

from spa_jax.data.splits.profiles import exponential_profile
from spa_jax.reporting.figures.run_plots import (
    plot_alignment_over_epochs,
    plot_cosine_by_class_size,
)

FIELDS = ("mean_cosine", "test_mean_cosine", "test_accuracy")


def lines(epochs, height=0.5, **changes):
    """Lines of `metrics.jsonl` that rise to `height`; `changes` holds for the middle epochs."""
    values = [height * epoch / epochs for epoch in range(1, epochs + 1)]
    result = [{"epoch": i, **dict.fromkeys(FIELDS, x)} for i, x in enumerate(values, start=1)]
    for line in result[epochs // 3 : epochs - epochs // 3]:
        line |= changes
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


NO_COSINES = dict.fromkeys(FIELDS[:2])
CURVES = {
    "one run without a name": {"": [lines(5)]},
    "several seeds": {"none": [lines(5), lines(5, 0.6), lines(5, 0.7)]},
    "runs of different length": {"none": [lines(5), lines(3)], "proj": [lines(2), lines(7)]},
    "null in one of two seeds": {"none": [lines(6, **NO_COSINES), lines(6)]},
    "one epoch, null": {"": [lines(1, **NO_COSINES)]},
    "more names than styles": {f"method {i}": [lines(4, 0.1 * i)] for i in range(8)},
}


@pytest.mark.parametrize("case", CURVES)
def test_alignment_over_epochs_is_drawn_for(case, tmp_path):
    pixels = draw_epochs(tmp_path / "alignment.png", CURVES[case])
    assert pixels.shape[:2] == (512, 1600)
    assert pixels[..., :3].min() < 0.1 < 0.9 < pixels[..., :3].max()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The figure of one run of six epochs."""
    return draw_epochs(tmp_path_factory.mktemp("plain") / "plain.png", {"": [lines(6)]})


@pytest.mark.parametrize(
    ("field", "value"), [("mean_cosine", None), ("test_mean_cosine", 0.1), ("test_accuracy", 0.1)]
)
def test_every_field_has_its_third_of_the_figure_where_null_leaves_a_gap(
    field, value, plain, tmp_path
):
    pixels = draw_epochs(tmp_path / "changed.png", {"": [lines(6, **{field: value})]})
    changed = np.where((pixels != plain).any(axis=(0, 2)))[0]
    panel = FIELDS.index(field)
    assert 1600 * panel / 3 < changed.min() < changed.max() < 1600 * (panel + 1) / 3
    lighter = pixels.mean(dtype=float) > plain.mean(dtype=float)
    assert lighter == (value is None)  # a gap takes ink away, a longer way adds some


def test_several_seeds_have_a_band_around_their_mean(tmp_path):
    apart = {"none": [lines(5, 0.4), lines(5, 0.6)]}
    equal = {"none": [lines(5, 0.5), lines(5, 0.5)]}
    drawn = {
        name: draw_epochs(tmp_path / f"{name}.png", curves)
        for name, curves in (("apart", apart), ("equal", equal))
    }
    shades = {name: ((p[..., 0] > 0.7) & (p[..., 0] < 0.95)).sum() for name, p in drawn.items()}
    assert shades["apart"] > shades["equal"] + 10_000


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("factor", [1.0, 50.0])
def test_cosine_by_class_size_is_drawn(num_classes, factor, tmp_path):
    counts = exponential_profile(500, num_classes, factor)
    cosines = np.linspace(0.2, 0.9, num_classes)
    names = [f"class {i}" for i in range(num_classes)]
    plot_cosine_by_class_size(counts, cosines, cosines / 2, names, tmp_path / "cosine.png")
    pixels = png_pixels(tmp_path / "cosine.png")
    assert pixels.shape[:2] == (576, 832)
    assert pixels[..., :3].min() < 0.1 < 0.9 < pixels[..., :3].max()


@pytest.mark.parametrize("missing", [slice(0, 1), slice(0, 3)])
def test_cosine_by_class_size_is_drawn_without_the_classes_that_have_no_cosine(missing, tmp_path):
    cosines = np.array([0.5, 0.2, -0.1])
    cosines[missing] = np.nan
    path = tmp_path / "cosine.png"
    plot_cosine_by_class_size((9, 5, 2), cosines, cosines, ("a", "b", "c"), path)
    assert png_pixels(path).shape[:2] == (576, 832)

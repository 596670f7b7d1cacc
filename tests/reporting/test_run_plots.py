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
    "one epoch, null": {"": [lines(1, **NO_COSINES)]},
    "seeds of different length, null in one, more names than styles": {
        "none": [lines(5), lines(3)],
        "proj": [lines(2), lines(7), lines(4, 0.7)],
        "reg": [lines(6, **NO_COSINES), lines(6)],
        **{f"method {i}": [lines(4, 0.1 * i)] for i in range(5)},
    },
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


def test_every_field_has_its_third_of_the_figure_where_null_leaves_a_gap(plain, tmp_path):
    changes = {"mean_cosine": None, "test_mean_cosine": 0.1}
    pixels = draw_epochs(tmp_path / "changed.png", {"": [lines(6, **changes)]})
    thirds = zip(np.array_split(pixels, 3, axis=1), np.array_split(plain, 3, axis=1), strict=True)
    lighter = [changed.mean(dtype=float) - before.mean(dtype=float) for changed, before in thirds]
    assert lighter[0] > 0  # a gap takes ink away
    assert lighter[1] < 0  # a longer way adds some
    assert lighter[2] == 0


def test_several_seeds_have_a_band_around_their_mean(plain, tmp_path):
    apart = draw_epochs(tmp_path / "apart.png", {"": [lines(6, 0.4), lines(6, 0.6)]})
    shades = [((image[..., 0] > 0.7) & (image[..., 0] < 0.95)).sum() for image in (plain, apart)]
    assert shades[1] > shades[0] + 10_000


@pytest.mark.parametrize(
    ("num_classes", "factor", "missing"), [(2, 1.0, 0), (3, 9.0, 3), (10, 50.0, 1), (100, 50.0, 0)]
)
def test_cosine_by_class_size_is_drawn_for_the_classes_that_have_one(
    num_classes, factor, missing, tmp_path
):
    counts = exponential_profile(500, num_classes, factor)
    cosines = np.linspace(0.2, 0.9, num_classes)
    cosines[:missing] = np.nan
    names = [f"class {i}" for i in range(num_classes)]
    plot_cosine_by_class_size(counts, cosines, cosines / 2, names, tmp_path / "cosine.png")
    pixels = png_pixels(tmp_path / "cosine.png")
    assert pixels.shape[:2] == (576, 832)
    assert pixels[..., :3].min() < 0.1 < 0.9 < pixels[..., :3].max()

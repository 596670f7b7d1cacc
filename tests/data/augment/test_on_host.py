"""Augmentation on the host: where boxes lie, and what each change does to pixels."""

import io
import itertools
import math
import pickle

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.on_host import (
    center_crop_box,
    color_jitter,
    gaussian_blur,
    random_grey,
    random_resized_crop_box,
    test_image,
    train_image,
)
from tests.data.tiny_jpeg import smooth_image
from tests.refusals import refusal

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


class Scripted(np.random.Generator):
    """A generator whose uniform draws and permutations are given beforehand."""

    def __init__(self, uniforms=(), order=()):
        super().__init__(np.random.PCG64(0))
        self._uniforms = iter(uniforms)
        self._order = order
        self.ranges = []

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return next(self._uniforms)

    def permutation(self, count):
        assert count == len(self._order)
        return np.array(self._order)


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(seed=0, size=48):
    return Image.fromarray(smooth_image(seed, size, size))


def values(image):
    return np.asarray(image, np.float64)


# Boxes

sides = st.integers(1, 700)


@given(sides, sides, st.integers(0, 2**32), st.floats(0.01, 1))
@settings(max_examples=300, deadline=None)
def test_a_random_box_lies_within_the_image_and_has_the_promised_shape(height, width, seed, least):
    box = random_resized_crop_box(rng(seed), height, width, (least, 1.0))
    assert all(isinstance(side, int) for side in box)
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height >= 1
    assert box.width >= 1
    # Rounding moves each side by half a pixel at most.
    low, high = (box.width - 0.5) / (box.height + 0.5), (box.width + 0.5) / (box.height - 0.5)
    assert low <= 4 / 3 + 1e-9
    assert high >= 3 / 4 - 1e-9
    central = (box.top, box.left) == ((height - box.height) // 2, (width - box.width) // 2)
    if not central:  # nor may it be the box that is taken when no other fits
        assert (box.width + 0.5) * (box.height + 0.5) >= least * height * width


def test_share_and_logarithm_of_the_ratio_are_uniform():
    """In an image and a range of shares in which every box fits, so that none is drawn anew."""
    generator = rng(1)
    drawn = [random_resized_crop_box(generator, 2000, 2000, (0.1, 0.5)) for _ in range(4000)]
    boxes = np.array(drawn, float)
    shares = (boxes[:, 2] * boxes[:, 3] / 4e6 - 0.1) / 0.4
    ratios = np.log(boxes[:, 3] / boxes[:, 2]) / math.log(4 / 3) / 2 + 0.5
    tops, lefts = boxes[:, 0] / (2000 - boxes[:, 2]), boxes[:, 1] / (2000 - boxes[:, 3])
    for uniform in (shares, ratios, tops, lefts):
        counts = np.histogram(uniform, 10, (-0.01, 1.01))[0]
        assert counts.sum() == 4000
        np.testing.assert_allclose(counts, 400, atol=100)  # five deviations
    correlations = np.corrcoef([shares, ratios, tops, lefts])
    np.testing.assert_allclose(correlations, np.eye(4), atol=0.08)


def test_the_ratio_is_width_to_height():
    for seed in range(50):
        box = random_resized_crop_box(rng(seed), 500, 500, (0.1, 0.2), (2.0, 3.0))
        assert 1.9 < box.width / box.height < 3.1


def test_every_place_is_reached_the_last_one_too():
    draws = {random_resized_crop_box(rng(i), 4, 4, (0.25, 0.25), (1, 1)) for i in range(200)}
    assert draws == {(top, left, 2, 2) for top in range(3) for left in range(3)}


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 1000, (0, 493, 10, 13)),  # 10 * 4 / 3
        (1000, 10, (493, 0, 13, 10)),  # 10 / (3 / 4)
        (10, 13, (0, 0, 10, 13)),  # the ratio is in range: all of it
    ],
)
def test_where_no_box_fits_it_is_the_largest_central_one(height, width, box):
    assert random_resized_crop_box(rng(), height, width, (50.0, 60.0)) == box


def test_ten_boxes_are_tried():
    """Nine that are far too large, then one that fits; with ten there is none left to try."""
    share_and_ratio = (0.25, 0.0)
    for misses, found in ((9, (50, 50)), (10, (100, 100))):
        generator = Scripted([9.0, 0.0] * misses + [*share_and_ratio])
        box = random_resized_crop_box(generator, 100, 100)
        assert (box.height, box.width) == found
        assert generator.ranges[0] == (0.08, 1.0)
        np.testing.assert_allclose(generator.ranges[1], (math.log(0.75), -math.log(0.75)))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300), st.integers(0, 100))
def test_the_central_box_is_a_square_in_the_middle(height, width, crop, margin):
    box = center_crop_box(height, width, crop + margin, crop)
    assert box.height == box.width
    assert box.height == pytest.approx(min(height, width) * crop / (crop + margin))
    assert box.top + box.height / 2 == pytest.approx(height / 2)
    assert box.left + box.width / 2 == pytest.approx(width / 2)
    assert box.top >= 0
    assert box.left >= 0
    assert box.top + box.height <= height + 1e-9


# Colours

FACTORS = {0: 1.3, 1: 0.5, 2: 1.4}  # brightness, contrast, saturation


def changed(pixels, kind, factor):
    """One change by its formula, on levels that are not rounded in between."""
    grey = pixels @ LUMA
    towards = (np.zeros(()), grey.mean(), grey[..., None])[kind]
    return np.clip(factor * pixels + (1 - factor) * towards, 0, 255)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_jitter_applies_its_three_formulas_in_the_drawn_order(order):
    generator = Scripted([FACTORS[kind] for kind in order], order)
    found = values(color_jitter(generator, photo(), 0.5))
    expected = values(photo())
    for kind in order:
        expected = changed(expected, kind, FACTORS[kind])
    np.testing.assert_allclose(found, expected, atol=4)
    np.testing.assert_allclose(generator.ranges, [(0.5, 1.5)] * 3)


def test_the_order_of_the_changes_is_random():
    orders = []

    class Recording(np.random.Generator):
        def permutation(self, count):
            orders.append(tuple(super().permutation(count).tolist()))
            return np.array(orders[-1])

    for seed in range(60):
        color_jitter(Recording(np.random.PCG64(seed)), photo(size=8), 0.4)
    assert len(orders) == 60
    assert set(orders) == set(itertools.permutations(range(3)))


def test_factors_are_uniform_and_never_negative():
    flat = Image.new("RGB", (1, 1), (100, 100, 100))
    found = [values(color_jitter(rng(i), flat, 2.0))[0, 0, 0] for i in range(2000)]
    counts = np.histogram(np.array(found) / 100, 6, (0, 3))[0]  # the last ends at level 255
    np.testing.assert_allclose(counts, 2000 / 6, atol=80)


def test_a_strength_of_0_changes_nothing_and_draws_nothing():
    image, generator = photo(), rng()
    assert color_jitter(generator, image, 0.0) is image
    assert generator.bit_generator.state == rng().bit_generator.state


def test_grey_is_luma_three_times():
    found = values(random_grey(rng(), photo(), 1.0))
    expected = np.repeat((values(photo()) @ LUMA)[..., None], 3, -1)
    np.testing.assert_allclose(found, expected, atol=0.51)


@pytest.mark.parametrize("change", [random_grey, gaussian_blur])
def test_a_change_happens_with_its_probability(change):
    image = photo(size=8)
    assert all(change(rng(i), image, 0.0) is image for i in range(20))
    happened = sum(change(rng(i), image, 0.2) is not image for i in range(1000))
    assert happened == pytest.approx(200, abs=50)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_gaussian(sigma):
    """Pillow's is a cascade of boxes, hence the tolerance."""
    noise = rng().integers(0, 256, (60, 60, 3), dtype=np.uint8)
    generator = Scripted([sigma])
    found = values(gaussian_blur(generator, Image.fromarray(noise), 1.0))
    expected = scipy.ndimage.gaussian_filter(noise.astype(float), (sigma, sigma, 0))
    assert generator.ranges == [(0.1, 2.0)]
    inner = np.abs(found - expected)[8:-8, 8:-8]
    assert inner.mean() < 0.08 * noise.std()
    assert found[8:-8, 8:-8].std() == pytest.approx(expected[8:-8, 8:-8].std(), rel=0.06)


# Whole examples


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_a_test_image_is_the_centre_of_the_resized_image():
    """Resized first and cut afterwards, as it is usually written."""
    data = jpeg(smooth_image(2, 90, 130))
    found = test_image(data, "a", AugmentOptions(image_size=56, resize=64))
    resized = Image.open(io.BytesIO(data)).resize(
        (round(64 * 130 / 90), 64), Image.Resampling.BILINEAR
    )
    left, top = round((resized.width - 56) / 2), 4
    expected = values(resized)[top : top + 56, left : left + 56]
    assert found.shape == (56, 56, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).mean() < 1.5


def test_a_training_image_is_its_box_resized():
    pixels = smooth_image(5, 100, 140)
    options = AugmentOptions(image_size=32, resize=32, min_area=0.3)
    found = train_image(rng(4), jpeg(pixels), "a", options)
    top, left, height, width = random_resized_crop_box(rng(4), 100, 140, (0.3, 1.0))
    expected = Image.fromarray(pixels[top : top + height, left : left + width])
    expected = values(expected.resize((32, 32), Image.Resampling.BILINEAR))
    assert found.shape == (32, 32, 3)
    assert np.abs(found - expected).mean() < 2


def test_each_option_changes_training_images_and_the_same_generator_gives_the_same():
    data = jpeg(smooth_image(6, 80, 80))
    plain = AugmentOptions(image_size=24, resize=24)
    reference = train_image(rng(2), data, "a", plain)
    np.testing.assert_array_equal(train_image(rng(2), data, "a", plain), reference)
    for change in ({"color_jitter": 0.4}, {"grey": 1.0}, {"blur": 1.0}, {"min_area": 1.0}):
        options = AugmentOptions(**{"image_size": 24, "resize": 24, **change})
        assert not np.array_equal(train_image(rng(2), data, "a", options), reference)


@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_images_are_not_cropped(channels):
    pixels = rng().integers(0, 256, (16, 16, channels), dtype=np.uint8)
    expected = np.broadcast_to(pixels, (16, 16, 3))
    options = AugmentOptions(image_size=16, resize=16)
    np.testing.assert_array_equal(train_image(rng(), pixels, "a", options), expected)
    np.testing.assert_array_equal(test_image(pixels, "a", options), expected)
    grey = AugmentOptions(image_size=16, resize=16, grey=1.0)
    assert np.ptp(train_image(rng(), pixels, "a", grey), axis=-1).max() == 0


def test_a_broken_image_is_named():
    assert "x.jpg" in refusal(train_image, rng(), b"\xff\xd8", "x.jpg", AugmentOptions())
    assert "x.jpg" in refusal(test_image, b"\xff\xd8", "x.jpg", AugmentOptions())


@pytest.mark.parametrize(
    ("field", "wrong", "expected"),
    [
        ("image_size", 0, "at least 1"),
        ("resize", 223, "image_size or more"),
        ("min_area", 0.0, "at least 0.001 and at most 1"),
        ("blur", float("nan"), "at least 0 and at most 1"),
        ("policy", "trivial", "one of none, randaugment, autoaugment_cifar"),
        ("cutout", -1, "at least 0"),
        ("mix", "grid", "one of none, mixup, cutmix"),
    ],
)
def test_an_option_out_of_range_is_named(field, wrong, expected):
    message = refusal(AugmentOptions, **{field: wrong})
    assert f"config.augment.{field} must be {expected}" in message
    assert str(wrong) in message


def test_options_travel_to_workers():
    options = AugmentOptions(color_jitter=0.4, grey=0.2, blur=0.5)
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) != hash(AugmentOptions())

"""Mixup and CutMix against their published definitions, and the distributions of what is drawn."""

import functools
import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.augment.mixing import box_share, cutmix, cutmix_box, mix_coefficient, mixup
from tests.refusals import refusal

DRAWS = 4000


KEYS = jax.random.split(jax.random.key(5), DRAWS)


@functools.cache
def drawn(function, **static):
    """A function of a key and a number, of many keys."""
    function = functools.partial(function, **static)
    return jax.jit(jax.vmap(function, in_axes=(0, None)))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_a_coefficient_is_beta_distributed(alpha):
    coefficients = np.asarray(drawn(mix_coefficient)(KEYS, alpha))
    assert coefficients.dtype == np.float32
    distribution = scipy.stats.beta(alpha, alpha)
    assert scipy.stats.kstest(coefficients, distribution.cdf).pvalue > 1e-3


def test_a_coefficient_stays_in_range_for_the_smallest_alpha():
    coefficients = np.asarray(drawn(mix_coefficient)(KEYS, 1e-3))
    assert np.isfinite(coefficients).all()
    assert (coefficients >= 0).all()
    assert (coefficients <= 1).all()
    assert 0.4 < (coefficients > 0.5).mean() < 0.6


@pytest.mark.parametrize("alpha", [0, 0.0, -1.0, math.nan, math.inf])
def test_an_alpha_that_is_no_positive_number_is_refused(alpha):
    message = refusal(mix_coefficient, jax.random.key(0), alpha)
    assert str(alpha) in message
    assert "positive" in message
    assert "config.augment.mix" in message


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(4, 3, 2), (10,)], ids=["image", "label"])
def test_mixup_is_the_convex_combination(lam, shape):
    image, partner = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    expected = partner.astype(np.float64) + lam * (image.astype(np.float64) - partner)
    found = np.asarray(mixup(jnp.asarray(image), jnp.asarray(partner), lam))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if lam in (0.0, 1.0):
        np.testing.assert_array_equal(found, image if lam else partner)


def boxes_by_centre(height, width, lam, rounding):
    """CutMix's box for every centre: how often each occurs among all of them."""
    counts = Counter()
    ratio = math.sqrt(1 - lam)
    tall, wide = rounding(height * ratio), rounding(width * ratio)
    for y, x in itertools.product(range(height), range(width)):
        top, bottom = max(y - tall // 2, 0), min(y + tall // 2, height)
        left, right = max(x - wide // 2, 0), min(x + wide // 2, width)
        counts[top, bottom, left, right] += 1
    return counts


def box_of(key, lam, height, width, rounding):
    return cutmix_box(key, height, width, lam, rounding)


def draw_boxes(height, width, lam, rounding):
    edges = drawn(box_of, height=height, width=width, rounding=rounding)(KEYS, lam)
    assert all(edge.dtype == jnp.int32 for edge in edges)
    return Counter(zip(*(np.asarray(edge).tolist() for edge in edges), strict=True))


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_box_has_the_published_sides_and_a_uniform_centre(lam, rounding):
    height, width = 18, 7
    rounded = {"floor": math.floor, "ceil": math.ceil}[rounding]
    published = boxes_by_centre(height, width, lam, rounded)
    found = draw_boxes(height, width, lam, rounding)
    assert set(found) <= set(published)
    expected = np.array([published[box] for box in published]) * DRAWS / (height * width)
    counts = np.array([found[box] for box in published])
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom)


def test_the_two_roundings_differ_where_half_a_side_does():
    """18 sqrt(0.1) = 5.7: a side of 5 with 2 pixels either way, or of 6 with 3."""
    sides = {
        rounding: max(bottom - top for top, bottom, *_ in draw_boxes(18, 7, 0.9, rounding))
        for rounding in ("floor", "ceil")
    }
    assert sides == {"floor": 4, "ceil": 6}


def test_another_rounding_is_refused():
    message = refusal(cutmix_box, jax.random.key(0), 8, 8, 0.5, "round")
    assert "floor" in message
    assert "ceil" in message
    assert "round" in message


COMPILED_CUTMIX = jax.jit(cutmix)
EDGES = st.integers(0, 6)


@settings(max_examples=60, deadline=None)
@given(rows=st.tuples(EDGES, EDGES), columns=st.tuples(EDGES, EDGES), dtype=st.booleans())
def test_a_box_comes_from_the_partner_and_the_rest_from_the_image(rows, columns, dtype):
    (top, bottom), (left, right) = sorted(rows), sorted(columns)
    dtype = np.uint8 if dtype else np.float32
    image = np.arange(72).reshape(6, 6, 2).astype(dtype)
    partner = (image + 100).astype(dtype)
    expected = image.copy()
    expected[top:bottom, left:right] = partner[top:bottom, left:right]
    box = (jnp.int32(top), jnp.int32(bottom), jnp.int32(left), jnp.int32(right))
    found = np.asarray(COMPILED_CUTMIX(jnp.asarray(image), jnp.asarray(partner), box))
    np.testing.assert_array_equal(found, expected, strict=True)
    share = (expected == image).all(axis=-1).mean()
    np.testing.assert_allclose(box_share(box, 6, 6), share, rtol=1e-6, atol=1e-6)


def test_a_batch_mixes_with_one_box_or_with_a_box_each():
    images = jnp.arange(3 * 4 * 4).reshape(3, 4, 4, 1).astype(jnp.uint8)
    partners = images + 100
    keys = jax.random.split(jax.random.key(1), 3)
    boxes = jax.jit(jax.vmap(lambda key: cutmix_box(key, 4, 4, 0.5)))(keys)
    each = jax.jit(jax.vmap(cutmix))(images, partners, boxes)
    for i in range(3):
        box = tuple(edge[i] for edge in boxes)
        np.testing.assert_array_equal(each[i], COMPILED_CUTMIX(images[i], partners[i], box))
    top, bottom, left, right = (edge[0] for edge in boxes)
    box = (top, bottom, left, right)
    together = jax.jit(jax.vmap(cutmix, in_axes=(0, 0, None)))(images, partners, box)
    changed = np.asarray(together != images)
    np.testing.assert_array_equal(changed, np.broadcast_to(changed[:1], changed.shape))
    assert changed.any()


def test_the_share_of_whole_and_empty_boxes():
    zero, two, three, five = map(jnp.int32, (0, 2, 3, 5))
    whole, empty = (zero, five, zero, three), (two, two, zero, three)
    assert box_share(whole, 5, 3).dtype == jnp.float32
    assert float(box_share(whole, 5, 3)) == 0.0
    assert float(box_share(empty, 5, 3)) == 1.0

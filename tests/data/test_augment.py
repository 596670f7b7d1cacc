"""Crops and flips against plain NumPy, and randomness that belongs to the example."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.data.augment import random_crop, random_flip
from spa_jax.training.step import Batch, augment
from tests.training.small import small_config

DRAWS = 4000
# Not square, two channels, no two pixels alike and none zero.
IMAGE = np.arange(1, 41, dtype=np.uint8).reshape(5, 4, 2)


def windows(image, padding):
    """Every crop of a zero-padded image, by its top left corner."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), image.dtype)
    padded[padding : padding + height, padding : padding + width] = image
    places = range(2 * padding + 1)
    return {(y, x): padded[y : y + height, x : x + width] for y in places for x in places}


def draw(function, count=DRAWS):
    """What a function of a key gives for many keys."""
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(3), count)))


def counts_of(results, expected):
    """How often each expected image occurs; every result has to be one of them."""
    by_bytes = {image.tobytes(): name for name, image in expected.items()}
    assert len(by_bytes) == len(expected)
    counts = dict.fromkeys(expected, 0)
    for result in results:
        counts[by_bytes[result.tobytes()]] += 1
    return np.array(list(counts.values()))


def assert_uniform(counts):
    """Pearson's statistic is at most five deviations above its mean, the outcomes less one."""
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("padding", [1, 3])
def test_a_crop_is_a_window_of_the_padded_image_at_a_uniform_place(padding):
    crops = draw(lambda key: random_crop(key, jnp.asarray(IMAGE), padding))
    assert crops.dtype == np.uint8
    assert_uniform(counts_of(crops, windows(IMAGE, padding)))


def test_a_crop_without_padding_is_the_image():
    crops = draw(lambda key: random_crop(key, jnp.asarray(IMAGE), 0), count=20)
    np.testing.assert_array_equal(crops, np.broadcast_to(IMAGE, crops.shape), strict=True)


def test_a_flip_mirrors_left_and_right_half_of_the_time():
    flips = draw(lambda key: random_flip(key, jnp.asarray(IMAGE)))
    assert flips.dtype == np.uint8
    assert_uniform(counts_of(flips, {"as it was": IMAGE, "mirrored": IMAGE[:, ::-1]}))


def batch_of(images, positions):
    labels = jnp.zeros(len(images), jnp.int32)
    return Batch(jnp.asarray(images), labels, jnp.asarray(positions, jnp.int32))


@functools.cache
def compiled(padding, flip):
    """`augment` as a function of seed, step and batch."""
    config = small_config(augment__crop_padding=padding, augment__flip=flip)
    return jax.jit(lambda seed, step, batch: augment(jax.random.key(seed), step, batch, config))


def augmented(batch, seed=0, step=7, padding=2, flip=True):
    return np.asarray(compiled(padding, flip)(seed, step, batch))


IMAGES = np.random.default_rng(0).integers(1, 256, (16, 5, 4, 2)).astype(np.uint8)


def test_crop_and_flip_of_an_example_are_drawn_apart():
    many = batch_of(np.broadcast_to(IMAGE, (DRAWS, *IMAGE.shape)), np.arange(DRAWS))
    expected = {}
    for place, window in windows(IMAGE, 1).items():
        expected |= {(place, "as it was"): window, (place, "mirrored"): window[:, ::-1]}
    assert_uniform(counts_of(augmented(many, padding=1), expected))


@pytest.mark.parametrize("devices", [2, 8])
def test_an_example_gets_the_same_result_in_whatever_part_of_the_batch_it_is(devices):
    whole = augmented(batch_of(IMAGES, np.arange(16)))
    size = 16 // devices
    for start in range(0, 16, size):
        part = slice(start, start + size)
        alone = augmented(batch_of(IMAGES[part], np.arange(16)[part]))
        np.testing.assert_array_equal(alone, whole[part])


def test_an_example_gets_the_same_result_whatever_its_neighbours_are():
    whole = augmented(batch_of(IMAGES, np.arange(16)))
    others = IMAGES[::-1].copy()
    others[5] = IMAGES[5]
    np.testing.assert_array_equal(augmented(batch_of(others, np.arange(16)))[5], whole[5])
    assert not np.array_equal(augmented(batch_of(others, np.arange(16)))[4], whole[4])


@pytest.mark.parametrize(
    ("seed", "step", "first_position"),
    [(1, 7, 0), (0, 8, 0), (0, 7, 16)],
    ids=["seed", "step", "place"],
)
def test_another_seed_step_or_position_gives_other_results(seed, step, first_position):
    first = augmented(batch_of(IMAGES, np.arange(16)))
    other = augmented(batch_of(IMAGES, first_position + np.arange(16)), seed, step)
    differing = (first != other).any(axis=(1, 2, 3))
    assert differing.sum() >= 12  # of 50 possible results two agree now and then


def test_without_augmentation_the_images_stay_as_they_are():
    result = augmented(batch_of(IMAGES, np.arange(16)), padding=0, flip=False)
    np.testing.assert_array_equal(result, IMAGES, strict=True)


def test_a_flip_alone_moves_nothing_else():
    result = augmented(batch_of(IMAGES, np.arange(16)), padding=0, flip=True)
    mirrored = IMAGES[:, :, ::-1]
    kept = (result == IMAGES).all(axis=(1, 2, 3))
    turned = (result == mirrored).all(axis=(1, 2, 3))
    assert (kept | turned).all()
    assert kept.any()
    assert turned.any()

"""Crop, flip, cutout and their order against NumPy; randomness that belongs to the example."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.data.augment import spatial
from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.spatial import augment_one, cutout, random_crop, random_flip
from tests.refusals import refusal

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


def test_a_crop_is_a_window_of_the_padded_image_at_a_uniform_place():
    crops = draw(lambda key: random_crop(key, jnp.asarray(IMAGE), 3))
    assert crops.dtype == np.uint8
    assert_uniform(counts_of(crops, windows(IMAGE, 3)))


def test_a_crop_without_padding_is_the_image():
    crops = draw(lambda key: random_crop(key, jnp.asarray(IMAGE), 0), count=20)
    np.testing.assert_array_equal(crops, np.broadcast_to(IMAGE, crops.shape), strict=True)


def test_a_flip_mirrors_left_and_right_half_of_the_time():
    flips = draw(lambda key: random_flip(key, jnp.asarray(IMAGE)))
    assert flips.dtype == np.uint8
    assert_uniform(counts_of(flips, {"as it was": IMAGE, "mirrored": IMAGE[:, ::-1]}))


def squares(image, side, fill):
    """The image with a square blanked out around every centre: side // 2 rows above it."""
    height, width, _ = image.shape
    results = {}
    for y in range(height):
        for x in range(width):
            top, left = y - side // 2, x - side // 2
            result = image.copy()
            result[max(top, 0) : top + side, max(left, 0) : left + side] = fill
            results[y, x] = result
    return results


@pytest.mark.parametrize(("side", "fill", "dtype"), [(2, 100, np.uint8), (3, 0, np.float32)])
def test_cutout_blanks_out_a_square_around_a_uniform_centre(side, fill, dtype):
    image = IMAGE.astype(dtype)
    results = draw(lambda key: cutout(key, jnp.asarray(image), side, fill))
    assert results.dtype == dtype
    assert_uniform(counts_of(results, squares(image, side, fill)))


def test_cutout_of_no_side_is_the_image_and_of_a_large_one_all_of_it():
    key = jax.random.key(0)
    np.testing.assert_array_equal(cutout(key, jnp.asarray(IMAGE), 0), IMAGE, strict=True)
    assert (np.asarray(cutout(key, jnp.asarray(IMAGE), 10, fill=3)) == 3).all()


def test_cutout_refuses_a_negative_side():
    message = refusal(cutout, jax.random.key(0), jnp.asarray(IMAGE), -2)
    assert "-2" in message
    assert "0 or more pixels" in message


@functools.cache
def compiled(options):
    """Images of a batch, each with the key of its place in a step of a seed."""

    def one(seed, step, place, image):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), place)
        return augment_one(key, image, options)

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0)))


CROP_AND_FLIP = AugmentOptions(crop_padding=2, flip=True)


def augmented(images, places, seed=0, step=7, options=CROP_AND_FLIP):
    return np.asarray(compiled(options)(seed, step, jnp.asarray(places), jnp.asarray(images)))


IMAGES = np.random.default_rng(0).integers(1, 256, (16, 5, 4, 2)).astype(np.uint8)


PLACES = np.arange(16)


def test_an_example_gets_the_same_result_in_whatever_part_of_the_batch_it_is():
    whole = augmented(IMAGES, PLACES)
    for start in range(0, 16, 4):
        part = slice(start, start + 4)
        np.testing.assert_array_equal(augmented(IMAGES[part], PLACES[part]), whole[part])


def test_an_example_gets_the_same_result_whatever_its_neighbours_are():
    whole = augmented(IMAGES, PLACES)
    others = IMAGES[::-1].copy()
    others[5] = IMAGES[5]
    found = augmented(others, PLACES)
    np.testing.assert_array_equal(found[5], whole[5])
    assert not np.array_equal(found[4], whole[4])


@pytest.mark.parametrize(
    ("seed", "step", "first"), [(1, 7, 0), (0, 8, 0), (0, 7, 16)], ids=["seed", "step", "place"]
)
def test_another_seed_step_or_place_gives_other_results(seed, step, first):
    differing = augmented(IMAGES, PLACES) != augmented(IMAGES, first + PLACES, seed, step)
    assert differing.any(axis=(1, 2, 3)).sum() >= 12  # of 50 results two agree now and then


EVERYTHING = AugmentOptions(
    crop_padding=1,
    flip=True,
    policy="randaugment",
    randaugment_layers=3,
    randaugment_magnitude=15,
    cutout=2,
)


def shaded(key, image, layers=1, magnitude=10):
    """Stands for a policy: something of the key, of the numbers and of each pixel."""
    return image * jnp.uint8(layers) + jnp.uint8(magnitude) + jax.random.bits(key, dtype=jnp.uint8)


def composed(key, image, options):
    """Crop, flip, policy and cutout one after the other, each with the key that runs rely on."""
    crop_key, flip_key = jax.random.split(key)
    image = random_crop(crop_key, image, options.crop_padding)
    image = random_flip(flip_key, image) if options.flip else image
    numbers = (options.randaugment_layers, options.randaugment_magnitude)
    if options.policy != "none":
        numbers = numbers if options.policy == "randaugment" else ()
        image = shaded(jax.random.fold_in(key, 2), image, *numbers)
    return cutout(jax.random.fold_in(key, 3), image, options.cutout)


@pytest.mark.parametrize(
    "options",
    [
        AugmentOptions(),
        AugmentOptions(flip=True, policy="autoaugment_cifar"),
        EVERYTHING,
    ],
    ids=["nothing", "autoaugment", "everything"],
)
def test_options_switch_on_crop_flip_policy_and_cutout_in_this_order(options, monkeypatch):
    """Recorded runs with crop and flip depend on these keys."""
    for policy in ("randaugment", "autoaugment_cifar"):
        monkeypatch.setattr(spatial, policy, shaded)
    image = jnp.asarray(IMAGE[..., :1])
    found, expected = draw(
        lambda key: jnp.stack([augment_one(key, image, options), composed(key, image, options)]),
        count=200,
    ).swapaxes(0, 1)
    np.testing.assert_array_equal(found, expected, strict=True)
    assert (found == IMAGE[..., :1]).all() == (options == AugmentOptions())


def test_crop_flip_and_cutout_of_an_example_are_drawn_apart():
    image = jnp.arange(1, 13, dtype=jnp.uint8).reshape(4, 3, 1)
    options = AugmentOptions(crop_padding=1, flip=True, cutout=1)
    without = AugmentOptions(crop_padding=1, flip=True)
    crops, uncut = draw(
        lambda key: jnp.stack([augment_one(key, image, each) for each in (options, without)]),
        count=8000,
    ).swapaxes(0, 1)
    expected = {}
    for place, window in windows(np.asarray(image), 1).items():
        expected |= {(place, False): window, (place, True): window[:, ::-1]}
    names = {window.tobytes(): name for name, window in expected.items()}
    counts = dict.fromkeys(
        [(*name, y, x) for name in expected for y in range(4) for x in range(3)], 0
    )
    for crop, before in zip(crops, uncut, strict=True):
        for y, x in np.argwhere((crop != before)[..., 0]):
            counts[(*names[before.tobytes()], y, x)] += 1
    # Where the padding is already zero, a square leaves no trace.
    visible = [name for name in counts if expected[name[:2]][name[2], name[3], 0] != 0]
    assert_uniform(np.array([counts[name] for name in visible]))


def test_a_batch_over_eight_devices_gets_what_one_device_gives():
    options = AugmentOptions(crop_padding=1, flip=True, cutout=2)
    keys = jax.random.split(jax.random.key(4), 16)
    batch = jax.jit(jax.vmap(lambda key, image: augment_one(key, image, options)))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    spread = batch(jax.device_put(keys, split), jax.device_put(IMAGES, split))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_array_equal(spread, batch(keys, IMAGES))

"""What the network is shown of a batch: augmented, mixed, in one view or in GLMC's two."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.longtail.method import Views
from spa_jax.training.feeds.batch import Batch, normalizer, partner_order, prepare

BATCH, SIDE, PADDING = 32, 9, 2
STEPS = 300
GLMC = Views("glmc", 0.0, clean_means=True)


def coded_draws():
    """The batch's own examples, and those that are mixed in.

    Every pixel says where it was, and of which draw: partners count from 101. Zeros come from a
    crop's padding alone.
    """
    own = np.arange(1, SIDE * SIDE + 1, dtype=np.uint8).reshape(1, SIDE, SIDE, 1)
    own = jnp.repeat(jnp.asarray(own), BATCH, axis=0)
    places = jnp.arange(BATCH)
    partner = Batch(own + jnp.uint8(100), (places * 3 + 1) % 10, BATCH + places)
    return Batch(own, places % 10, places), partner


def coded_batch():
    own, partner = coded_draws()
    return own.replace(partner=partner)


def as_float(images):
    return images.astype(jnp.float32)


@functools.cache
def preparing(views=GLMC, **augment):
    """A compiled function `(rng, steps, batch)` to the inputs of each of the steps."""
    options = AugmentOptions(**augment)

    def at_step(rng, step, batch):
        return prepare(rng, step, batch, options, views, as_float)

    return jax.jit(jax.vmap(at_step, in_axes=(None, 0, None)))


def inputs_of(steps, seed=0, views=GLMC, **augment):
    """What is prepared at each of some steps, stacked."""
    prepared = preparing(views, **augment)
    return jax.device_get(prepared(jax.random.key(seed), jnp.arange(steps), coded_batch()))


@pytest.fixture(scope="module")
def plain():
    """GLMC's inputs of 300 steps without any augmentation."""
    return inputs_of(STEPS)


# One view, mixed


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_images_and_labels_are_mixed_with_one_share(mix):
    own, partner = coded_draws()
    images, others = (np.asarray(part.images, np.float32) for part in (own, partner))
    alpha = {"mixup": 1000.0, "cutmix": 1.0}[mix]
    inputs = inputs_of(4, views=Views(mix), mix=mix, mix_alpha=alpha)
    assert inputs.clean_images is None
    assert inputs.second_images is None
    assert len(np.unique(inputs.share)) > 1
    for step in range(4):
        seen = jax.tree.map(lambda leaf, step=step: leaf[step], inputs)
        assert 0 < seen.share < 1
        if mix == "mixup":
            assert seen.share == pytest.approx(0.5, abs=0.1)  # as such an alpha has it
            expected = seen.share * images + (1 - seen.share) * others
            np.testing.assert_allclose(seen.images, expected, atol=1e-4)
        else:
            assert ((seen.images == images) | (seen.images == others)).all()
            of_partner = (seen.images == others).all(axis=(0, 3))
            assert of_partner.sum() == pytest.approx(SIDE * SIDE * (1 - seen.share))
        targets = np.asarray(jax.tree.map(jnp.asarray, seen).targets(10))
        expected = [np.eye(10)[part.labels] for part in (own, partner)]
        share = float(seen.share)
        np.testing.assert_allclose(
            targets, share * expected[0] + (1 - share) * expected[1], atol=1e-6
        )


def test_partners_are_the_whole_batch_in_another_order_at_each_step():
    orders = [partner_order(jax.random.key(0), jnp.int32(step), BATCH).tolist() for step in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(BATCH))
    assert list(range(BATCH)) not in orders
    assert orders[0] != orders[1]


# Two views that are not mixed


def test_a_second_view_is_of_the_same_images_augmented_anew():
    own, _ = coded_draws()
    views = Views(second=True)
    prepared = preparing(views, crop_padding=PADDING)(jax.random.key(0), jnp.arange(8), own)
    inputs = jax.device_get(prepared)
    assert inputs.partner_labels is None and inputs.share is None
    one_view = jax.device_get(
        preparing(Views(), crop_padding=PADDING)(jax.random.key(0), jnp.arange(8), own)
    )
    np.testing.assert_array_equal(inputs.images, one_view.images)
    assert one_view.second_images is None
    same = (inputs.images == inputs.second_images).all(axis=(2, 3, 4))
    assert same.mean() < 0.2  # one crop in 25 is the same by chance
    plain = jax.device_get(preparing(views)(jax.random.key(0), jnp.arange(1), own))
    np.testing.assert_array_equal(plain.second_images, plain.images)


# GLMC's two views


def boxes(second_images):
    """Top, bottom, left and right of what is the partner's, which is a box of the same place."""
    of_partner = second_images[..., 0] > 100
    assert (of_partner == of_partner[:1]).all()
    rows, columns = of_partner[0].any(axis=1), of_partner[0].any(axis=0)
    assert (of_partner[0] == rows[:, None] & columns[None]).all()
    ends = []
    for line in (rows, columns):
        inside = np.flatnonzero(line)
        ends += [inside[0], inside[-1] + 1] if len(inside) else [0, 0]
    return ends


def test_the_first_view_is_mixup_with_the_coefficient_of_the_labels(plain):
    draws = coded_draws()
    own, other = (np.asarray(draw.images, float) for draw in draws)
    share = plain.share[:, None, None, None, None]
    np.testing.assert_allclose(plain.images, share * own + (1 - share) * other, atol=1e-4)
    np.testing.assert_array_equal(plain.clean_images, np.broadcast_to(own, plain.images.shape))
    np.testing.assert_array_equal(plain.labels, np.tile(draws[0].labels, (STEPS, 1)))
    np.testing.assert_array_equal(plain.partner_labels, np.tile(draws[1].labels, (STEPS, 1)))


def test_the_coefficient_is_uniform_and_drawn_anew_at_each_step(plain):
    assert len(np.unique(plain.share)) == STEPS
    for quarter in range(4):
        share = np.mean((plain.share >= quarter / 4) & (plain.share < (quarter + 1) / 4))
        assert abs(share - 1 / 4) < 4.5 * np.sqrt(1 / 4 * 3 / 4 / STEPS)


def test_the_second_view_is_cutmix_with_a_box_of_the_same_coefficient(plain):
    """Its sides are the image's times sqrt(1 - lambda), rounded up; half goes to each side."""
    whole = 0
    for second, share in zip(plain.second_images, plain.share, strict=True):
        top, bottom, left, right = boxes(second)
        half = int(np.ceil(SIDE * np.sqrt(1 - np.float64(share)))) // 2
        for low, high in ((top, bottom), (left, right)):
            if low > 0 and high < SIDE:
                assert high - low == 2 * half
                whole += 1
            else:  # a part of it was outside of the image
                assert high - low <= 2 * half
                assert high - low >= min(half, SIDE)
    assert whole > 100


def test_the_coefficient_is_not_computed_again_from_the_box(plain):
    areas = [(b - t) * (r - le) / SIDE**2 for t, b, le, r in map(boxes, plain.second_images)]
    error = np.abs(1 - np.array(areas) - plain.share)
    assert error.max() > 0.2
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf[np.argmax(error)]), plain)
    targets, share = np.asarray(inputs.targets(10)), float(inputs.share)
    own, other = (np.eye(10)[draw.labels] for draw in coded_draws())
    np.testing.assert_allclose(targets, share * own + (1 - share) * other, atol=1e-6)


def test_boxes_are_everywhere(plain):
    """A box of two pixels by two, which has the centre 1 to 7 where none is cut off."""
    places = np.array([boxes(second) for second in plain.second_images])
    for low, high in (places[:, :2].T, places[:, 2:].T):
        small = (high - low == 2) & (low > 0) & (high < SIDE)
        assert set(low[small].tolist()) >= set(range(1, SIDE - 3))


@functools.cache
def crops():
    """Every crop of an image with padding, as it is and mirrored, `(crops, SIDE, SIDE)`."""
    image = np.arange(1, SIDE * SIDE + 1).reshape(SIDE, SIDE)
    padded = np.pad(image, PADDING)
    shifts = range(2 * PADDING + 1)
    cut = [padded[y : y + SIDE, x : x + SIDE] for y, x in itertools.product(shifts, shifts)]
    return np.array(cut + [image[:, ::-1] for image in cut])


def crop_number(image, known):
    """Which crop an image is, of which only the known pixels count; exactly one fits."""
    fits = ((crops() == image) | ~known).all(axis=(1, 2))
    assert fits.sum() == 1, "no crop fits, or several do"
    return int(np.argmax(fits))


@pytest.fixture(scope="module")
def augmented():
    """GLMC's inputs of 40 steps, cropped and mirrored."""
    return inputs_of(40, crop_padding=PADDING, flip=True)


def test_all_four_images_of_an_example_are_crops_of_their_own(augmented):
    """Two of them are the same crop as often as chance has it, once in 50."""
    everywhere = np.ones((SIDE, SIDE), bool)
    # A box in the middle of a good size shows enough of both images to tell their crops.
    found = []
    for step, share in enumerate(augmented.share):
        of_partner = (augmented.second_images[step, ..., 0] > 100).any(axis=0)
        if not 0.3 < share < 0.7 or not 20 <= of_partner.sum() <= SIDE * SIDE - 20:
            continue
        for i in range(BATCH):
            own = augmented.clean_images[step, i, ..., 0]
            other = (augmented.images[step, i, ..., 0] - share * own) / (1 - share)
            other, second = np.rint(other), augmented.second_images[step, i, ..., 0]
            views = (
                (own, everywhere),
                (np.where(other > 100, other - 100, 0), everywhere),
                (second, ~of_partner),
                (np.where(second > 100, second - 100, 0), of_partner),
            )
            found.append([crop_number(image, known) for image, known in views])
    assert len(found) >= 3 * BATCH
    for one, other in itertools.combinations(np.array(found).T, 2):
        assert np.mean(one == other) < 1 / 50 + 4.5 * np.sqrt(1 / 50 / len(found))
    for view in np.array(found).T:
        assert len(np.unique(view)) > 25  # of 50


def test_parts_of_a_batch_are_prepared_as_the_whole_is(augmented):
    parts = jax.tree.map(lambda leaf: leaf.reshape(8, -1, *leaf.shape[1:]), coded_batch())
    prepared = preparing(crop_padding=PADDING, flip=True)
    on_each_device = jax.jit(jax.vmap(prepared, (None, None, 0), 1))
    found = jax.device_get(on_each_device(jax.random.key(0), jnp.arange(40), parts))
    for device in range(8):
        np.testing.assert_array_equal(found.share[:, device], augmented.share)
    for name in ("images", "second_images", "clean_images", "labels", "partner_labels"):
        expected = getattr(augmented, name)
        together = getattr(found, name).reshape(expected.shape)
        np.testing.assert_array_equal(together, expected, err_msg=name)


def test_the_inputs_of_a_step_belong_to_the_seed_and_the_step(plain):
    again, other = inputs_of(STEPS), inputs_of(STEPS, seed=1)
    np.testing.assert_array_equal(again.second_images, plain.second_images)
    assert not np.isin(other.share, plain.share).any()


def test_clean_images_are_kept_for_means_that_are_made_of_them_alone():
    batch, options = coded_batch(), AugmentOptions(mix="mixup")
    for mix in ("mixup", "glmc"):
        for clean in (True, False):
            seen = functools.partial(
                prepare, augment=options, views=Views(mix, clean_means=clean), normalize=as_float
            )
            inputs = jax.eval_shape(seen, jax.random.key(0), jnp.int32(0), batch)
            assert (inputs.clean_images is not None) == clean


@pytest.mark.parametrize("normalization", ["dataset", "imagenet", "half", "efficientnet_lite"])
def test_pixels_are_normalised_by_the_training_set_or_as_a_network_was_published(normalization):
    images = np.random.default_rng(0).integers(0, 200, (6, 5, 4, 3), dtype=np.uint8)
    of_colours = {  # of values from 0 to 1, as torchvision and timm have them
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "half": ((0.5,) * 3, (0.5,) * 3),
        "efficientnet_lite": ((127 / 255,) * 3, (128 / 255,) * 3),
        "dataset": (images.mean((0, 1, 2)) / 255, images.std((0, 1, 2)) / 255),
    }
    mean, deviation = of_colours[normalization]
    found = normalizer(images, normalization)(jnp.asarray(images[:2]))
    np.testing.assert_allclose(found, (images[:2] / 255 - mean) / deviation, rtol=1e-4, atol=1e-5)

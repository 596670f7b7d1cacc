"""Data that live on the devices: orders, samplers, second draws, and the choice between feeds."""

import jax
import numpy as np
import pytest

from spa_jax.data.splits.samplers import class_probabilities
from spa_jax.training import checking
from spa_jax.training.checking import check_run
from spa_jax.training.devices import PARALLEL_MODES, Layout
from spa_jax.training.feeds.batch import channel_statistics
from spa_jax.training.feeds.resident import ResidentFeed, evaluation_order
from spa_jax.training.feeds.streamed import StreamFeed
from spa_jax.training.program import Program
from spa_jax.training.state import STATE_PLACES
from tests.refusals import refusal
from tests.training.feeds.feeding import after_steps, batches_of, feed_of, state_at
from tests.training.small import small_config, small_program

EPOCHS = range(12)
SECOND_DRAW = {"method__name": "glmc", "method__glmc__sampler_power": 0.5}


@pytest.fixture(scope="module")
def digits():
    return small_program(small_config()).data


@pytest.fixture(scope="module")
def shuffled():
    """The batches of two epochs."""
    return batches_of(feed_of(), (0, 1))


@pytest.fixture(scope="module")
def mixed_in():
    """A feed that draws anew what is mixed in, and the batches of some of its epochs."""
    feed = feed_of(**SECOND_DRAW)
    return feed, batches_of(feed, EPOCHS)


def example_numbers(images, data):
    """Which training example each image is."""
    known = {image.tobytes(): number for number, image in enumerate(data.train.images)}
    flat = images.reshape(-1, *images.shape[-3:])
    return np.array([known[image.tobytes()] for image in flat]).reshape(images.shape[:-3])


def assert_drawn_by(expected, labels, numbers, data):
    """As often as the classes' chances say, all images of a class alike."""
    np.testing.assert_array_equal(data.train.labels[numbers].ravel(), labels.ravel())
    share = np.bincount(labels.ravel(), minlength=10) / labels.size
    deviation = np.sqrt(expected * (1 - expected) / labels.size)
    assert (np.abs(share - expected) < 4.5 * deviation).all()
    for label in np.argsort(expected)[-2:]:
        each = np.bincount(numbers.ravel(), minlength=369)[data.train.labels == label]
        assert (np.abs(each - each.mean()) < 4.5 * np.sqrt(each.mean()) + 1).all()


def test_a_shuffled_epoch_shows_an_image_once_and_the_next_in_another_order(shuffled, digits):
    numbers = example_numbers(shuffled.images, digits)
    np.testing.assert_array_equal(digits.train.labels[numbers], shuffled.labels)
    first, second = numbers.reshape(2, -1)
    assert len(first) == 5 * 64
    assert len(np.unique(first)) == len(np.unique(second)) == len(first)
    assert np.mean(first == second) < 0.05
    np.testing.assert_array_equal(shuffled.positions, np.tile(np.arange(64), (10, 1)))


def test_a_sampler_shows_classes_as_often_as_it_says_and_all_images_of_a_class_alike(digits):
    batches = batches_of(feed_of(data__sampler="reversed"), EPOCHS)
    expected = class_probabilities(digits.class_counts, "reversed")
    assert batches.labels.shape == (12 * 5, 64)
    assert_drawn_by(expected, batches.labels, example_numbers(batches.images, digits), digits)


def test_images_that_are_mixed_in_are_drawn_with_the_weights_of_their_classes(digits, mixed_in):
    partner = mixed_in[1].partner
    sizes = np.array(digits.class_counts, np.float64)
    weights = sizes * sizes**-0.5  # n_c images, of weight n_c^-k each
    numbers = example_numbers(partner.images, digits)
    assert_drawn_by(weights / weights.sum(), partner.labels, numbers, digits)
    # With replacement: of n draws from n images, (1 - 1/n)^n show nothing new.
    for epoch in numbers.reshape(12, -1):
        assert len(np.unique(epoch)) < 0.75 * len(epoch)


def test_the_first_draw_is_the_shuffled_epoch_whatever_is_mixed_in(digits, shuffled, mixed_in):
    mixed = jax.tree.map(lambda leaf: leaf[:10], mixed_in[1])
    for name in ("images", "labels", "positions"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(shuffled, name))
    np.testing.assert_array_equal(mixed.partner.positions, shuffled.positions + 64)
    both = [example_numbers(part.images, digits) for part in (mixed, mixed.partner)]
    assert np.mean(both[0] == both[1]) < 0.05


def test_two_draws_with_the_same_weights_are_not_the_same_draw(digits):
    changes = SECOND_DRAW | {"method__glmc__sampler_power": 1.0, "data__sampler": "class_aware"}
    mixed = batches_of(feed_of(**changes), (0, 1))
    both = [example_numbers(part.images, digits) for part in (mixed, mixed.partner)]
    # One in ten of the same class, which has at least five images.
    assert np.mean(both[0] == both[1]) < 0.1


def test_draws_belong_to_the_seed_and_the_epoch(digits, mixed_in):
    feed, batches = mixed_in
    numbers = example_numbers(batches.partner.images[5:10], digits)
    again, other = (batches_of(feed, [1], seed).partner.images for seed in (0, 1))
    np.testing.assert_array_equal(example_numbers(again, digits), numbers)
    assert np.mean(example_numbers(other, digits) == numbers) < 0.05
    assert np.mean(example_numbers(batches.partner.images[10:15], digits) == numbers) < 0.05


@pytest.fixture(scope="module")
def mixed_batches():
    """One device's first batches, mixed with their own images and with a second draw."""
    known = {"permuted": {"augment__mix": "mixup"}, "drawn": SECOND_DRAW}
    return {name: (changes, batches_of(feed_of(**changes))) for name, changes in known.items()}


@pytest.mark.parametrize("mixing", ["permuted", "drawn"])
@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_eight_devices_share_the_batch_that_one_has(mode, mixing, mixed_batches):
    changes, expected = mixed_batches[mixing]
    layout = Layout(mode)
    feed = Program(small_config(**changes), layout=layout).feed

    def whole(state, inputs):
        return jax.tree.map(layout.gather, feed.batch(state, inputs))

    get = layout.compile(whole, (STATE_PLACES, feed.places))
    state = state_at(2)
    state = layout.replicate(state.replace(rng=jax.random.key(0)))
    inputs = next(iter(feed.batches(layout.replicate(state_at(0)), 0, 0)))
    found = jax.device_get(get(state, inputs))
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[2], other), expected, found)
    if mixing == "permuted":
        partners = found.partner.positions
        assert sorted(partners.tolist()) == list(range(64))
        np.testing.assert_array_equal(found.partner.images, found.images[partners])
        np.testing.assert_array_equal(found.partner.labels, found.labels[partners])


def test_batch_statistics_of_each_device_are_averaged():
    """The mean of the devices' means is the batch's; of their variances, less than the batch's."""
    config = small_config(parallel="shard_map", model__batch_norm="per_device")
    programs = (Program(config), small_program(small_config()))
    # Of the first layer, whose inputs are the same.
    local, whole = (
        after_steps(program, 1)[0].batch_stats["backbone"]["BatchNorm_0"] for program in programs
    )
    np.testing.assert_allclose(local["mean"], whole["mean"], atol=1e-5)
    lower = whole["var"] - local["var"]
    assert (lower > 0).all()
    assert lower.max() > 5e-5


def test_statistics_of_the_channels_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 3, 2), dtype=np.uint8)
    mean, deviation = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(deviation, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize(("examples", "batch", "devices"), [(10, 4, 1), (10, 4, 8), (3, 100, 2)])
def test_an_evaluation_order_has_every_example_once_whatever_the_devices(examples, batch, devices):
    order, mask = evaluation_order(examples, batch, devices)
    assert order.shape == mask.shape
    assert order.shape[1] % devices == 0
    assert order[mask > 0].tolist() == list(range(examples))


def test_what_fits_on_the_devices_lives_there_and_the_rest_is_streamed(monkeypatch):
    assert isinstance(feed_of(), ResidentFeed)
    monkeypatch.setattr(checking, "DEVICE_BYTES", 1000)
    assert isinstance(feed_of(), StreamFeed)
    assert isinstance(feed_of(data__feed="device"), ResidentFeed)


def test_a_batch_larger_than_the_training_set_is_refused():
    message = refusal(check_run, small_config(batch_size=512))
    assert "512" in message
    assert "369" in message

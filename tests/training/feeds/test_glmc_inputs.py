"""What GLMC's network is shown: two views of two draws, mixed with one coefficient."""

import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import ClassMeans
from spa_jax.data.augment.on_host import StreamOptions, train_image
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.training.build import load_data
from spa_jax.training.devices import Layout
from spa_jax.training.feeds.batch import Batch, prepare
from spa_jax.training.feeds.resident import ResidentFeed
from spa_jax.training.feeds.streamed import StreamFeed
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program
from spa_jax.training.state import TrainState
from tests.data.tiny_jpeg import write_photographs
from tests.refusals import refusal
from tests.training.small import small_config
from tests.training.test_parallel import assert_close

BATCH, SIDE, PADDING = 32, 9, 2

pytestmark = pytest.mark.usefixtures("quick_compilation")


def glmc_config(**changes):
    return small_config(**({"method__name": "glmc", "model__widths": (4,)} | changes))


def state_at(step, seed=0):
    """As much of a state as feeds and inputs look at."""
    means = ClassMeans.create(10, 1, 0.9)
    return TrainState(jnp.int32(step), {}, {}, {}, {}, means, jax.random.key(seed), {})


# The inputs of a step


def coded_batch():
    """A batch whose every pixel says where it was, and of which draw: partners count from 101.

    Zeros come from a crop's padding alone.
    """
    own, partner = coded_draws()
    return own.replace(partner=partner)


def coded_draws():
    """The batch's own examples, and those that are mixed in."""
    own = np.arange(1, SIDE * SIDE + 1, dtype=np.uint8).reshape(1, SIDE, SIDE, 1)
    own = jnp.repeat(jnp.asarray(own), BATCH, axis=0)
    places = jnp.arange(BATCH)
    partner = Batch(own + jnp.uint8(100), (places * 3 + 1) % 10, BATCH + places)
    return Batch(own, places % 10, places), partner


def as_float(images):
    return images.astype(jnp.float32)


@functools.cache
def preparing(padding=0, flip=False):
    """A compiled function `(rng, steps, batch)` to the inputs of each of the steps."""
    config = glmc_config(augment__crop_padding=padding, augment__flip=flip)

    def at_step(rng, step, batch):
        return prepare(rng, step, batch, config, as_float)

    return jax.jit(jax.vmap(at_step, in_axes=(None, 0, None)))


def inputs_of(steps, seed=0, **options):
    """What is prepared at each of some steps, stacked."""
    inputs = preparing(**options)(jax.random.key(seed), jnp.arange(steps), coded_batch())
    return jax.device_get(inputs)


@pytest.fixture(scope="module")
def plain():
    """Inputs of 300 steps without any augmentation."""
    return inputs_of(300)


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
    np.testing.assert_array_equal(plain.labels, np.tile(draws[0].labels, (300, 1)))
    np.testing.assert_array_equal(plain.partner_labels, np.tile(draws[1].labels, (300, 1)))


def test_the_coefficient_is_uniform_and_drawn_anew_at_each_step(plain):
    assert len(np.unique(plain.share)) == 300
    for quarter in range(4):
        share = np.mean((plain.share >= quarter / 4) & (plain.share < (quarter + 1) / 4))
        assert abs(share - 1 / 4) < 4.5 * np.sqrt(1 / 4 * 3 / 4 / 300)


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
def cropped():
    """For each of some steps' examples the crops of both views of both draws, `(4, examples)`."""
    inputs = inputs_of(40, padding=PADDING, flip=True)
    everywhere = np.ones((SIDE, SIDE), bool)
    # A box in the middle of a good size shows enough of both images to tell their crops.
    found = []
    for step in range(40):
        share = inputs.share[step]
        if not 0.3 < share < 0.7:
            continue
        of_partner = (inputs.second_images[step, ..., 0] > 100).any(axis=0)
        if of_partner.sum() < 20 or (~of_partner).sum() < 20:
            continue
        for i in range(BATCH):
            own = inputs.clean_images[step, i, ..., 0]
            other = (inputs.images[step, i, ..., 0] - share * own) / (1 - share)
            other, second = np.rint(other), inputs.second_images[step, i, ..., 0]
            views = (
                (own, everywhere),
                (np.where(other > 100, other - 100, 0), everywhere),
                (second, ~of_partner),
                (np.where(second > 100, second - 100, 0), of_partner),
            )
            found.append([crop_number(image, known) for image, known in views])
    assert len(found) >= 3 * BATCH
    return np.array(found).T


def test_all_four_images_of_an_example_are_crops_of_their_own(cropped):
    """Two of them are the same crop as often as chance has it, once in 50."""
    examples = cropped.shape[1]
    for one, other in itertools.combinations(cropped, 2):
        same = np.mean(one == other)
        assert same < 1 / 50 + 4.5 * np.sqrt(1 / 50 / examples)
    for view in cropped:
        assert len(np.unique(view)) > 25  # of 50


def test_parts_of_a_batch_are_prepared_as_the_whole_is():
    options = {"padding": PADDING, "flip": True}
    whole = inputs_of(40, **options)
    parts = jax.tree.map(lambda leaf: leaf.reshape(8, -1, *leaf.shape[1:]), coded_batch())
    on_each_device = jax.jit(jax.vmap(preparing(**options), (None, None, 0), 1))
    found = jax.device_get(on_each_device(jax.random.key(0), jnp.arange(40), parts))
    for device in range(8):
        np.testing.assert_array_equal(found.share[:, device], whole.share)
    for name in ("images", "second_images", "clean_images", "labels", "partner_labels"):
        expected = getattr(whole, name)
        together = getattr(found, name).reshape(expected.shape)
        np.testing.assert_array_equal(together, expected, err_msg=name)


def test_the_inputs_of_a_step_belong_to_the_seed_and_the_step(plain):
    again, other = inputs_of(300), inputs_of(300, seed=1)
    np.testing.assert_array_equal(again.second_images, plain.second_images)
    assert not np.isin(other.share, plain.share).any()


def test_without_clean_means_there_are_no_clean_images():
    batch = coded_batch()
    for config in (glmc_config(spa__means_from="training"), small_config(augment__mix="cutmix")):
        seen = functools.partial(prepare, config=config, normalize=as_float)
        inputs = jax.eval_shape(seen, jax.random.key(0), jnp.int32(0), batch)
        assert inputs.clean_images is None
        assert (inputs.second_images is None) == (config.method.name != "glmc")


# Data that live on the devices


@pytest.fixture(scope="module")
def digits():
    return load_data(small_config())


@pytest.fixture(scope="module")
def resident_epochs(digits):
    """A function that gives the batches of some epochs on one device, stacked."""

    @functools.cache
    def feed_of(power, sampler):
        config = small_config(data__sampler=sampler)
        if power is not None:
            config = glmc_config(method__glmc_sampler_power=power, data__sampler=sampler)
        feed = ResidentFeed(Layout("jit", jax.devices()[:1]), config, digits)
        return feed, jax.jit(functools.partial(feed.batch, lambda part: part))

    def get(power, epochs, seed=0, sampler="shuffle"):
        feed, batch_of = feed_of(power, sampler)
        found = []
        for epoch in epochs:
            first = epoch * feed.steps_per_epoch
            for i, inputs in enumerate(feed.batches(state_at(first, seed), seed, epoch)):
                found.append(batch_of(state_at(first + i, seed), *inputs))
        return jax.tree.map(lambda *parts: np.stack(parts), *jax.device_get(found))

    return get


def example_numbers(images, data):
    """Which training example each image is."""
    known = {image.tobytes(): number for number, image in enumerate(data.train.images)}
    flat = images.reshape(-1, *images.shape[-3:])
    return np.array([known[image.tobytes()] for image in flat]).reshape(images.shape[:-3])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_images_that_are_mixed_in_are_drawn_with_the_weights_of_their_classes(
    power, digits, resident_epochs
):
    partner = resident_epochs(power, range(12)).partner
    labels = partner.labels.ravel()
    sizes = np.array(digits.class_counts, np.float64)
    weights = sizes * sizes**-power  # n_c images, of weight n_c^-k each
    expected = weights / weights.sum()
    share = np.bincount(labels, minlength=10) / len(labels)
    assert len(labels) == 12 * 5 * 64
    deviation = np.sqrt(expected * (1 - expected) / len(labels))
    assert (np.abs(share - expected) < 4.5 * deviation).all()
    numbers = example_numbers(partner.images, digits)
    np.testing.assert_array_equal(digits.train.labels[numbers].ravel(), labels)
    # With replacement: of n draws from n images, (1 - 1/n)^n show nothing new.
    for epoch in numbers.reshape(12, -1):
        assert len(np.unique(epoch)) < 0.75 * len(epoch)
    (largest,) = np.nonzero(digits.train.labels == 0)
    each = np.bincount(numbers.ravel(), minlength=369)[largest]
    assert (np.abs(each - each.mean()) < 4.5 * np.sqrt(each.mean()) + 1).all()


def test_the_first_draw_is_the_shuffled_epoch_whatever_is_mixed_in(digits, resident_epochs):
    alone = resident_epochs(None, range(2))
    for power in (0.0, 1.0):
        mixed = resident_epochs(power, range(2))
        for name in ("images", "labels", "positions"):
            np.testing.assert_array_equal(getattr(mixed, name), getattr(alone, name))
        np.testing.assert_array_equal(mixed.partner.positions, alone.positions + 64)
        both = [example_numbers(part.images, digits) for part in (mixed, mixed.partner)]
        assert np.mean(both[0] == both[1]) < 0.05


def test_two_draws_with_the_same_weights_are_not_the_same_draw(digits, resident_epochs):
    mixed = resident_epochs(1.0, range(2), sampler="class_aware")
    both = [example_numbers(part.images, digits) for part in (mixed, mixed.partner)]
    # One in ten of the same class, which has at least five images.
    assert np.mean(both[0] == both[1]) < 0.1


def test_draws_belong_to_the_seed_and_the_epoch(digits, resident_epochs):
    numbers = [
        example_numbers(resident_epochs(0.0, [epoch], seed).partner.images, digits)
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    np.testing.assert_array_equal(numbers[0], numbers[1])
    for other in numbers[2:]:
        assert np.mean(numbers[0] == other) < 0.05


# Streams


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def stream_config(folder, **changes):
    """Three epochs of two steps on images of 12 pixels."""
    settings = {
        "data__name": "photographs",
        "data__folder": str(folder),
        "data__profile": "natural",
        "epochs": 3,
        "batch_size": 16,
        "eval_batch_size": 8,
        "augment__image_size": 12,
        "augment__resize": 14,
        "augment__color_jitter": 0.2,
        "method__glmc_sampler_power": 1.0,
        "method__glmc_projection_dim": 8,
        "optimizer__learning_rate": 0.02,
        "loader__workers": 0,
    }
    return glmc_config(**(settings | changes))


def streamed(config, epochs=(0, 1)):
    """What a stream brings for each step of some epochs, on the host."""
    data = load_data(config)
    feed = StreamFeed(Layout("jit", jax.devices()[:1]), config, data)
    found = [of_step for epoch in epochs for of_step in feed.batches(state_at(0), 0, epoch)]
    feed.close()
    return feed, [[np.asarray(array) for array in of_step] for of_step in found]


@pytest.fixture(scope="module")
def two_streams(folder):
    return streamed(stream_config(folder))


def test_every_image_of_a_stream_comes_in_two_views(two_streams):
    """Three arrays of each draw: images, labels, positions."""
    feed, steps = two_streams
    assert feed.num_inputs == 6
    assert len(steps) == 4
    for images, labels, positions, others, other_labels, other_positions in steps:
        for of_draw in (images, others):
            assert of_draw.shape == (16, 2, 12, 12, 3)
            assert of_draw.dtype == np.uint8
            views = {view.tobytes() for image in of_draw for view in image}
            assert len(views) == 32
        assert labels.shape == other_labels.shape == (16,)
        assert positions.tolist() == other_positions.tolist() == list(range(16))


def test_the_views_and_draws_of_a_stream_reach_the_batch(two_streams, folder):
    feed, steps = two_streams
    batch = feed.batch(lambda part: part, state_at(0), *map(jnp.asarray, steps[0]))
    images, labels, positions, others, other_labels, other_positions = steps[0]
    for part, of_draw, of_labels in (
        (batch, images, labels),
        (batch.partner, others, other_labels),
    ):
        np.testing.assert_array_equal(part.images, of_draw[:, 0])
        np.testing.assert_array_equal(part.second_images, of_draw[:, 1])
        np.testing.assert_array_equal(part.labels, of_labels)
    np.testing.assert_array_equal(batch.positions, positions)
    np.testing.assert_array_equal(batch.partner.positions, 16 + other_positions)
    config = stream_config(folder, augment__crop_padding=0, augment__flip=False)
    seen = jax.jit(functools.partial(prepare, config=config, normalize=as_float))
    inputs = seen(jax.random.key(0), jnp.int32(0), batch)
    np.testing.assert_array_equal(inputs.clean_images, images[:, 0].astype(np.float32))
    own = (inputs.second_images == images[:, 1]).all(axis=(0, 3))
    other = (inputs.second_images == others[:, 1]).all(axis=(0, 3))
    assert (own | other).all()
    assert own.any()
    assert other.any()


def test_two_workers_bring_what_none_does(two_streams, folder):
    _, steps = streamed(stream_config(folder, loader__workers=2))
    for one, other in zip(two_streams[1], steps, strict=True):
        for array, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, again, strict=True)


def test_the_first_view_of_the_first_draw_is_that_of_a_run_without_more(two_streams, folder):
    names = {"method__name": "cross_entropy", "method__glmc_sampler_power": 0.0}
    config = stream_config(folder, method__glmc_projection_dim=128, **names)
    _, alone = streamed(config)
    for one, other in zip(two_streams[1], alone, strict=True):
        np.testing.assert_array_equal(one[0][:, 0], other[0])
        for array, again in zip(one[1:3], other[1:3], strict=True):
            np.testing.assert_array_equal(array, again)


def test_every_view_belongs_to_the_seed_the_step_the_row_the_draw_and_the_view(two_streams, folder):
    """The first of all is drawn as it was before there were several."""
    train = load_data(stream_config(folder)).train
    options = StreamOptions(12, 14, color_jitter=0.2, flip=False)
    weights = 1.0 / np.array([20, 10, 7])[train.labels]
    orders = (EpochOrder(0, 37, 16), EpochOrder(0, 37, 16, weights, stream=1))
    letters = int.from_bytes(b"AUGM", "big")
    for step, row in ((0, 0), (1, 9), (3, 15)):
        for draw, view in itertools.product((0, 1), (0, 1)):
            entropy = [0, letters, step, row] + ([draw, view] if draw or view else [])
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
            data = train.images[int(orders[draw].batch(step)[row])]
            expected = train_image(generator, data, "an image", options)
            found = two_streams[1][step][3 * draw][row, view]
            np.testing.assert_array_equal(found, expected)


def test_a_streams_second_draw_shows_classes_as_often_as_its_weights_say(folder):
    _, steps = streamed(stream_config(folder, epochs=40), range(40))
    first = np.concatenate([of_step[1] for of_step in steps])
    second = np.concatenate([of_step[4] for of_step in steps])
    assert len(second) == 40 * 2 * 16
    share = np.bincount(second, minlength=3) / len(second)
    np.testing.assert_allclose(share, np.full(3, 1 / 3), atol=4.5 * np.sqrt(2 / 9 / len(second)))
    # 32 of 37 images make a shuffled epoch, so that each class is all but shown whole.
    share = np.bincount(first, minlength=3) / len(first)
    np.testing.assert_allclose(share, np.array([20, 10, 7]) / 37, atol=0.02)


def test_decoded_images_whose_colours_change_on_the_host_have_two_views_too(digits):
    """They are not cropped there; a second view of the same colours would be none."""
    changes = {"data__feed": "stream", "loader__workers": 0}
    _, steps = streamed(glmc_config(**changes, augment__color_jitter=0.5), [0])
    assert (steps[0][0][:, 0] != steps[0][0][:, 1]).any(axis=(1, 2, 3)).all()
    feed, steps = streamed(glmc_config(**changes), [0])
    assert steps[0][0].shape == (64, 8, 8, 3)
    batch = feed.batch(lambda part: part, state_at(0), *map(jnp.asarray, steps[0]))
    assert batch.second_images is None


def states_of(program, steps):
    state, totals = program.init_state(program.config), program.zero_totals
    for inputs in itertools.islice(program.batches(state, 0, 0), steps):
        state, totals = program.train_step(state, totals, inputs)
    program.feed.close()
    return jax.device_get((state.replace(rng=jax.random.key_data(state.rng)), totals))


@pytest.fixture(scope="module")
def one_device(folder):
    return Program(stream_config(folder), devices=jax.devices()[:1])


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_eight_devices_train_on_the_views_that_one_trains_on(mode, folder, one_device):
    eight = Program(stream_config(folder, parallel=mode))
    assert_close(states_of(one_device, 2), states_of(eight, 2), 1e-5)


@pytest.fixture(scope="module")
def whole_run(folder, one_device, tmp_path_factory):
    """The summary of a run that was not stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    return run(stream_config(folder), workdir, one_device, say=lambda line: None)


def test_a_run_on_two_streams_goes_on_where_it_was_stopped(folder, one_device, whole_run, tmp_path):
    config = stream_config(folder)
    with pytest.raises(RunStopped):
        run(config, tmp_path, one_device, print, keep_going=lambda: False)
    resumed = run(config, tmp_path, one_device, say=lambda line: None)
    assert resumed["params_checksum"] == whole_run["params_checksum"]
    for field in ("test_accuracy", "heads", "per_class_test_cosine"):
        assert resumed[field] == whole_run[field]


def test_a_summary_has_both_heads_and_leads_with_the_one_that_spa_acts_on(whole_run):
    names = ("mean_cosine", "min_cosine", "test_mean_cosine", "test_min_cosine")
    heads = whole_run["heads"]
    assert set(heads) == {"fc/kernel", "fc_cb/kernel"}
    for of_head in heads.values():
        assert set(of_head) == set(names)
        assert all(-1 <= cosine <= 1 for cosine in of_head.values())
        assert of_head["min_cosine"] <= of_head["mean_cosine"]
    assert heads["fc/kernel"] == {name: whole_run[name] for name in names}
    assert all(heads["fc/kernel"][name] != heads["fc_cb/kernel"][name] for name in names)
    assert np.mean(whole_run["per_class_cosine"]) == pytest.approx(whole_run["mean_cosine"])


# Orders


def documented_order(seed, epoch, number, batch, stream=None):
    """Philox of the seed, the letters ORDR and the epoch; and the stream, if there are several."""
    letters = int.from_bytes(b"ORDR", "big")
    entropy = [seed, letters, epoch] + ([] if stream is None else [stream])
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    return generator.permutation(number)[: number // batch * batch].reshape(-1, batch)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (7, 3), (2**31 - 1, 199)])
def test_the_first_stream_of_orders_is_the_one_there_was_before_there_were_several(seed, epoch):
    expected = documented_order(seed, epoch, 37, 8)
    for order in (EpochOrder(seed, 37, 8), EpochOrder(seed, 37, 8, stream=0)):
        np.testing.assert_array_equal(order.epoch(epoch), expected)
    for stream in (1, 2):
        found = EpochOrder(seed, 37, 8, stream=stream).epoch(epoch)
        np.testing.assert_array_equal(found, documented_order(seed, epoch, 37, 8, stream))
        assert np.mean(found == expected) < 0.3


def test_streams_of_weighted_draws_differ_and_keep_their_weights():
    weights = np.where(np.arange(40) < 10, 3.0, 1.0)
    draws = []
    for stream in range(3):
        order = EpochOrder(0, 40, 8, weights, stream)
        draws.append(np.stack([order.epoch(epoch) for epoch in range(60)]))
        share = np.mean(draws[-1] < 10)
        assert abs(share - 0.5) < 4.5 * np.sqrt(0.25 / draws[-1].size)
    for one, other in itertools.combinations(draws, 2):
        assert np.mean(one == other) < 0.1


def test_an_order_of_another_stream_survives_pickling():
    for weights in (None, np.arange(20.0)):
        order = EpochOrder(3, 20, 5, weights, stream=2)
        order.epoch(0)
        again = pickle.loads(pickle.dumps(order))
        assert again.stream == 2
        np.testing.assert_array_equal(again.epoch(4), order.epoch(4))


def test_a_negative_stream_is_refused():
    assert "stream=-1" in refusal(EpochOrder, 0, 10, 5, stream=-1)

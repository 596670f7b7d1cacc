"""Where a step's examples come from: orders, samplers, mixing, and the choice between feeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.data.splits.samplers import class_probabilities
from spa_jax.training import build
from spa_jax.training.feeds.batch import prepare
from spa_jax.training.feeds.resident import ResidentFeed, channel_statistics, evaluation_order
from spa_jax.training.feeds.streamed import StreamFeed
from spa_jax.training.program import Program
from tests.refusals import refusal
from tests.training.small import small_config
from tests.training.test_parallel import assert_close, states_after


def batches_of_epoch(program, epoch):
    """The host copy of every batch of an epoch, as one device gets them."""
    spe = program.steps_per_epoch
    state = program.init_state(program.config)
    get = jax.jit(lambda state, *inputs: program.feed.batch(lambda part: part, state, *inputs))
    result = []
    state = state.replace(step=jnp.asarray(epoch * spe, jnp.int32))
    for i, inputs in enumerate(program.batches(state, program.config.seed, epoch)):
        at_step = state.replace(step=jnp.asarray(epoch * spe + i, jnp.int32))
        result.append(jax.device_get(get(at_step, *inputs)))
    return result


def program_on_one_device(**changes):
    return Program(small_config(**changes), devices=jax.devices()[:1])


def contents(batches):
    return [image.tobytes() for batch in batches for image in batch.images]


def test_a_shuffled_epoch_shows_an_image_once_and_the_next_in_another_order():
    program = program_on_one_device()
    first, again, second = (batches_of_epoch(program, epoch) for epoch in (0, 0, 1))
    known = {image.tobytes(): label for image, label in pairs(program.data.train)}
    assert len(first) == 5
    shown = contents(first)
    assert len(set(shown)) == len(shown) == 5 * 64
    for batch in first:
        assert [known[image.tobytes()] for image in batch.images] == batch.labels.tolist()
        assert batch.positions.tolist() == list(range(64))
    assert contents(again) == shown
    assert contents(second) != shown


def pairs(examples):
    return zip(examples.images, examples.labels.tolist(), strict=True)


@pytest.mark.parametrize(
    ("sampler", "power"),
    [("class_aware", 1.0), ("square_root", 1.0), ("reversed", 1.0), ("power", 0.0)],
)
def test_a_sampler_shows_classes_as_often_as_it_says_and_all_images_of_a_class_alike(
    sampler, power
):
    program = program_on_one_device(data__sampler=sampler, data__sampler_power=power)
    labels, images = [], []
    for epoch in range(12):
        for batch in batches_of_epoch(program, epoch):
            labels.append(batch.labels)
            images += [image.tobytes() for image in batch.images]
    draws = np.concatenate(labels)
    expected = class_probabilities(program.data.class_counts, sampler, power)
    share = np.bincount(draws, minlength=10) / len(draws)
    deviation = np.sqrt(expected * (1 - expected) / len(draws))
    assert len(draws) == 12 * 320
    assert (np.abs(share - expected) < 4.5 * deviation).all()
    known = {image.tobytes(): label for image, label in pairs(program.data.train)}
    assert [known[image] for image in images] == draws.tolist()
    rarest = {image for image, label in known.items() if label == 9}
    assert rarest <= set(images) or share[9] < 0.02


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_an_image_is_mixed_with_a_partner_from_the_whole_batch_in_the_labels_shares(mix):
    program = program_on_one_device(
        augment__mix=mix, augment__crop_padding=0, augment__flip=False, augment__mix_alpha=5.0
    )
    state = program.init_state(program.config)
    (inputs, *_) = program.batches(state, 0, 0)
    batch = program.feed.batch(lambda part: part, state, *inputs)
    partners = np.asarray(batch.partner.positions)
    np.testing.assert_array_equal(np.asarray(batch.partner.images), batch.images[partners])
    # Images that differ in every pixel, so that each pixel tells where it comes from.
    plain = jnp.broadcast_to(jnp.arange(64, dtype=jnp.uint8)[:, None, None, None], (64, 8, 8, 1))
    partner = batch.partner.replace(images=plain[batch.partner.positions])
    batch = batch.replace(images=plain, partner=partner)

    def identity(images):
        return images.astype(jnp.float32)

    seen = jax.device_get(prepare(state.rng, state.step, batch, program.config, identity))
    order = np.asarray(batch.partner.positions)
    assert sorted(order.tolist()) == list(range(64))
    assert order.tolist() != list(range(64))
    images = np.asarray(batch.images, np.float32)
    np.testing.assert_array_equal(seen.partner_labels, np.asarray(batch.labels)[order])
    assert 0 < seen.share < 1
    if mix == "mixup":
        expected = seen.share * images + (1 - seen.share) * images[order]
        np.testing.assert_allclose(seen.images, expected, atol=1e-5)
    else:
        own, other = seen.images == images, seen.images == images[order]
        assert (own | other).all()
        box = ~own.all(axis=(0, 3))
        assert box.sum() == pytest.approx(64 * (1 - seen.share))
    targets = np.asarray(seen.targets(10))
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-6)
    different = seen.labels != seen.partner_labels
    np.testing.assert_allclose(targets[different, seen.labels[different]], seen.share, rtol=1e-6)


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_eight_devices_mix_and_sample_as_one_does(mode):
    changes = {
        "augment__mix": "mixup",
        "data__sampler": "square_root",
        "augment__cutout": 3,
        "spa__method": "reg",
    }
    one = states_after(3, jax.devices()[:1], **changes)
    eight = states_after(3, jax.devices(), parallel=mode, **changes)
    assert_close(one, eight, 1e-5)


def test_batch_statistics_of_each_device_differ_from_global_ones_and_end_up_the_same_everywhere():
    local, _, _ = states_after(
        2, jax.devices(), parallel="shard_map", model__batch_norm="per_device"
    )
    mapped, _, _ = states_after(2, jax.devices(), parallel="pmap", model__batch_norm="per_device")
    whole, _, _ = states_after(2, jax.devices(), parallel="shard_map")
    assert_close(local, mapped, 1e-5)
    differences = [
        np.abs(a - b).max()
        for a, b in zip(
            jax.tree.leaves(local.batch_stats), jax.tree.leaves(whole.batch_stats), strict=True
        )
    ]
    assert max(differences) > 1e-3


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
    assert isinstance(program_on_one_device().feed, ResidentFeed)
    monkeypatch.setattr(build, "DEVICE_BYTES", 1000)
    assert isinstance(program_on_one_device().feed, StreamFeed)
    assert isinstance(program_on_one_device(data__feed="device").feed, ResidentFeed)


def test_a_batch_larger_than_the_training_set_is_refused():
    message = refusal(program_on_one_device, batch_size=512)
    assert "512" in message
    assert "369" in message

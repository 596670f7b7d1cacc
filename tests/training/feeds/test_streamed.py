"""Training from a stream of JPEG files: the same whatever decodes it, on however many devices."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.on_host import train_image
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.sources.opening import load_data
from spa_jax.data.splits.samplers import draw_probabilities
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.training.checking import check_run, prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.feeds.batch import prepare
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.program import Program
from spa_jax.training.recipes import places_lt
from tests.data.tiny_jpeg import write_photographs
from tests.refusals import refusal
from tests.training.feeds.feeding import after_steps, batches_of, state_at
from tests.training.small import assert_close, small_config, small_program
from tests.training.test_processes import run_on_two_hosts

HOST = """
import sys
from pathlib import Path
import jax
from tests.training.feeds.test_streamed import stream_config
from spa_jax.training.loop import run

if __name__ == "__main__":
    number, port, workdir, folder = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
    run(stream_config(folder), Path(workdir))
"""


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
        "augment__crop_padding": 2,
        "augment__flip": True,
        "augment__cutout": 3,
        "augment__color_jitter": 0.2,
        "augment__mix": "cutmix",
        "model__small__widths": (4,),
        "optimizer__learning_rate": 0.02,
        "spa__method": "proj",
        "loader__workers": 0,
    }
    return small_config(**(settings | changes))


def glmc_config(folder, **changes):
    """Two streams of two views each, and no other augmentation on the device."""
    settings = {
        "method__name": "glmc",
        "method__glmc__sampler_power": 1.0,
        "method__glmc__projection_dim": 8,
        "augment__mix": "none",
        "augment__cutout": 0,
        "augment__crop_padding": 0,
        "augment__flip": False,
        "spa__method": "none",
    }
    return stream_config(folder, **(settings | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def cutmix_program(folder):
    return small_program(stream_config(folder))


@pytest.fixture(scope="module")
def glmc_program(folder):
    return small_program(glmc_config(folder))


def arrived(config, epochs=(0, 1)):
    """What a stream brings for each step of some epochs, on the host."""
    feed = small_program(config).feed
    found = [inputs for epoch in epochs for inputs in feed.batches(state_at(0), 0, epoch)]
    feed.close()
    return jax.device_get(found)


# Devices, processes, resumption


@pytest.mark.thorough
def test_eight_devices_train_on_the_views_that_one_trains_on(folder, glmc_program):
    eight = Program(glmc_config(folder, parallel="shard_map"))
    assert eight.layout.num_devices == 8
    assert_close(after_steps(glmc_program, 3), after_steps(eight, 3), 1e-5)


@pytest.mark.thorough
def test_eight_devices_train_and_test_on_the_stream_that_one_has(folder, cutmix_program):
    """Under `pmap`, whose batches have an axis of devices."""
    eight = Program(stream_config(folder, parallel="pmap"))
    assert_close(after_steps(cutmix_program, 3), after_steps(eight, 3), 1e-5)
    reports = [
        jax.device_get(program.evaluate(program.init_state(program.config)))
        for program in (cutmix_program, eight)
    ]
    assert reports[0]["count"].tolist() == [4, 4, 4]
    assert_close(*reports, 1e-5)


@pytest.fixture(scope="module")
def whole_run(folder, glmc_program, tmp_path_factory):
    """The summary of a run on two streams that was not stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    return run(glmc_config(folder), workdir, glmc_program, say=lambda line: None)


@pytest.mark.thorough
def test_a_run_on_two_streams_goes_on_where_it_was_stopped(
    folder, glmc_program, whole_run, tmp_path
):
    config = glmc_config(folder)
    with pytest.raises(RunStopped):
        run(config, tmp_path, glmc_program, print, keep_going=lambda: False)
    resumed = run(config, tmp_path, glmc_program, say=lambda line: None)
    assert resumed["params_checksum"] == whole_run["params_checksum"]
    for field in ("test_accuracy", "heads", "per_class_test_cosine"):
        assert resumed[field] == whole_run[field]


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_two_hosts_that_decode_their_own_rows_train_as_one_does(folder, cutmix_program, tmp_path):
    run_on_two_hosts(HOST, tmp_path / "two", folder)
    alone = run(stream_config(folder), tmp_path / "one", cutmix_program, print)
    together = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert together["hardware"]["processes"] == 2
    assert together["split_checksum"] == alone["split_checksum"]
    for field in ("per_class_cosine", "per_class_test_cosine"):
        np.testing.assert_allclose(together[field], alone[field], atol=1e-3)


def test_an_epoch_that_was_left_early_does_not_shift_the_next_and_can_be_entered_again(
    cutmix_program,
):
    feed = cutmix_program.feed
    left = iter(feed.batches(state_at(0), 0, 0))
    next(left)
    ((after,), _) = feed.batches(state_at(0), 0, 1)
    feed.close()
    ((fresh,), (second,)) = feed.batches(state_at(0), 0, 1)
    ((entered,),) = feed.batches(state_at(0), 0, 1, done=1)
    feed.close()
    np.testing.assert_array_equal(after.images, fresh.images)
    np.testing.assert_array_equal(entered.images, second.images)


# What a stream brings


@pytest.fixture(scope="module")
def two_streams(folder):
    """For each of four steps a batch of each draw."""
    return arrived(glmc_config(folder))


def test_every_image_of_a_stream_comes_in_two_views(two_streams):
    assert len(two_streams) == 4
    for draws in two_streams:
        assert len(draws) == 2
        for batch in draws:
            assert batch.images.shape == batch.second_images.shape == (16, 12, 12, 3)
            assert batch.images.dtype == np.uint8
            views = {
                view.tobytes() for images in (batch.images, batch.second_images) for view in images
            }
            assert len(views) == 32
            assert batch.labels.shape == (16,)
            assert batch.positions.tolist() == list(range(16))


def test_the_views_and_draws_of_a_stream_reach_the_network(glmc_program, two_streams):
    first, other = two_streams[0]
    batches = batches_of(glmc_program.feed)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batches)
    for part, drawn, position in ((batch, first, 0), (batch.partner, other, 16)):
        for name in ("images", "second_images", "labels"):
            np.testing.assert_array_equal(getattr(part, name), getattr(drawn, name))
        np.testing.assert_array_equal(part.positions, position + drawn.positions)

    def as_float(images):
        return images.astype(jnp.float32)

    views = resolve(glmc_program.config).views
    seen = functools.partial(prepare, augment=AugmentOptions(), views=views, normalize=as_float)
    inputs = jax.device_get(jax.jit(seen)(jax.random.key(0), jnp.int32(0), batch))
    np.testing.assert_array_equal(inputs.clean_images, first.images.astype(np.float32))
    own = (inputs.second_images == first.second_images).all(axis=(0, 3))
    pasted = (inputs.second_images == other.second_images).all(axis=(0, 3))
    assert (own | pasted).all()
    assert own.any()
    assert pasted.any()


@pytest.mark.thorough
def test_two_workers_bring_what_none_does(two_streams, folder):
    again = arrived(glmc_config(folder, loader__workers=2))
    assert jax.tree.structure(two_streams) == jax.tree.structure(again)
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, other, strict=True),
        two_streams,
        again,
    )


def test_every_view_belongs_to_the_seed_the_step_the_row_the_draw_and_the_view(two_streams, folder):
    """The first of all is drawn as where there is one draw and one view."""
    train = load_data(resolve(glmc_config(folder)).data).train
    options = AugmentOptions(image_size=12, resize=14, color_jitter=0.2)
    weights = 1.0 / np.array([20, 10, 7])[train.labels]
    orders = (EpochOrder(0, 37, 16), EpochOrder(0, 37, 16, weights, stream=1))
    letters = int.from_bytes(b"AUGM", "big")
    for step, row in ((0, 0), (1, 9), (3, 15)):
        for draw, view in itertools.product((0, 1), (0, 1)):
            entropy = [0, letters, step, row] + ([draw, view] if draw or view else [])
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
            data = train.images[int(orders[draw].batch(step)[row])]
            expected = train_image(generator, data, "an image", options)
            batch = two_streams[step][draw]
            found = (batch.images, batch.second_images)[view][row]
            np.testing.assert_array_equal(found, expected)


def test_the_first_view_of_the_first_draw_is_that_of_a_run_without_more(two_streams, folder):
    for (first, _), (alone,) in zip(
        two_streams, arrived(stream_config(folder, augment__mix="none")), strict=True
    ):
        assert alone.second_images is None
        for name in ("images", "labels", "positions"):
            np.testing.assert_array_equal(getattr(first, name), getattr(alone, name))


def test_a_streams_samplers_draw_by_the_weights_of_their_classes(two_streams, folder):
    config = stream_config(folder, data__sampler="class_aware", augment__mix="none")
    labels = load_data(resolve(config).data).train.labels
    by_class = draw_probabilities(labels, "class_aware")
    for stream, steps in (
        (0, [batch for (batch,) in arrived(config)]),
        (1, [second for _, second in two_streams]),  # of power 1, which is the same
    ):
        order = EpochOrder(0, 37, 16, by_class, stream)
        for step, batch in enumerate(steps):
            np.testing.assert_array_equal(batch.labels, labels[order.batch(step)])


def test_decoded_images_stream_at_their_own_size_and_in_two_views_where_colours_change():
    """They are not cropped on the host; a second view of the same colours would be none."""
    changes = {"data__feed": "stream", "loader__workers": 0, "method__name": "glmc"}
    config = small_config(**changes)
    first, _ = arrived(config, [0])[0]
    assert first.images.shape == (64, 8, 8, 3)
    assert first.second_images is None
    data = load_data(resolve(config).data)
    known = {image.tobytes(): label for image, label in pairs(data)}
    grey = first.images[..., :1]
    np.testing.assert_array_equal(first.images, np.broadcast_to(grey, first.images.shape))
    assert [known[image.tobytes()] for image in grey] == first.labels.tolist()
    coloured, _ = arrived(small_config(**changes, augment__color_jitter=0.5), [0])[0]
    assert (coloured.images != coloured.second_images).any(axis=(1, 2, 3)).all()
    changes |= {"method__name": "bcl", "augment__color_jitter": 0.5}
    (unmixed,) = arrived(small_config(**changes), [0])[0]
    assert (unmixed.images != unmixed.second_images).any(axis=(1, 2, 3)).all()


def pairs(data):
    return zip(data.train.images, data.train.labels.tolist(), strict=True)


# Orders


def documented_order(seed, epoch, number, batch, stream=None):
    """Philox of the seed, the letters ORDR and the epoch; and the stream, if there are several."""
    letters = int.from_bytes(b"ORDR", "big")
    entropy = [seed, letters, epoch] + ([] if stream is None else [stream])
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    return generator.permutation(number)[: number // batch * batch].reshape(-1, batch)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (2**31 - 1, 199)])
def test_the_first_stream_of_orders_is_the_one_there_is_without_others(seed, epoch):
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


# A part that is held out


@pytest.mark.thorough
def test_a_held_out_part_is_evaluated_too_with_all_its_classes_alike(tmp_path):
    config = small_config(data__validation=True, model__small__widths=(4,))
    program = small_program(config)
    summary = run(config, tmp_path, program, say=lambda line: None)
    data = program.data
    assert data.validation is not None
    assert len(data.train) + len(data.validation) == 369
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["validation_accuracy"] for line in lines]
    assert summary["validation_accuracy"]["last"] == accuracies[-1]
    assert summary["validation_accuracy"]["best"] == max(accuracies)
    held_out = small_program(config, data=dataclasses.replace(data, test=data.validation))
    report = jax.device_get(held_out.evaluate(held_out.init_state(config)))
    np.testing.assert_array_equal(report["correct"], report["validation_correct"])
    np.testing.assert_array_equal(
        report["count"], np.bincount(data.validation.labels, minlength=10)
    )


# Refusals


@pytest.mark.thorough
def test_both_stages_of_places_lt_train_on_photographs_that_lists_name(folder, tmp_path):
    """With a small network in place of ResNet-152, which no ImageNet weights start here."""
    lists = {}
    for part, name in (("train", "train"), ("val", "test")):
        files = sorted((folder / part).rglob("*.jpg"))
        lines = [f"{file.relative_to(folder)} {file.parent.name[-1]}" for file in files]
        lists[name] = tmp_path / f"{name}.txt"
        lists[name].write_text("\n".join(lines))
    for recipe, first in (("mixup", ""), ("crt", "mixup")):
        config = places_lt(recipe)
        config.data.folder = str(folder)
        config.data.train_list, config.data.test_list = map(str, lists.values())
        config.init.run = str(tmp_path / first) if first else ""
        config.model.name, config.model.dtype = "small", "float32"
        config.model.small.widths = (4,)
        config.augment.image_size, config.augment.resize = 12, 14
        config.epochs, config.batch_size, config.loader.workers = 1, 16, 0
        config.logging.plots, config.logging.tensorboard = False, False
        summary = run(config, tmp_path / recipe, small_program(config), lambda line: None)
        assert summary["class_counts"] == [20, 10, 7]
        assert summary["steps"] == 2
    assert summary["init"]["run"] == str(tmp_path / "mixup")


def test_a_broken_file_stops_the_run_with_its_name(folder, tmp_path):
    program = small_program(stream_config(folder))
    victim = program.data.train.names[EpochOrder(0, 37, 16).batch(0)[3]]
    copy_with_one_cut_file(folder, tmp_path / "copy", victim)
    config = stream_config(tmp_path / "copy")
    message = refusal(run, config, tmp_path / "run", small_program(config), say=print)
    assert Path(victim).name in message


def copy_with_one_cut_file(folder, target, victim):
    for path in folder.rglob("*.jpg"):
        content = path.read_bytes()
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        cut = str(path.relative_to(folder)) == victim
        place.write_bytes(content[: len(content) // 2] if cut else content)


def test_the_device_memory_is_refused_for_files(folder):
    message = refusal(check_run, stream_config(folder, data__feed="device"))
    assert "config.data.feed=stream" in message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"augment__blur": 0.5}, "config.augment.blur"),
        ({"augment__image_size": 8}, "config.augment.image_size"),
        ({"data__feed": "stream", "augment__min_area": 0.5}, "config.augment.min_area"),
        ({"model__dtype": "bfloat16"}, "config.model.dtype"),
        ({"model__batch_norm": "per_device"}, "config.model.batch_norm"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(changes, field):
    assert field in refusal(check_run, small_config(**changes))


def test_images_that_are_not_square_are_refused_by_a_stream():
    wide = LabelledImages(np.zeros((64, 8, 16, 3), np.uint8), np.arange(64, dtype=np.int32) % 2)
    data = LongTailedDataset("wide", wide, wide, ("a", "b"), {"checksum": "c"})
    message = refusal(prepare_run, resolve(small_config(data__feed="stream")), data)
    assert "8 by 16" in message
    assert "config.data.feed=device" in message

"""Training from a stream of JPEG files: the same whatever decodes it, on however many devices."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.training.build import load_data
from spa_jax.training.loop import run
from spa_jax.training.program import Program
from tests.data.tiny_jpeg import write_photographs
from tests.refusals import refusal
from tests.training.small import small_config
from tests.training.test_parallel import assert_close
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
        "optimizer__learning_rate": 0.02,
        "spa__method": "proj",
        "loader__workers": 0,
    }
    return small_config(**(settings | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def states_of(program, config, steps):
    """The host copy of the state after some steps from the start, and of the evaluation."""
    state, totals = program.init_state(config), program.zero_totals
    done = 0
    while done < steps:
        for inputs in program.batches(state, config.seed, done // program.steps_per_epoch):
            state, totals = program.train_step(state, totals, inputs)
            done += 1
    report = program.evaluate(state)
    program.feed.close()
    return jax.device_get((state.replace(rng=jax.random.key_data(state.rng)), totals, report))


@pytest.fixture(scope="module")
def one_device(folder):
    config = stream_config(folder)
    return states_of(Program(config, devices=jax.devices()[:1]), config, 4)


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_eight_devices_train_on_the_stream_that_one_trains_on(mode, folder, one_device):
    config = stream_config(folder, parallel=mode)
    eight = states_of(Program(config), config, 4)
    assert np.asarray(one_device[2]["count"]).tolist() == [4, 4, 4]
    assert_close(one_device, eight, 1e-5)


def test_a_resumed_stream_goes_on_where_the_run_was_stopped(folder, tmp_path, monkeypatch):
    config = stream_config(folder)
    whole = run(config, tmp_path / "whole", say=lambda line: None)
    program = Program(config)
    evaluate, calls = program.evaluate, []

    def stop_in_the_second_epoch(state):
        calls.append(state)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(state)

    monkeypatch.setattr(program, "evaluate", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", program, say=lambda line: None)
    resumed = run(config, tmp_path / "cut", say=lambda line: None)
    assert resumed["params_checksum"] == whole["params_checksum"]


def test_two_hosts_that_decode_their_own_rows_train_as_one_does(folder, tmp_path):
    run_on_two_hosts(HOST, tmp_path / "two", folder)
    config = stream_config(folder)
    alone = run(config, tmp_path / "one", Program(config, devices=jax.devices()[:4]), print)
    together = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert together["hardware"]["processes"] == 2
    assert together["split_checksum"] == alone["split_checksum"]
    for field in ("per_class_cosine", "per_class_test_cosine"):
        np.testing.assert_allclose(together[field], alone[field], atol=1e-3)


def test_a_broken_file_stops_the_run_with_its_name(folder, tmp_path):
    config = stream_config(folder)
    data = load_data(config)
    victim = data.train.names[3]
    copy_with_one_cut_file(folder, tmp_path / "copy", victim)
    message = refusal(run, stream_config(tmp_path / "copy"), tmp_path / "run", say=print)
    assert Path(victim).name in message


def copy_with_one_cut_file(folder, target, victim):
    for path in folder.rglob("*.jpg"):
        content = path.read_bytes()
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        cut = str(path.relative_to(folder)) == victim
        place.write_bytes(content[: len(content) // 2] if cut else content)


def test_the_device_memory_is_refused_for_files(folder):
    message = refusal(Program, stream_config(folder, data__feed="device"))
    assert "config.data.feed=stream" in message


def test_decoded_images_stream_at_their_own_size():
    config = small_config(data__feed="stream", loader__workers=0, augment__crop_padding=0)
    program = Program(config, devices=jax.devices()[:1])
    assert program.feed.image_shape == (8, 8, 3)
    state = program.init_state(config)
    images, labels, positions = next(iter(program.batches(state, 0, 0)))
    program.feed.close()
    known = {image.tobytes(): label for image, label in pairs(program.data)}
    grey = np.asarray(images)[..., :1]
    np.testing.assert_array_equal(images, np.broadcast_to(grey, images.shape))
    assert [known[image.tobytes()] for image in grey] == labels.tolist()
    assert positions.tolist() == list(range(64))


def pairs(data: LongTailedDataset):
    return zip(data.train.images, data.train.labels.tolist(), strict=True)


def test_a_held_out_part_is_evaluated_too_with_all_its_classes_alike(tmp_path):
    config = small_config(data__validation=True)
    summary = run(config, tmp_path, say=lambda line: None)
    data = load_data(config)
    assert data.validation is not None
    assert len(data.train) + len(data.validation) == 369
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["validation_accuracy"] for line in lines]
    assert summary["validation_accuracy"]["last"] == accuracies[-1]
    assert summary["validation_accuracy"]["best"] == max(accuracies)
    program = Program(config, dataclasses.replace(data, test=data.validation))
    report = jax.device_get(program.evaluate(program.init_state(config)))
    np.testing.assert_array_equal(report["correct"], report["validation_correct"])
    np.testing.assert_array_equal(
        report["count"], np.bincount(data.validation.labels, minlength=10)
    )


def test_a_streams_sampler_shows_rare_classes_as_often_as_it_says(folder):
    config = stream_config(folder, data__sampler="class_aware", augment__mix="none", epochs=40)
    program = Program(config, devices=jax.devices()[:1])
    state = program.init_state(config)
    labels = [
        np.asarray(inputs[1]) for epoch in range(40) for inputs in program.batches(state, 0, epoch)
    ]
    program.feed.close()
    share = np.bincount(np.concatenate(labels), minlength=3) / (40 * 2 * 16)
    np.testing.assert_allclose(share, np.full(3, 1 / 3), atol=4.5 * np.sqrt(2 / 9 / 1280))


def test_an_epoch_that_was_left_early_does_not_shift_the_next(folder):
    config = stream_config(folder, augment__mix="none")
    program = Program(config, devices=jax.devices()[:1])
    state = program.init_state(config)
    left = iter(program.batches(state, 0, 0))
    next(left)
    after, _ = program.batches(state, 0, 1)
    program.feed.close()
    fresh, _ = program.batches(state, 0, 1)
    program.feed.close()
    np.testing.assert_array_equal(after[0], fresh[0])


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
    message = refusal(Program, small_config(**changes), None, jax.devices()[:1])
    assert field in message


def test_images_that_are_not_square_are_refused_by_a_stream():
    wide = LabelledImages(np.zeros((64, 8, 16, 3), np.uint8), np.arange(64, dtype=np.int32) % 2)
    data = LongTailedDataset("wide", wide, wide, ("a", "b"), {"checksum": "c"})
    message = refusal(Program, small_config(data__feed="stream"), data, jax.devices()[:1])
    assert "8 by 16" in message
    assert "config.data.feed=device" in message

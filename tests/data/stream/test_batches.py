"""Streams of decoded batches: what they hold, on however many workers and processes."""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.dataset import LabelledImages
from spa_jax.data.stream.batches import HostBatch, ImageBatches, read_batches, stream_side
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.errors import InputError
from tests.data.tiny_jpeg import NUM_IMAGES, image_size, smooth_image, write_tiny_jpegs
from tests.refusals import refusal

REPOSITORY = Path(__file__).parents[3]
BATCH, STEPS = 12, 7  # an epoch of 42 images is 3 batches, 6 images are left out
OPTIONS = AugmentOptions(image_size=24, resize=28, color_jitter=0.4, grey=0.2, blur=0.5)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_tiny_jpegs(tmp_path_factory.mktemp("jpegs"))


def order(seed=3, weights=None):
    return EpochOrder(seed, NUM_IMAGES, BATCH, weights)


def train_stream(examples, steps=range(STEPS), rows=None, workers=0, options=OPTIONS, by=None):
    """Batches of training; as many as the steps say of all rows, unless others are named."""
    rows, by = np.arange(BATCH) if rows is None else rows, order() if by is None else by
    return read_batches(ImageBatches(examples, rows, options, steps, BATCH, by), workers)


def folders_of(pid):
    """Folders through which the workers of a process hand their batches over."""
    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    return [found for place in places for found in place.glob(f"spa_jax_{pid}_*")]


@pytest.fixture(scope="module")
def batches(examples):
    """Makes batches of the first steps, once a number of workers; a stream is closed early."""

    @functools.cache
    def on(workers):
        if not workers:
            return list(train_stream(examples))
        stream = train_stream(examples, range(1000), workers=workers)
        found = list(itertools.islice(stream, STEPS))
        assert len(multiprocessing.active_children()) == workers
        assert len(folders_of(os.getpid())) == 1
        stream.close()
        assert not multiprocessing.active_children()
        assert not folders_of(os.getpid())
        return found

    return on


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in HostBatch._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)


# Training streams


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_nothing(batches, workers):
    assert_same(batches(workers), batches(0))


def test_a_batch_has_the_order_s_labels_and_the_types_that_devices_take(batches, examples):
    assert len(batches(0)) == STEPS
    for step, batch in enumerate(batches(0)):
        assert batch.images.shape == (BATCH, 24, 24, 3)
        dtypes = [part.dtype for part in batch]
        assert dtypes == [np.uint8, np.int32, np.int32, np.float32]
        np.testing.assert_array_equal(batch.labels, examples.labels[order().batch(step)])
        np.testing.assert_array_equal(batch.positions, np.arange(BATCH))
        np.testing.assert_array_equal(batch.mask, np.ones(BATCH))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_plain_arrays_that_may_be_kept_and_written_to(batches, workers):
    for batch in batches(workers):
        assert type(batch.images) is np.ndarray
        assert batch.images.flags.writeable


def test_two_processes_provide_the_halves_of_one_batch(batches, examples):
    rows = [np.arange(BATCH)[half::2] for half in range(2)]
    halves = [list(train_stream(examples, rows=part)) for part in rows]
    for step, batch in enumerate(batches(0)):
        for half in range(2):
            for name in HostBatch._fields:
                found = getattr(halves[half][step], name)
                np.testing.assert_array_equal(found, getattr(batch, name)[half::2], strict=True)


@pytest.mark.parametrize("start", [1, 3, 5, STEPS])
def test_starting_at_a_step_is_skipping_those_before(batches, examples, start):
    assert_same(list(train_stream(examples, range(start, STEPS))), batches(0)[start:])


def test_each_row_and_each_step_is_augmented_differently(examples):
    """One image over and over: every difference is the augmentation's."""
    one = examples.take(np.zeros(BATCH, int))
    single = EpochOrder(0, BATCH, BATCH)
    options = dataclasses.replace(OPTIONS, grey=0.0)
    found = train_stream(one, range(3), options=options, by=single)
    images = np.concatenate([batch.images for batch in found])
    assert len({image.tobytes() for image in images}) == 3 * BATCH


def index_images(number, size=6):
    """Images that hold their own position, in places that a flip would move."""
    images = np.zeros((number, size, size, 3), np.uint8)
    images[:, :, 0] = np.arange(number, dtype=np.uint8)[:, None, None]
    return LabelledImages(images, np.arange(number, dtype=np.int32) % 5)


def test_decoded_images_pass_through_in_the_order_s_places():
    examples = index_images(NUM_IMAGES)
    rows = np.array([7, 2, 3])
    found = list(train_stream(examples, range(2, STEPS), rows, 2, AugmentOptions()))
    for step, batch in enumerate(found, start=2):
        expected = examples.take(order().batch(step)[rows]).images
        np.testing.assert_array_equal(batch.images, expected)
        np.testing.assert_array_equal(batch.positions, rows)


def test_decoded_images_are_never_sent_to_processes():
    found = train_stream(index_images(NUM_IMAGES), workers=2, options=AugmentOptions())
    with contextlib.closing(found):
        next(found)
        assert not multiprocessing.active_children()


# Test streams


def read_test(examples, batch_size=16, rows=None, workers=0):
    rows = np.arange(batch_size) if rows is None else rows
    steps = range(-(-len(examples) // batch_size))
    return list(read_batches(ImageBatches(examples, rows, OPTIONS, steps, batch_size), workers))


def test_a_test_stream_has_every_image_once_and_pads_the_last_batch(examples):
    found = read_test(examples)
    assert [batch.mask.sum() for batch in found] == [16, 16, 10]
    images, labels, _, mask = (np.concatenate(part) for part in zip(*found, strict=True))
    np.testing.assert_array_equal(mask, np.arange(48) < NUM_IMAGES)
    np.testing.assert_array_equal(labels[:NUM_IMAGES], examples.labels)
    np.testing.assert_array_equal(labels[NUM_IMAGES:], 0)
    assert not images[NUM_IMAGES:].any()
    for number in (0, 20, 41):
        height, width = image_size(number)
        image = Image.fromarray(smooth_image(number, height, width))
        side = min(height, width) * 24 / 28
        left, top = (width - side) / 2, (height - side) / 2
        corners = (left, top, left + side, top + side)
        expected = image.resize((24, 24), Image.Resampling.BILINEAR, corners)
        assert np.abs(images[number] - np.asarray(expected, float)).mean() < 5


def test_a_test_stream_is_the_same_on_two_processes(examples):
    whole = read_test(examples)
    rows = np.array([1, 4, 11, 15])
    part = read_test(examples, rows=rows)
    assert_same(part, [HostBatch(*(field[rows] for field in batch)) for batch in whole])


def test_a_batch_larger_than_the_test_set_is_padded(examples):
    (batch,) = read_test(examples.take(np.arange(3)), batch_size=5)
    assert batch.mask.tolist() == [1, 1, 1, 0, 0]


# Ends, good and bad


def test_a_broken_image_reaches_the_user_by_name_and_ends_the_workers(tmp_path):
    examples = write_tiny_jpegs(tmp_path)
    broken = str(np.asarray(examples.names)[order().batch(1)[4]])
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:300])
    for workers in (0, 1):
        found = train_stream(examples, workers=workers)
        next(found)
        with pytest.raises(InputError) as caught:
            next(found)
        message = str(caught.value)
        assert message.startswith(f"{broken} cannot be decoded")
        assert "\n" not in message
        assert caught.value.__suppress_context__  # no traceback of a worker
        assert not multiprocessing.active_children()
        with pytest.raises(StopIteration):
            next(found)


SCRIPT = """
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.stream.batches import ImageBatches, read_batches
from spa_jax.data.stream.epoch_order import EpochOrder
from tests.data.tiny_jpeg import write_tiny_jpegs

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir()
    examples = write_tiny_jpegs(folder)
    order = EpochOrder(0, len(examples), 8)
    options = AugmentOptions(image_size=16, resize=16)
    batches = ImageBatches(examples, np.arange(8), options, range(10**6), 8, order)
    stream = read_batches(batches, workers=1)
    batch = next(stream)
    assert not flags.FLAGS.is_parsed()
    from multiprocessing import active_children
    print(active_children()[0].pid, flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
"""


def start_script(tmp_path, what):
    """A script of its own with a stream that it never closes; gives it and its worker's pid."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, "-W", "error", str(path), str(tmp_path / "jpegs"), what],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    line = script.stdout.readline()
    assert line.strip().isdigit(), script.communicate()
    return script, int(line)


def assert_ends(pid):
    """Waits until a process is gone, or is a zombie that nobody in this container collects."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still there")


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_plain_script_that_ends_without_closing_is_silent_and_leaves_no_worker(tmp_path):
    """absl's flags are not parsed there, and stay so."""
    script, worker = start_script(tmp_path, "end")
    _, errors = script.communicate(timeout=100)
    assert errors == ""
    assert script.returncode == 0
    assert_ends(worker)
    assert not folders_of(script.pid)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_worker_does_not_outlive_its_parent(tmp_path, blow):
    script, worker = start_script(tmp_path, "wait")
    script.send_signal(blow)
    script.communicate(timeout=100)
    assert_ends(worker)
    assert not folders_of(script.pid)


def test_a_killed_worker_is_an_error_and_not_a_hang_and_a_preempted_one_goes_on(examples):
    found = train_stream(examples, range(10**6), workers=1)
    next(found)
    (worker,) = multiprocessing.active_children()
    worker.terminate()  # as where all processes of a job are told
    worker.join(0.3)
    assert worker.is_alive()
    worker.kill()
    with pytest.raises(InputError, match="exit code -9"):
        for _ in range(20):
            next(found)


# Refusals


def test_images_that_cannot_become_rgb_are_refused():
    examples = LabelledImages(np.zeros((42, 5, 5, 2), np.uint8), np.zeros(42, np.int32))
    assert "(42, 5, 5, 2)" in refusal(stream_side, examples, OPTIONS)


def test_images_that_are_not_square_are_refused_with_what_to_do():
    examples = LabelledImages(np.zeros((42, 5, 6, 3), np.uint8), np.zeros(42, np.int32))
    message = refusal(stream_side, examples, OPTIONS)
    assert "5 by 6 pixels" in message
    assert "config.data.feed=device" in message


# Orders


@pytest.mark.parametrize(("number", "batch"), [(42, 12), (42, 7), (5, 5), (5, 1)])
def test_an_epoch_is_a_permutation_less_the_remainder(number, batch):
    found = EpochOrder(1, number, batch)
    left_out = set()
    for epoch in range(30):
        positions = found.epoch(epoch)
        assert positions.shape == (number // batch, batch)
        assert positions.dtype == np.int64
        seen = set(positions.ravel().tolist())
        assert len(seen) == positions.size
        assert seen <= set(range(number))
        left_out |= set(range(number)) - seen
    assert found.steps_per_epoch == number // batch
    assert len(left_out) == (number if number % batch else 0)  # never the same


def test_epochs_and_seeds_have_different_orders_and_the_same_one_again():
    orders = [EpochOrder(seed, 50, 10).epoch(epoch) for seed in range(4) for epoch in range(4)]
    assert len({found.tobytes() for found in orders}) == 16
    np.testing.assert_array_equal(EpochOrder(2, 50, 10).epoch(3), orders[2 * 4 + 3])


def test_the_order_of_published_runs_stays_what_it_was():
    assert EpochOrder(0, 10, 5).epoch(1).tolist() == [[8, 5, 4, 6, 7], [0, 3, 1, 9, 2]]


def test_a_step_counts_over_all_epochs():
    found = order()
    for step in (0, 2, 3, 4, 8, 1):  # back and forth, past what it keeps
        np.testing.assert_array_equal(found.batch(step), order().epoch(step // 3)[step % 3])


def test_the_newest_epoch_is_kept_and_cannot_be_spoilt():
    found = order()
    assert found.epoch(5) is found.epoch(5)
    with pytest.raises(ValueError, match="read-only"):
        found.epoch(5)[0, 0] = 1


def test_an_order_travels_to_workers_without_what_it_keeps():
    found = EpochOrder(0, 100_000, 10, np.ones(100_000, np.float32))
    size = len(pickle.dumps(found))
    found.epoch(0)
    assert len(pickle.dumps(found)) == size
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).epoch(2), found.epoch(2))


def test_weighted_examples_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0.0, 1.0, 2.0, 7.0])
    found = EpochOrder(0, 4, 2, 30 * weights)
    counts = np.bincount(
        np.concatenate([found.epoch(epoch).ravel() for epoch in range(2500)]), minlength=4
    )
    assert found.epoch(0).shape == (2, 2)
    assert found.epoch(0).dtype == np.int64
    np.testing.assert_allclose(counts / 10_000, weights / 10, atol=0.02)
    assert counts[0] == 0
    epochs = {found.epoch(epoch).tobytes() for epoch in range(100)}
    assert len(epochs) > 20

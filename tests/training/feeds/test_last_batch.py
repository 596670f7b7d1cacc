"""The smaller last batch of an epoch: all examples are shown, on any device, and after a stop."""

import jax
import numpy as np
import pytest

from spa_jax.training.checking import check_run
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.metrics import fetch
from tests.refusals import refusal
from tests.training.feeds.feeding import after_steps, feed_of, state_at
from tests.training.small import assert_close, small_config, small_program

KEPT = {"data__drop_last": False}


def batches_of_epoch(feed, epoch=1, done=0):
    first = epoch * feed.steps_per_epoch
    inputs = feed.batches(state_at(first + done), 0, epoch, done)
    return [fetch(feed.batch(state_at(first + done + i), each)) for i, each in enumerate(inputs)]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "changes",
    [{}, {"augment__mix": "mixup"}, {"method__name": "glmc", "method__glmc__sampler_power": 0.5}],
    ids=["alone", "permuted", "drawn"],
)
def test_an_epoch_ends_with_what_does_not_fill_a_batch(changes):
    """369 training images."""
    feed = feed_of(**KEPT, **changes)
    batches = batches_of_epoch(feed)
    assert feed.steps_per_epoch == len(batches) == 6
    assert [len(batch.labels) for batch in batches] == [64] * 5 + [49]
    labels = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(np.sort(labels), np.sort(feed.data.train.labels))
    last = batches[-1]
    np.testing.assert_array_equal(last.positions, np.arange(49))
    if changes:
        assert last.partner.images.shape == last.images.shape
    if "augment__mix" in changes:
        assert sorted(last.partner.positions.tolist()) == list(range(49))
    # All but the last are those of the same epoch without it, and a step says where to go on.
    assert_same(batches[2:], batches_of_epoch(feed, done=2))
    assert_same(batches[5:], batches_of_epoch(feed, done=5))
    whole = batches_of_epoch(feed_of(**changes))
    assert len(whole) == 5
    np.testing.assert_array_equal(whole[0].images, batches[0].images)
    np.testing.assert_array_equal(whole[4].positions, batches[4].positions)


def test_what_fills_every_batch_has_no_smaller_one():
    feed = feed_of(batch_size=41, **KEPT)
    assert [len(batch.labels) for batch in batches_of_epoch(feed)] == [41] * 9


@pytest.mark.thorough
def test_devices_share_the_last_batch_too_or_all_have_it():
    """Of nine images, after six batches of 60; four devices do not divide nine."""
    changes = KEPT | {"batch_size": 60, "optimizer__learning_rate": 0.02, "spa__method": "proj"}
    alone, *states = [
        after_steps(small_program(small_config(parallel=mode, **changes), devices), 7)
        for mode, devices in (("jit", 1), ("pmap", 3), ("jit", 4))
    ]
    for found in states:
        assert_close(alone, found, 1e-5)
    assert int(alone[1].steps) == 7


@pytest.mark.thorough
def test_a_run_with_it_goes_on_after_a_stop_and_ends_at_its_true_number_of_steps(tmp_path):
    config = small_config(spa__method="slerp", spa__slerp__alpha_max=0.3, **KEPT)
    program = small_program(config)

    def train(name, keep_going=lambda: True):
        return run(config, tmp_path / name, program, lambda line: None, keep_going=keep_going)

    whole = train("whole")
    assert whole["steps"] == 12
    with pytest.raises(RunStopped):
        train("broken", keep_going=lambda: False)
    assert train("broken")["params_checksum"] == whole["params_checksum"]


REFUSED = {
    "devices": ({"parallel": "pmap"}, "a last batch of 49 examples, which cannot be cut into 8"),
    "micro-batches": (
        {"batch_size": 160, "accumulation_steps": 20},
        "a last batch of 49 examples, which cannot be cut into 20 equal parts",
    ),
    "a stream": ({"data__feed": "stream"}, "of a stream each process reads the same rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_last_batch_that_cannot_be_cut_is_refused(case):
    changes, message = REFUSED[case]
    assert message in refusal(check_run, small_config(**KEPT, **changes))

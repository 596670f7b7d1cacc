"""Micro-batches one after another are one step on the batch."""

import jax
import numpy as np
import pytest

from spa_jax.training.checking import check_run
from spa_jax.training.metrics import fetch
from spa_jax.training.rundir.checkpoints import serializable
from tests.parameters import first
from tests.refusals import refusal
from tests.training.small import assert_close, small_config, small_program, take_steps

# A network without batch statistics.
VIT = {
    "model__name": "vit",
    "model__vit__patch_size": 4,
    "model__vit__width": 8,
    "model__vit__layers": 1,
    "optimizer__learning_rate": 0.05,
}
CASES = {
    # A loss term that is added once, and means of images before they are mixed.
    "reg": {"augment__mix": "mixup", "spa__means_from": "clean"},
    # Counts of the whole batch, and averages that move once a step.
    "slerp": {"method__name": "arb", "optimizer__ema": 0.9, "spa__slerp__alpha_max": 0.5},
    # Weights of the whole batch, and class means of soft labels.
    "proj": {"method__name": "ldam_drw", "method__ldam_drw__epoch": 0, "augment__mix": "cutmix"},
}


@pytest.mark.parametrize("variant", first(1, CASES))
def test_two_micro_batches_are_one_batch(variant):
    changes = VIT | {"spa__method": variant} | CASES[variant]
    states, metrics = {}, {}
    for parts in (1, 2):
        config = small_config(accumulation_steps=parts, **changes)
        program = small_program(config)
        states[parts], metrics[parts] = take_steps(program, program.init_state(config), 2)
    last = [fetch(serializable(states[parts][-1])) for parts in (1, 2)]
    assert_close(last[0], last[1], 1e-5)
    assert_close(metrics[1], metrics[2], 1e-5)
    assert metrics[1][0]["loss"] != metrics[1][1]["loss"]
    assert last[0].class_means.seen.sum() > 5


def test_batch_statistics_are_of_micro_batches_and_take_less_memory(monkeypatch):
    """Twice as many updates of the running statistics, each by half of the images.

    Compiled as for accelerators: on a CPU the loop would be unrolled.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = {}
    for parts in (1, 2):
        config = small_config(accumulation_steps=parts, batch_size=256, eval_batch_size=8)
        program = small_program(config)
        (_, state), _ = take_steps(program, program.init_state(config), 1)
        found[parts] = state.batch_stats, program.device_bytes()
    means = [np.concatenate([*map(np.ravel, jax.tree.leaves(found[k][0]))]) for k in (1, 2)]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    assert found[2][1] < 0.7 * found[1][1]


REFUSED = {
    "a contrast": ({"method__name": "bcl"}, "The loss of bcl compares"),
    "a normaliser": ({"method__name": "lade"}, "The loss of lade compares"),
    # Which eight devices share, but not four times.
    "a batch": (
        {"batch_size": 72},
        "config.batch_size=72 cannot be cut into config.accumulation_steps=4 micro-batches",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused(case):
    changes, message = REFUSED[case]
    assert message in refusal(check_run, small_config(accumulation_steps=4, **changes))

"""Every method trains, composes with every SpA variant, and is the same on eight devices."""

import jax
import numpy as np
import pytest

from spa_jax.longtail.losses import batch_counts
from spa_jax.longtail.registry import METHODS
from spa_jax.training.build import build_method, build_model
from spa_jax.training.config import PARALLEL_MODES, SPA_METHODS
from spa_jax.training.program import Program
from spa_jax.training.step import Batch, make_train_step
from tests.refusals import refusal
from tests.training.small import small_config
from tests.training.test_parallel import assert_close, states_after

COUNTS = (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)


@pytest.fixture(scope="module")
def digits():
    """A program whose data and first batch the tests share."""
    return Program(small_config(), devices=jax.devices()[:1])


def batch_of(program):
    examples = program.data.train
    chosen = np.random.default_rng(0).permutation(len(examples))[:64]
    return Batch(examples.images[chosen], examples.labels[chosen], np.arange(64, dtype=np.int32))


def three_steps(program, **changes):
    """Losses and the head's kernels before and after three steps on one batch."""
    config = small_config(
        augment__crop_padding=0, augment__flip=False, optimizer__learning_rate=0.02, **changes
    )
    method = build_method(config)
    model = build_model(config, method, 10, None)
    counts = np.array(program.data.class_counts, np.float32)
    step = make_train_step(model, method, config, program.feed.normalize, counts, 5)
    own = Program(config, program.data, jax.devices()[:1])
    state, batch, step = own.init_state(config), batch_of(program), jax.jit(step)
    losses, kernels = [], [state.params["head"]["kernel"]]
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        kernels.append(state.params["head"]["kernel"])
    return losses, [np.asarray(kernel) for kernel in kernels]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_every_spa_variant_changes_what_its_head_does(name, digits):
    plain = {}
    for spa in SPA_METHODS:
        settings = {"method__name": name, "spa__method": spa, "spa__alpha_max": 0.5}
        losses, kernels = three_steps(digits, **settings)
        assert losses[2] < losses[0]
        assert np.abs(kernels[3] - kernels[0]).max() > 1e-4
        plain[spa] = kernels[3]
    for spa in ("reg", "slerp", "proj"):
        assert np.abs(plain[spa] - plain["none"]).max() > 1e-6


@pytest.mark.parametrize("mode", PARALLEL_MODES)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "cross_entropy"])
def test_eight_devices_give_a_methods_losses_and_gradients_as_one_does(name, mode):
    changes = {"method__name": name, "augment__mix": "mixup"}
    if name == "ldam_drw":
        changes["method__drw_epoch"] = 0
    one = states_after(2, jax.devices()[:1], **changes)
    eight = states_after(2, jax.devices(), parallel=mode, **changes)
    assert_close(one, eight, 1e-5)


def test_balanced_softmax_is_logit_adjustment_of_strength_one_and_arb_with_global_counts(digits):
    balanced, _ = three_steps(digits, method__name="balanced_softmax")
    adjusted, _ = three_steps(digits, method__name="logit_adjustment", method__tau=1.0)
    attraction, _ = three_steps(digits, method__name="arb", method__arb_counts="global")
    of_batch, _ = three_steps(digits, method__name="arb")
    stronger, _ = three_steps(digits, method__name="logit_adjustment", method__tau=2.0)
    assert balanced == adjusted
    np.testing.assert_allclose(balanced, attraction, rtol=1e-5)
    assert abs(balanced[0] - of_batch[0]) > 1e-3
    assert abs(balanced[0] - stronger[0]) > 1e-3


def test_post_hoc_adjustment_trains_as_cross_entropy_and_tests_with_other_logits():
    plain, totals, report = states_after(5, jax.devices()[:1])
    state, adjusted_totals, adjusted = states_after(
        5, jax.devices()[:1], method__name="post_hoc_logit_adjustment"
    )
    assert_close((plain.params, totals), (state.params, adjusted_totals), 0.0)
    assert float(adjusted["loss"]) != float(report["loss"])
    # The rarest classes are predicted more often, and so the commonest less.
    assert adjusted["correct"][0] <= report["correct"][0]


def test_class_weights_begin_with_the_epoch_that_is_named(digits):
    """The steps of the test are all in epoch 0 of 5 steps."""
    early, _ = three_steps(digits, method__name="ldam_drw", method__drw_epoch=0)
    late, _ = three_steps(digits, method__name="ldam_drw", method__drw_epoch=1)
    assert abs(early[0] - late[0]) > 1e-3


def test_a_cosine_head_is_as_long_as_it_likes(digits):
    _, kernels = three_steps(digits, method__name="ldam_drw")
    assert np.linalg.norm(kernels[0], axis=0) == pytest.approx(np.ones(10), rel=1e-5)


def test_the_counts_of_the_training_set_reach_the_loss(digits):
    assert digits.data.class_counts == COUNTS
    labels = digits.data.train.labels
    np.testing.assert_array_equal(batch_counts(labels, 10), COUNTS)


def test_an_option_of_another_method_is_refused(digits):
    config = small_config(method__name="arb", method__tau=2.0)
    message = refusal(Program, config, digits.data, jax.devices()[:1])
    assert "config.method.tau is no option of arb, which has arb_counts" in message

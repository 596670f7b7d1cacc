"""Every method trains, composes with every SpA variant, and is the same on eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment import ClassMeans
from spa_jax.alignment.kernels import find_kernels
from spa_jax.longtail.losses import batch_counts
from spa_jax.longtail.registry import METHODS
from spa_jax.training.build import build_model
from spa_jax.training.config_limits import PARALLEL_MODES, SPA_METHODS
from spa_jax.training.method import build_method, spa_options, views_of
from spa_jax.training.optimizer import build_optimizer
from spa_jax.training.program import Program
from spa_jax.training.state import TrainState, hyperparams_from
from spa_jax.training.step import Batch, make_train_step
from tests.refusals import refusal
from tests.training.small import small_config
from tests.training.test_parallel import assert_close, states_after

COUNTS = (110, 78, 56, 40, 29, 20, 14, 10, 7, 5)


@pytest.fixture(scope="module")
def digits():
    """A program whose data and first batch the tests share."""
    return Program(small_config(), devices=jax.devices()[:1])


def batch_of(program, seed=0):
    examples = program.data.train
    chosen = np.random.default_rng(seed).permutation(len(examples))[:64]
    return Batch(examples.images[chosen], examples.labels[chosen], np.arange(64, dtype=np.int32))


def three_steps(program, **changes):
    """Losses and the kernel that SpA acts on, before and after three steps on one batch."""
    config = small_config(
        augment__crop_padding=0,
        augment__flip=False,
        model__widths=(12,),
        optimizer__learning_rate=0.02,
        **changes,
    )
    method = build_method(config)
    model = build_model(config, method, 10, None)
    counts = np.array(program.data.class_counts, np.float32)
    step = make_train_step(model, method, config, program.feed.normalize, counts, 5)
    batch = batch_of(program)
    if views_of(config).mix != "none":
        batch = batch.replace(partner=batch_of(program, seed=1))
    state, step, losses = first_state(program, config), jax.jit(step), []
    kernels = [kernel_of(state, config)]
    for _ in range(3):
        # Always the same step, so that it mixes with the same coefficient.
        state, metrics = step(state.replace(step=jnp.int32(3)), batch)
        losses.append(float(metrics["loss"]))
        kernels.append(kernel_of(state, config))
    return losses, kernels


@functools.cache
def first_variables(name):
    """Of a method's network, whatever else a configuration says."""
    config = small_config(method__name=name, model__widths=(12,))
    model = build_model(config, build_method(config), 10, None)
    images = jnp.zeros((1, 8, 8, 1))
    return jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))


def first_state(program, config):
    """What :meth:`Program.init_state` makes, without compiling it for every configuration."""
    variables, hyperparams = first_variables(config.method.name), hyperparams_from(config)
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables["batch_stats"],
        constants=variables.get("constants", {}),
        opt_state=build_optimizer(config, hyperparams, 5).init(params),
        class_means=ClassMeans.create(program.data.num_classes, 12, config.spa.decay),
        rng=jax.random.key(config.seed),
        hyperparams=hyperparams,
    )


def kernel_of(state, config):
    tree = {"params": state.params, "constants": state.constants}
    (place,) = find_kernels(tree, spa_options(config)["classifier"])
    return np.asarray(jax.tree.leaves(tree)[place])


TRAINED = [
    name for name in METHODS if not build_method(small_config(method__name=name)).fixed_kernel
]


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_learns_and_every_spa_variant_changes_what_its_head_does(name, digits):
    plain = {}
    for spa in SPA_METHODS:
        settings = {"method__name": name, "spa__method": spa, "spa__alpha_max": 0.5}
        settings |= {"method__drw_epoch": 1} if name == "ldam_drw" else {}
        losses, kernels = three_steps(digits, **settings)
        assert losses[2] < losses[0]
        assert np.abs(kernels[3] - kernels[0]).max() > 1e-4
        plain[spa] = kernels[3]
    for spa in ("reg", "slerp", "proj"):
        assert np.abs(plain[spa] - plain["none"]).max() > 1e-6


@functools.cache
def two_steps_on_one_device(name):
    return states_after(2, jax.devices()[:1], **spread_out(name))


def spread_out(name):
    """The settings of a method whose steps are compared over devices."""
    changes = {"method__name": name, "augment__mix": "mixup", "model__widths": (12,)}
    if name == "ldam_drw":
        changes["method__drw_epoch"] = 0
    if name in ("mixup", "glmc"):
        changes["augment__mix"] = "none"  # they mix of themselves
    return changes


@pytest.mark.parametrize("mode", PARALLEL_MODES)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "cross_entropy"])
def test_eight_devices_give_a_methods_losses_and_gradients_as_one_does(name, mode):
    eight = states_after(2, jax.devices(), parallel=mode, **spread_out(name))
    assert_close(two_steps_on_one_device(name), eight, 1e-5)


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
    _, kernels = three_steps(digits, method__name="ldam_drw", method__drw_epoch=1)
    assert np.linalg.norm(kernels[0], axis=0) == pytest.approx(np.ones(10), rel=1e-5)


def test_the_counts_of_the_training_set_reach_the_loss(digits):
    assert digits.data.class_counts == COUNTS
    labels = digits.data.train.labels
    np.testing.assert_array_equal(batch_counts(labels, 10), COUNTS)


def test_a_fixed_classifier_stays_while_features_are_drawn_to_it(digits):
    for rescaled in (True, False):
        losses, kernels = three_steps(digits, method__name="etf", method__etf_rescaled=rescaled)
        assert losses[2] < losses[0]
        np.testing.assert_array_equal(kernels[3], kernels[0])
        gram = kernels[0].T @ kernels[0]
        np.testing.assert_allclose(gram, (np.eye(10) - 0.1) / 0.9, atol=1e-5)


@pytest.mark.parametrize("spa", ["reg", "slerp", "proj"])
def test_spa_on_a_fixed_classifier_is_refused_and_says_why(spa, digits):
    config = small_config(method__name="etf", spa__method=spa)
    message = refusal(Program, config, digits.data, jax.devices()[:1])
    for part in (f"config.spa.method={spa}", "method etf", "fixed", "stops the gradient"):
        assert part in message


def test_glmc_is_tested_by_its_second_classifier_and_spa_acts_on_the_one_that_is_named(digits):
    moved = {}
    for spa in ("none", "slerp"):
        for path in ("fc/kernel", "fc_cb/kernel"):
            settings = {"spa__classifier": path, "spa__method": spa, "spa__alpha_max": 0.5}
            moved[spa, path] = three_steps(digits, method__name="glmc", **settings)[1][3]
    for path in ("fc/kernel", "fc_cb/kernel"):
        assert np.abs(moved["slerp", path] - moved["none", path]).max() > 1e-6
    config = small_config(method__name="glmc", spa__classifier="fc/kernel,fc_cb/kernel")
    program = Program(config, digits.data, jax.devices()[:1])
    state = program.init_state(config)
    report = program.evaluate(state)
    assert report["cosines"].shape == (2, 10)
    paths = ("fc/kernel", "fc_cb/kernel")
    means = [float(report["heads"][path]["test_mean_cosine"]) for path in paths]
    assert float(report["test_mean_cosine"]) == pytest.approx(np.mean(means), abs=1e-5)
    # Its predictions are those of fc_cb: what is done to fc does not change them.
    heads = dict(state.params["head"])
    without_fc = program.evaluate(
        state.replace(params=state.params | {"head": heads | {"fc": zeroed(heads["fc"])}})
    )
    np.testing.assert_array_equal(report["correct"], without_fc["correct"])
    without_cb = program.evaluate(
        state.replace(params=state.params | {"head": heads | {"fc_cb": zeroed(heads["fc_cb"])}})
    )
    assert np.any(report["correct"] != without_cb["correct"])


def zeroed(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def test_class_means_are_of_unmixed_images_or_of_the_view_that_is_trained_on(digits):
    """With GLMC and clean means, the means after a step are those of the first forward alone."""
    means = {}
    for source in ("auto", "clean", "training"):
        config = small_config(
            method__name="glmc",
            spa__means_from=source,
            augment__crop_padding=0,
            augment__flip=False,
        )
        program = Program(config, digits.data, jax.devices()[:1])
        state = program.init_state(config)
        batch = batch_of(digits)
        counts = np.array(digits.data.class_counts, np.float32)
        step = make_train_step(
            program._model, program.method, config, program.feed.normalize, counts, 5
        )
        after, _ = jax.jit(step)(state, batch.replace(partner=batch_of(digits, seed=1)))
        means[source] = np.asarray(after.class_means.mean)
        if source == "clean":
            applied, _ = program._model.apply(
                state.variables,
                program.feed.normalize(jnp.asarray(batch.images)),
                train=True,
                mutable=["batch_stats"],
            )
            features = np.asarray(applied[0])
            expected = [features[batch.labels == label].mean(axis=0) for label in range(3)]
            np.testing.assert_allclose(means["clean"][:3], expected, atol=1e-5)
    np.testing.assert_array_equal(means["auto"], means["clean"])
    assert np.abs(means["training"] - means["clean"]).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"method__name": "glmc", "augment__mix": "mixup"}, ("glmc mixes images itself", "'none'")),
        ({"spa__means_from": "clean"}, ("means_from=clean", "nothing mixes them")),
        ({"method__name": "ldam_drw"}, ("drw_epoch=160", "config.epochs=2", "set it lower")),
        ({"augment__mix_alpha": 0.2}, ("mix_alpha=0.2 does nothing", "config.augment.mix")),
        (
            {"method__name": "glmc", "spa__classifier": "projector/kernel"},
            ("projector/kernel", "no class weights", "fc/kernel, fc_cb/kernel"),
        ),
    ],
)
def test_settings_that_do_not_go_with_the_method_are_refused(changes, parts, digits):
    message = refusal(Program, small_config(**changes), digits.data, jax.devices()[:1])
    for part in parts:
        assert part in message


def test_an_option_of_another_method_is_refused(digits):
    config = small_config(method__name="arb", method__tau=2.0)
    message = refusal(Program, config, digits.data, jax.devices()[:1])
    assert "config.method.tau is no option of arb, which has arb_counts" in message

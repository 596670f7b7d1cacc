"""Every long-tailed method trains, and what it says of itself reaches step and evaluation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.alignment.kernels import find_kernels
from spa_jax.longtail.method import LossContext
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import HEADS
from spa_jax.training.checking import prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.devices import SHARED, SPLIT, Layout
from spa_jax.training.metrics import fetch
from tests.parameters import first
from tests.training.small import deferral, small_config, small_program, take_steps


def config_of(method, **changes):
    """Nothing random is done to an image, so that steps of one batch see the same."""
    settings = {
        "method__name": method,
        "augment__flip": False,
        "augment__crop_padding": 0,
        "model__small__widths": (12,),
        "optimizer__learning_rate": 0.02,
    }
    # Class weights from the second epoch on.
    return small_config(**settings | deferral(method, 1) | changes)


@functools.cache
def program_of(method):
    return small_program(config_of(method))


def three_steps(program, at=3, **strengths):
    """Host states and losses of three steps on one batch, mixed with one coefficient."""
    state = program.init_state(program.config)
    given = {name: program.layout.replicate(np.float32(x)) for name, x in strengths.items()}
    state = state.replace(hyperparams=state.hyperparams | given)
    states, metrics = take_steps(program, state, 3, at)
    return states, [float(values["loss"]) for values in metrics]


def kernel_of(state, path):
    """The class weights that a path names, trained or constant."""
    (place,) = find_kernels(state.variables, path)
    return np.asarray(jax.tree.leaves(state.variables)[place])


def first_of_their_kind():
    """Methods by what a network with one has that none before had: a head, or other views."""
    kinds = {}
    for name, entry in METHODS.items():
        made = entry.make(entry.options())
        kinds.setdefault((made.head, made.views), name)
    return kinds.values()


@pytest.mark.parametrize("name", first(1, first_of_their_kind()))
def test_a_method_of_every_kind_learns(name):
    program = program_of(name)
    states, losses = three_steps(program)
    assert losses[2] < losses[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[3].params))
    for path in program.method.kernels:
        before, after = (kernel_of(states[i], path) for i in (0, 3))
        if program.method.fixed_kernel:
            np.testing.assert_array_equal(after, before)
            np.testing.assert_allclose(before.T @ before, (np.eye(10) - 0.1) / 0.9, atol=1e-5)
        elif path == "fc_cb/kernel":  # GLMC's loss has no part of it in the first epoch
            assert np.abs(after - before).max() > 1e-6
        else:
            assert np.abs(after - before).max() > 1e-4


def loss_and_gradient(name, axis_name, epochs=3, train=True, batch_labels=None):
    """A function of a matrix before the head, features and labels: this view's share of both."""
    options = {"epoch": 0} if deferral(name, 0) else {}
    method = METHODS[name].make(METHODS[name].options(**options))
    head = HEADS[method.head](10, axis_name, **method.head_options)

    def share(matrix, variables, features, labels):
        counts = jnp.arange(10.0, 0.0, -1.0)
        whole = labels if batch_labels is None else batch_labels
        context = LossContext(labels, counts, jnp.int32(1), epochs, axis_name, whole, whole)
        views = [features, jnp.square(features)] if method.views.two else [features]
        outputs = [
            head.apply(variables, view @ matrix, train=train, mutable=["batch_stats"])[0]
            for view in views
        ]
        return method.loss(tuple(outputs) if len(views) > 1 else outputs[0], labels, context)

    return head, jax.value_and_grad(share)


@pytest.mark.parametrize("name", first(8, METHODS))
def test_the_devices_shares_of_a_methods_loss_are_that_of_the_batch_and_a_step_lowers_it(name):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(64, 12)).astype(np.float32)
    matrix = generator.normal(size=(12, 12)).astype(np.float32)
    # Sorted, so that no device has the classes of another.
    labels = np.sort(generator.integers(0, 10, 64) * generator.integers(0, 2, 64)).astype(np.int32)
    head, whole = loss_and_gradient(name, axis_name=None)
    init = jax.jit(lambda key, features: head.init(key, features, train=True))
    variables = init(jax.random.key(0), features)
    _, shares = loss_and_gradient(name, axis_name="data")
    layout = Layout("shard_map")
    reduced = layout.compile(
        lambda *arguments: jax.lax.pmean(shares(*arguments), "data"),
        (SHARED, SHARED, SPLIT, SPLIT),
    )
    found = reduced(matrix, variables, features, labels)
    whole = jax.jit(whole)
    expected = value, gradient = whole(matrix, variables, features, labels)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * max(1.0, np.abs(one).max()))
    step = 0.1 * gradient / np.linalg.norm(gradient)
    lower, _ = whole(matrix - step, variables, features, labels)
    assert float(lower) < float(value) - 0.02 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_its_loss_depends_on_the_number_of_epochs(name):
    """By the program that it is, of a run of three epochs and of thirty."""
    features, labels = jnp.ones((12, 12)), jnp.arange(12, dtype=jnp.int32) % 10
    programs = []
    for epochs in (3, 30):
        head, whole = loss_and_gradient(name, None, epochs)
        variables = jax.eval_shape(
            lambda head=head: head.init(jax.random.key(0), features, train=True)
        )
        text = str(jax.make_jaxpr(whole)(features, variables, features, labels))
        programs.append(re.sub(r"0x[0-9a-f]+", "", text))
    needs_end = METHODS[name].make(METHODS[name].options()).needs_end
    assert (programs[0] != programs[1]) == needs_end


def test_class_weights_begin_with_the_epoch_that_is_named():
    """Steps 3 and 8 of five an epoch have one batch; in an epoch of weights its loss is another."""
    program = program_of("ldam_drw")
    early, late = (three_steps(program, at)[1][0] for at in (3, 8))
    assert abs(early - late) > 1e-3


def test_post_hoc_adjustment_trains_as_cross_entropy_and_tests_with_other_logits():
    plain, adjusting = program_of("cross_entropy"), program_of("post_hoc_logit_adjustment")
    np.testing.assert_array_equal(three_steps(plain)[1], three_steps(adjusting)[1])
    one, other = (
        fetch(program.evaluate(program.init_state(program.config)))
        for program in (plain, adjusting)
    )
    assert float(other["loss"]) != pytest.approx(float(one["loss"]), abs=1e-3)
    # The rarest classes are predicted more often, and so the commonest less.
    assert other["correct"][0] <= one["correct"][0]


@pytest.fixture(scope="module")
def both_heads():
    """GLMC, both of whose classifiers SpA-SLERP turns."""
    return small_program(
        config_of("glmc", spa__method="slerp", spa__classifier="fc/kernel,fc_cb/kernel")
    )


def test_spa_turns_each_classifier_that_is_named(both_heads):
    turned, left = (three_steps(both_heads, alpha_max=x)[0][3] for x in (0.5, 0.0))
    for path in ("fc/kernel", "fc_cb/kernel"):
        assert np.abs(kernel_of(turned, path) - kernel_of(left, path)).max() > 1e-6


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("auto", "fc/kernel"),
        ("fc_cb/kernel", "fc_cb/kernel"),
        ("fc/kernel,fc_cb/kernel", ("fc/kernel", "fc_cb/kernel")),
    ],
)
def test_spa_acts_on_the_classifier_of_the_method_or_the_one_that_is_named(asked, path):
    aligned = resolve(config_of("glmc", spa__classifier=asked)).aligned
    assert aligned["classifier"] == path


def test_glmc_is_tested_by_its_second_classifier_and_reported_for_both(both_heads):
    state = both_heads.init_state(both_heads.config)
    report = fetch(both_heads.evaluate(state))
    assert report["cosines"].shape == (2, 10)
    paths = ("fc/kernel", "fc_cb/kernel")
    means = [float(report["heads"][path]["test_mean_cosine"]) for path in paths]
    assert float(report["test_mean_cosine"]) == pytest.approx(np.mean(means), abs=1e-5)
    # What is done to fc does not change the predictions; what is done to fc_cb does.
    heads = state.params["head"]
    changed = {}
    for name in ("fc", "fc_cb"):
        without = heads | {name: jax.tree.map(jnp.zeros_like, heads[name])}
        other = state.replace(params=state.params | {"head": without})
        changed[name] = np.any(fetch(both_heads.evaluate(other))["correct"] != report["correct"])
    assert changed == {"fc": False, "fc_cb": True}


def test_class_means_are_of_unmixed_images_or_of_the_view_that_is_trained_on():
    """With clean means, they are after a step those of the first forward alone."""
    config = config_of("mixup", spa__means_from="clean")
    clean = small_program(config)
    (before, after), _ = take_steps(clean, clean.init_state(config), 1)
    mixed = take_steps(program_of("mixup"), program_of("mixup").init_state(config_of("mixup")), 1)
    run = prepare_run(resolve(config), clean.data)
    state = clean.init_state(config)
    batch = clean.feed.batch(state, next(clean.batches(state, 0, 0)))
    (features, _), _ = jax.jit(
        lambda variables, images: run.model.apply(
            variables, clean.feed.normalize(images), train=True, mutable=["batch_stats"]
        )
    )(before.variables, batch.images)
    features, labels = np.asarray(features), np.asarray(batch.labels)
    expected = [features[labels == label].mean(axis=0) for label in range(3)]
    np.testing.assert_allclose(after.class_means.mean[:3], expected, atol=1e-5)
    assert np.abs(mixed[0][1].class_means.mean - after.class_means.mean).max() > 1e-3


@pytest.mark.parametrize(("asked", "clean"), [("auto", True), ("clean", True), ("training", False)])
def test_glmc_has_clean_means_unless_the_config_says_otherwise(asked, clean):
    assert resolve(config_of("glmc", spa__means_from=asked)).views.clean_means == clean


# Two whose losses are means over a batch though they read more of it than the examples one by one,
# and two whose losses are not.
OF_BATCHES = ("arb", "ldam_drw", "lade", "bcl")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in OF_BATCHES else pytest.mark.thorough)
        for name in METHODS
    ],
)
def test_a_methods_loss_is_the_mean_over_micro_batches_unless_it_says_that_it_is_not(name):
    """Without batch statistics, of which each micro-batch would have its own."""
    generator = np.random.default_rng(0)
    features = jnp.asarray(generator.normal(size=(16, 12)), jnp.float32)
    labels = np.sort(generator.integers(0, 10, 16) * generator.integers(0, 2, 16)).astype(np.int32)
    head, of_loss = loss_and_gradient(name, None, train=False, batch_labels=labels)
    variables = head.init(jax.random.key(0), features, train=False)

    @jax.jit
    def both(matrix, *batch):
        parts = [part.reshape(4, 4, *part.shape[1:]) for part in batch]
        of_parts = jax.vmap(functools.partial(of_loss, matrix, variables))(*parts)
        of_parts = jax.tree.map(functools.partial(jnp.mean, axis=0), of_parts)
        return of_loss(matrix, variables, *batch), of_parts

    expected, found = both(jnp.eye(12), features, labels)
    differs = max(
        np.abs(one - other).max() / max(1.0, np.abs(one).max())
        for one, other in zip(expected, found, strict=True)
    )
    splits = METHODS[name].make(METHODS[name].options()).splits
    assert differs < 1e-5 if splits else differs > 1e-3

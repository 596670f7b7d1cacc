"""Bad input is refused with what was wrong, what was expected and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spa_jax

# Deliberately wrong input: the library's own errors are to be seen, not those of the type checks.
pytestmark = pytest.mark.usefixtures("untyped")

C, D, IN = 5, 7, 3
PATH_ERROR = (KeyError, ValueError)


def params():
    return {
        "body": {"kernel": jnp.ones((IN, D)), "scale": jnp.ones(D)},
        "head": {"bias": jnp.zeros(C), "kernel": jnp.ones((D, C))},
    }


def means(num_classes=C, dim=D):
    return jnp.eye(num_classes, dim)


def update(tx, params, class_means):
    return tx.update(params, tx.init(params), params, class_means=class_means)


# Every public function that reads a params tree, called as f(params, class_means, **options).
READERS = {
    "spa_proj": lambda p, m, **o: update(spa_jax.spa_proj(0.5, **o), p, m),
    "spa_slerp": lambda p, m, **o: spa_jax.spa_slerp(p, m, 0.5, **o),
    "spa_slerp_transform": lambda p, m, **o: update(spa_jax.spa_slerp_transform(0.5, **o), p, m),
    "spa_reg": spa_jax.spa_reg,
    "class_cosines": spa_jax.class_cosines,
}
TRANSFORMS = {
    "spa_proj": lambda **options: spa_jax.spa_proj(0.5, **options),
    "spa_slerp_transform": lambda **options: spa_jax.spa_slerp_transform(0.5, **options),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
every_transform = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)


def refusal(error, call, *args, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    return str(caught.value)


def assert_lists(message, *expected):
    for word in expected:
        assert word in message, f"{word!r} is not in: {message}"


@every_reader
@pytest.mark.parametrize("classifier", ["head/weight", "kernel/head", "head", "Head/kernel"])
def test_a_path_that_matches_nothing_lists_the_matrices(read, classifier):
    message = refusal(PATH_ERROR, read, params(), means(), classifier=classifier)
    assert_lists(message, classifier, "2-D", "body/kernel", "head/kernel")
    assert "body/scale" not in message and "head/bias" not in message


@every_reader
def test_a_path_that_matches_several_leaves_lists_the_matrices(read):
    message = refusal(PATH_ERROR, read, params(), means(), classifier="kernel")
    assert_lists(message, "kernel", "2 leaves", "body/kernel", "head/kernel")


@every_reader
def test_a_leaf_that_is_not_a_matrix_is_refused_with_its_shape(read):
    message = refusal(PATH_ERROR, read, params(), means(), classifier="head/bias")
    assert_lists(message, "head/bias", "2-D", f"({C},)", "head/kernel")


@every_reader
def test_one_bad_path_of_a_tuple_is_named(read):
    classifier = ("head/kernel", "fc_cb/kernel")
    message = refusal(PATH_ERROR, read, params(), means(), classifier=classifier)
    assert_lists(message, "fc_cb/kernel", "2-D", "body/kernel", "head/kernel")


@every_transform
@pytest.mark.parametrize("classifier", ["head/weight", "kernel", "head/bias"])
def test_init_already_refuses_a_bad_path(make, classifier):
    tx = optax.chain(make(classifier=classifier), optax.sgd(0.1))
    assert_lists(refusal(PATH_ERROR, tx.init, params()), classifier, "2-D", "head/kernel")
    refusal(PATH_ERROR, jax.eval_shape, tx.init, params())


@every_transform
def test_a_head_that_is_masked_out_is_the_no_match_error(make):
    mask = {"body": True, "head": False}
    message = refusal(PATH_ERROR, optax.masked(make(), mask).init, params())
    assert_lists(message, "head/kernel", "no leaf", "2-D", "body/kernel")


@every_reader
def test_a_path_ends_on_a_key_boundary(read):
    only_similar = {"overhead": {"kernel": jnp.ones((D, C))}}
    message = refusal(PATH_ERROR, read, only_similar, means(), classifier="head/kernel")
    assert_lists(message, "no leaf", "overhead/kernel")
    read(only_similar | {"net": {"head": {"kernel": jnp.ones((D, C))}}}, means())


@every_reader
@pytest.mark.parametrize("shape", [(C + 1, D), (C, D + 1), (D, C)], ids=str)
def test_means_that_do_not_fit_the_kernel_are_refused_with_both_shapes(read, shape):
    message = refusal(ValueError, read, params(), means(*shape))
    assert_lists(message, "head/kernel", "class_means", "class_axis", *map(str, (C, D, *shape)))
    class_means = spa_jax.ClassMeans.create(num_classes=shape[0], dim=shape[1])
    assert_lists(refusal(ValueError, read, params(), class_means), "head/kernel", "class_means")


@every_reader
def test_the_wrong_class_axis_is_refused_with_both_shapes(read):
    message = refusal(ValueError, read, params(), means(), class_axis=0)
    assert_lists(message, "head/kernel", "class_axis", f"({D}, {C})")


@every_reader
def test_two_heads_of_different_shapes_are_refused(read):
    tree = params() | {"fc": {"kernel": jnp.ones((D, C + 1))}}
    classifier = ("head/kernel", "fc/kernel")
    message = refusal(ValueError, read, tree, means(), classifier=classifier)
    assert_lists(message, "fc/kernel", str(C + 1))


@every_reader
@pytest.mark.parametrize("shape", [(C * D,), (1, C, D), ()], ids=str)
def test_class_means_of_the_wrong_rank_are_refused(read, shape):
    message = refusal(ValueError, read, params(), jnp.ones(shape))
    assert_lists(message, "class_means", "ClassMeans", "(C, D)", str(shape))


@every_reader
@pytest.mark.parametrize("axis", [jnp.asarray(0), np.asarray(0)], ids=["jax", "numpy"])
def test_an_array_as_class_axis_names_static_args(read, axis):
    tree = {"head": {"kernel": jnp.ones((C, D))}}
    message = refusal((TypeError, ValueError), read, tree, means(), class_axis=axis)
    assert_lists(message, "class_axis", "static_args", "inject_hyperparams")


def slerp(alpha, threshold=0.95):
    return spa_jax.spa_slerp(params(), means(), alpha, threshold)


STRENGTHS = {
    "spa_proj-gamma": ("gamma", "[0, 1]", spa_jax.spa_proj),
    "spa_slerp-alpha": ("alpha", "[0, 1]", slerp),
    "spa_slerp_transform-alpha": ("alpha", "[0, 1]", spa_jax.spa_slerp_transform),
    "spa_slerp-threshold": ("threshold", "[-1, 1]", lambda t: slerp(0.5, t)),
    "spa_slerp_transform-threshold": (
        "threshold",
        "[-1, 1]",
        lambda t: spa_jax.spa_slerp_transform(0.5, t),
    ),
}
every_strength = pytest.mark.parametrize(
    ("name", "interval", "call"), STRENGTHS.values(), ids=STRENGTHS
)
OUTSIDE = [-1.01, 1.01, 2, float("nan"), float("inf"), -float("inf")]


@every_strength
@pytest.mark.parametrize("value", [*OUTSIDE, np.float32(1.5), np.float64("nan"), np.int64(-2)])
def test_a_number_out_of_range_is_refused_with_the_range(name, interval, call, value):
    assert_lists(refusal(ValueError, call, value), name, interval, str(float(value)).rstrip(".0"))


@every_strength
@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.int64(1)])
def test_the_ends_of_the_range_are_accepted(name, interval, call, value):
    call(value)


@every_strength
def test_an_array_out_of_range_is_used_as_given(name, interval, call):
    call(jnp.asarray(1.5))
    jax.eval_shape(lambda value: jax.tree.leaves(call(value))[:0], 1.5)


def test_a_negative_gamma_or_alpha_just_outside_is_refused():
    for call in (spa_jax.spa_proj, slerp, spa_jax.spa_slerp_transform):
        refusal(ValueError, call, -1e-3)
        refusal(ValueError, call, 1.001)


@pytest.mark.parametrize(
    ("option", "choices"),
    [("radial", ("keep", "scale")), ("acts_on", ("gradients", "updates"))],
)
@pytest.mark.parametrize("value", ["Keep", "", None, "gradient", True])
def test_an_unknown_option_lists_the_choices(option, choices, value):
    message = refusal(ValueError, spa_jax.spa_proj, **{option: value})
    assert_lists(message, option, repr(value), *map(repr, choices))


def test_a_schedule_handed_to_the_slerp_function_is_told_to_be_called():
    schedule = spa_jax.slerp_schedule(0.02, 100)
    message = refusal((TypeError, ValueError), slerp, schedule)
    assert_lists(message, "alpha", "schedule", "(step)", "spa_slerp_transform")


@every_transform
def test_missing_params_are_asked_for(make):
    tx = make()
    state = tx.init(params())
    message = refusal(TypeError, tx.update, params(), state, class_means=means())
    assert_lists(message, "params", "update(")


@every_transform
def test_missing_class_means_are_asked_for(make):
    tx = make()
    state = tx.init(params())
    for extras in ({}, {"class_means": None}, {"means": means()}):
        message = refusal(TypeError, tx.update, params(), state, params(), **extras)
        assert_lists(message, "class_means=", "ClassMeans", "(C, D)", "update(")
        assert_lists(message, "TrainState", "lookahead")


@pytest.mark.parametrize("function", ["spa_slerp", "spa_reg", "class_cosines"])
def test_a_function_without_class_means_is_refused(function):
    alpha = {"alpha": 0.5} if function == "spa_slerp" else {}
    call = getattr(spa_jax, function)
    assert_lists(refusal(TypeError, call, params(), **alpha), "class_means")
    message = refusal((TypeError, ValueError), call, params(), None, **alpha)
    assert_lists(message, "class_means", "ClassMeans")


@pytest.mark.parametrize("bad", [-1, C])
def test_concrete_labels_outside_the_classes_are_refused_with_the_label(bad):
    fresh = spa_jax.ClassMeans.create(num_classes=C, dim=D)
    given = jnp.ones((3, D)), jnp.asarray([0, bad, 1])
    for call in (fresh.update, lambda *given: spa_jax.class_sums(*given, C)):
        assert_lists(refusal(ValueError, call, *given), "labels", str(bad), str(C))


@pytest.mark.parametrize(
    ("features", "labels"),
    [((3, D + 1), (3,)), ((D,), (3,)), ((3, D), (4,)), ((3, D), (3, C + 1)), ((3, D), (3, C, 1))],
    ids=str,
)
def test_features_and_labels_that_do_not_fit_are_refused_with_their_shape(features, labels):
    fresh = spa_jax.ClassMeans.create(num_classes=C, dim=D)
    dtype = jnp.int32 if len(labels) == 1 else jnp.float32
    wrong = features if features != (3, D) else labels
    given = jnp.ones(features), jnp.ones(labels, dtype)
    assert_lists(refusal(ValueError, fresh.update, *given), str(wrong))
    if features != (3, D + 1):  # sums may be of any width
        assert_lists(refusal(ValueError, spa_jax.class_sums, *given, C), str(wrong))


def test_a_whole_path_wins_over_the_ends_of_others():
    params = {"aux": {"head": {"kernel": jnp.zeros((3, 2))}}, "head": {"kernel": jnp.eye(3)}}
    assert spa_jax.find_kernels(params, "head/kernel") == [1]
    assert spa_jax.find_kernels(params, "aux/head/kernel") == [0]
    assert spa_jax.find_kernels({"params": params}, "params/head/kernel") == [1]
    with pytest.raises(ValueError, match="matches 2 leaves"):
        spa_jax.find_kernels({"params": params}, "head/kernel")


def test_dots_are_boundaries_too():
    params = {"module.fc.weight": jnp.eye(3), "module.prefc.weight": jnp.eye(3)}
    for path in ("module.fc.weight", "fc.weight"):
        assert spa_jax.find_kernels(params, path) == [0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_turning_a_short_kernel_warns_once_per_trace(dtype):
    params, means = {"head": {"kernel": jnp.eye(3, dtype=dtype)}}, jnp.eye(3)
    slerp = jax.jit(lambda params: spa_jax.spa_slerp(params, means, 0.1))
    with pytest.warns(UserWarning, match=rf"{jnp.dtype(dtype).name}.*float32") as warned:
        slerp(params)
        slerp(params)
    assert len(warned) == 1
    tx = spa_jax.spa_slerp_transform(0.1)
    with pytest.warns(UserWarning, match=r"spa_slerp_transform.*float32"):
        tx.update(params, tx.init(params), params, class_means=means)

"""Heads against their formulas in float64, and at the vectors that have no direction."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import shard_map
from jax.sharding import AxisType, PartitionSpec

import spa_jax
from spa_jax.models.heads import (
    BclHead,
    CosineHead,
    EtfHead,
    ExpertHeads,
    GlmcHeads,
    LinearHead,
)
from spa_jax.models.residual import CifarResNetOptions, make_cifar_resnet
from tests.models.backbone_checks import parameter_count, shapes_of
from tests.refusals import refusal

B, D, C = 6, 9, 5


def features(count=B, dim=D, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def start(head, f, seed=0):
    """A head's variables as they start."""
    return _start(head, jax.random.key(seed), f)


@functools.partial(jax.jit, static_argnums=0)
def _start(head, key, f):
    return head.init(key, f, train=False)


@functools.partial(jax.jit, static_argnums=0)
def call(head, params, f):
    """A head's output in evaluation mode."""
    return head.apply({"params": params}, f, False)


def unit(x, axis):
    """Float64 unit vectors along an axis."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


@pytest.mark.parametrize("head", [LinearHead(100, normalised=True), CosineHead(100)])
def test_normalised_weights_are_read_in_the_layout_that_they_have(head):
    """Two transposed copies and their gradients' make it 34 times the kernel."""
    f = features(128, 512)
    params = jax.eval_shape(functools.partial(_start, head), jax.random.key(0), f)["params"]

    def loss(params, f):
        return jnp.sum(jnp.exp(head.apply({"params": params}, f, False)))

    cost = jax.jit(jax.grad(loss)).lower(params, f).compile().cost_analysis()
    assert cost["bytes accessed"] < 31 * 4 * 512 * 100


def test_a_linear_head_is_a_product_and_a_sum():
    head, f = LinearHead(C), features()
    params = {"kernel": features(D, C, seed=1), "bias": features(1, C, seed=2)[0]}
    assert jax.tree.map(np.shape, start(head, f)["params"]) == jax.tree.map(np.shape, params)
    expected = f.astype(np.float64) @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(call(head, params, f), expected, atol=1e-5)


def test_a_linear_head_starts_like_a_dense_layer():
    class Model(nn.Module):
        layer: type[nn.Module]

        @nn.compact
        def __call__(self, x, train):
            return self.layer(C, name="head")(x, *((train,) if self.layer is LinearHead else ()))

    ours, dense = (start(Model(layer), features()) for layer in (LinearHead, nn.Dense))
    jax.tree.map(np.testing.assert_array_equal, ours, dense)
    assert ours["params"]["head"]["kernel"].any()


def test_the_kernel_of_a_cosine_head_starts_with_unit_columns_in_any_direction():
    params = start(CosineHead(400), features(dim=50))["params"]
    kernel = np.asarray(params["kernel"])
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6)
    # The mean of n uniform unit vectors has length 1 / sqrt(n) on average.
    assert np.linalg.norm(kernel.mean(axis=1)) < 2 / np.sqrt(400)


LENGTHS = np.array([1e-3, 0.5, 1.0, 30.0, 7.0])


@pytest.mark.parametrize("cosine", [False, True])
def test_weights_of_length_one_act_times_a_scale(cosine):
    """On features as they are, with a bias, or on features of length one, without."""
    head = CosineHead(C, scale=4.0) if cosine else LinearHead(C, normalised=True)
    f, kernel = features(), (LENGTHS * features(D, C, seed=1)).astype(np.float32)
    params = {"kernel": kernel, "scale": np.float32(2.5)}
    if not cosine:
        params["bias"] = features(1, C, seed=2)[0]
    variables = start(head, f)["params"]
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, params)
    assert variables["scale"] == (4.0 if cosine else 1.0)
    seen = unit(f, 1) if cosine else f
    expected = 2.5 * seen @ unit(kernel, 0) + params.get("bias", 0)
    np.testing.assert_allclose(call(head, params, f), expected, atol=1e-5)


def test_a_normalised_head_starts_in_the_directions_of_a_linear_one():
    f = features()
    linear, normalised = (start(head, f) for head in (LinearHead(C), LinearHead(C, True)))
    np.testing.assert_array_equal(normalised["params"]["kernel"], linear["params"]["kernel"])


@pytest.mark.parametrize("head", [CosineHead(C, scale=4.0), LinearHead(C, normalised=True)])
def test_the_gradient_of_weights_that_act_at_length_one_turns_them_alone(head):
    f = jnp.asarray(features())
    params = dict(start(head, f)["params"])
    params["kernel"] = (LENGTHS * features(D, C, seed=1)).astype(np.float32)

    @jax.grad
    def gradient(params):
        logits = head.apply({"params": params}, f, True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(B) % C).mean()

    by_kernel = gradient(params)["kernel"]
    radial = np.sum(unit(params["kernel"], 0) * by_kernel, axis=0)
    assert np.all(np.abs(radial) < 1e-5 * np.linalg.norm(by_kernel, axis=0))
    # As of a direction, whose length does not matter: half as large where it is twice as long.
    again = gradient(params | {"kernel": 2 * params["kernel"]})["kernel"]
    np.testing.assert_allclose(2 * again, by_kernel, rtol=1e-4, atol=1e-6 * np.abs(by_kernel).max())


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([1e-8, 0.3, 1.0, 1e4, 1e15]), min_size=B, max_size=B),
    seed=st.integers(0, 10),
)
def test_a_cosine_head_gives_cosines_whatever_the_lengths(lengths, seed):
    head, f = CosineHead(C), features(seed=seed)
    kernel = features(D, C, seed=seed + 20)
    scaled = np.asarray(lengths, np.float32)[:, None] * f
    logits = call(head, {"kernel": kernel}, scaled)
    np.testing.assert_allclose(logits, unit(f, 1) @ unit(kernel, 0), atol=1e-5)
    columns = np.asarray(lengths, np.float32)[None, :C] * kernel
    again = call(head, {"kernel": columns}, f)
    np.testing.assert_allclose(again, unit(f, 1) @ unit(kernel, 0), atol=1e-5)


def test_zero_vectors_have_logit_and_gradient_zero():
    head, f = CosineHead(C), features()
    f[2] = 0
    params = start(head, f)["params"]
    params["kernel"] = params["kernel"].at[:, 1].set(0)

    @jax.jit
    def run(params, f):
        def loss(params, f):
            logits = head.apply({"params": params}, f, True)
            labels = jnp.arange(B) % C
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, f)

    (by_params, by_features), logits = run(params, f)
    for leaf in jax.tree.leaves((by_params, by_features, logits)):
        assert np.isfinite(leaf).all()
    assert not logits[2].any()
    assert not by_features[2].any()
    assert by_features[3].any()
    assert not logits[:, 1].any()
    assert not by_params["kernel"][:, 1].any()
    assert by_params["kernel"][:, 2].any()


def test_features_that_are_normalised_to_zero_have_logit_and_gradient_zero():
    head, f = EtfHead(C), np.full((B, D), 2.0, np.float32)
    variables = start(head, f)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(f):
        outputs, _ = head.apply(variables, f, True, mutable=["batch_stats"])
        labels = jnp.arange(B) % C
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
        return losses.mean(), outputs.logits

    by_features, logits = run(f)
    assert not np.any(logits)
    assert not np.any(by_features)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (5, 4), (5, 9), (10, 64)])
def test_the_kernel_of_an_etf_head_is_a_simplex_and_no_parameter(num_classes, dim):
    head = EtfHead(num_classes)
    variables = start(head, features(dim=dim))
    assert set(variables["params"]) == {"bn"}
    kernel = np.asarray(variables["constants"]["kernel"], np.float64)
    assert kernel.shape == (dim, num_classes)
    expected = (num_classes * np.eye(num_classes) - 1) / (num_classes - 1)
    np.testing.assert_allclose(kernel.T @ kernel, expected, atol=1e-6)
    np.testing.assert_allclose(kernel.sum(axis=1), 0, atol=1e-6)


def test_the_orientation_of_the_frame_comes_from_the_key():
    frames = [start(EtfHead(C), features(), seed)["constants"]["kernel"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.abs(frames[0] - frames[2]).max() > 0.1


def test_library_functions_find_the_frame_among_the_constants():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return EtfHead(C, name="head")(x, train)

    constants = start(Model(), features())["constants"]
    means = spa_jax.ClassMeans.create(C, D)
    means = means.update(constants["head"]["kernel"].T, jnp.arange(C))
    np.testing.assert_allclose(spa_jax.class_cosines(constants, means), 1, atol=1e-5)


@pytest.fixture
def etf_variables():
    """An ETF head with scales, shifts and statistics that are not trivial."""
    variables = start(EtfHead(C), features())
    names = {"scale": "params", "bias": "params", "mean": "batch_stats", "var": "batch_stats"}
    for seed, (name, collection) in enumerate(names.items()):
        offset = 0.5 + 0.1 * seed + np.abs(features(1, D, seed=seed)[0])
        variables[collection]["bn"][name] = offset
    return variables


def etf_logits(variables, f, mean, var):
    """Normalised by given statistics, scaled, shifted, of length one, against the frame."""
    bn = {name: np.float64(value) for name, value in variables["params"]["bn"].items()}
    h = (f - mean) / np.sqrt(var + 1e-5) * bn["scale"] + bn["bias"]
    return unit(h, 1), unit(h, 1) @ np.float64(variables["constants"]["kernel"])


@pytest.mark.parametrize("train", [True, False])
def test_an_etf_head_normalises_by_batch_then_by_length(etf_variables, train):
    f = features(seed=3)
    statistics = {name: np.float64(x) for name, x in etf_variables["batch_stats"]["bn"].items()}
    of_batch = {"mean": f.mean(axis=0, dtype=np.float64), "var": f.var(axis=0, dtype=np.float64)}
    directions, expected = etf_logits(etf_variables, f, **(of_batch if train else statistics))
    outputs, changed = EtfHead(C).apply(
        etf_variables, jnp.asarray(f), train, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(outputs.logits, expected, atol=1e-5)
    np.testing.assert_allclose(outputs.features, directions, atol=1e-5)
    np.testing.assert_array_equal(outputs.kernel, etf_variables["constants"]["kernel"])
    for name, before in statistics.items():
        after = 0.9 * before + 0.1 * of_batch[name] if train else before
        np.testing.assert_allclose(changed["batch_stats"]["bn"][name], after, atol=1e-5)


def test_an_etf_head_takes_statistics_over_all_devices(etf_variables):
    f = features(16, seed=4)

    def part(variables, f):
        outputs, _ = EtfHead(C, axis_name="data").apply(variables, f, True, mutable=["batch_stats"])
        return outputs.logits

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    cut, whole = PartitionSpec("data"), PartitionSpec()
    eight = shard_map(part, mesh=mesh, in_specs=(whole, cut), out_specs=cut, check_vma=False)
    _, expected = etf_logits(etf_variables, f, f.mean(axis=0), f.var(axis=0))
    np.testing.assert_allclose(jax.jit(eight)(etf_variables, f), expected, atol=1e-5)


def test_an_etf_head_without_its_frame_says_so(etf_variables):
    del etf_variables["constants"]
    with pytest.raises(Exception, match="constants"):
        EtfHead(C).apply(etf_variables, jnp.asarray(features()), False)


def test_features_too_narrow_for_a_frame_are_refused():
    message = refusal(EtfHead(100).init, jax.random.key(0), jnp.zeros((1, 64)), train=False)
    assert "100 classes needs features of width 99 or more, got 64" in message
    assert "widen the backbone" in message


def test_one_class_is_refused_by_an_etf_head():
    assert "num_classes=1" in refusal(EtfHead, 1)


def test_glmc_heads_are_four_linear_layers():
    head, f = GlmcHeads(C, projection_dim=4), features()
    shapes = {"fc": (D, C), "fc_cb": (D, C), "projector": (D, 4), "predictor": (4, 4)}
    params = {
        name: {"kernel": features(*shape, seed=i), "bias": features(1, shape[1], seed=10 + i)[0]}
        for i, (name, shape) in enumerate(shapes.items())
    }
    assert jax.tree.map(np.shape, start(head, f)["params"]) == jax.tree.map(np.shape, params)

    def layer(name, x):
        return x @ np.float64(params[name]["kernel"]) + params[name]["bias"]

    outputs = call(head, params, f)
    z = layer("projector", np.float64(f))
    np.testing.assert_allclose(outputs.logits, layer("fc", f), atol=1e-5)
    np.testing.assert_allclose(outputs.logits_cb, layer("fc_cb", f), atol=1e-5)
    np.testing.assert_allclose(outputs.projected, z, atol=1e-5)
    np.testing.assert_allclose(outputs.predicted, layer("predictor", z), atol=1e-4)


def test_glmc_heads_start_he_normal_with_uniform_biases():
    dim = 300
    params = start(GlmcHeads(200, projection_dim=250), features(dim=dim))["params"]
    for name, fan_in in (("fc", dim), ("fc_cb", dim), ("projector", dim), ("predictor", 250)):
        standard = np.asarray(params[name]["kernel"]) / np.sqrt(2 / fan_in)
        assert abs(standard.std() - 1) < 0.02
        assert 0.005 < (np.abs(standard) > 2.5).mean() < 0.02
        biases = np.asarray(params[name]["bias"]) * np.sqrt(fan_in)
        assert 0.9 < biases.max() <= 1
        assert -1 <= biases.min() < -0.9
    assert np.abs(params["fc"]["kernel"] - params["fc_cb"]["kernel"]).max() > 0.01


def test_glmc_on_cifar_100_has_the_published_number_of_parameters():
    """7.48 M: the backbone, four times as wide as usual, and the heads."""
    backbone = make_cifar_resnet(CifarResNetOptions(32, width_factor=4))
    variables, _ = shapes_of(GlmcHeads(100), np.zeros((1, backbone.dim), np.float32))
    heads = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameter_count(backbone, classes=0) + heads == 7_484_424


@pytest.mark.parametrize("head", [CosineHead(C), EtfHead(C)])
def test_cosines_are_products_of_whole_floats(head):
    f = jnp.asarray(features())
    jaxpr = jax.make_jaxpr(lambda v, f: head.apply(v, f, False))(start(head, f), f)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert [eqn.params["precision"] for eqn in products] == [(highest, highest)]


def test_experts_are_cosine_heads_on_the_same_features():
    head, f = ExpertHeads(C, experts=2), features()
    params = start(head, f)["params"]
    assert np.abs(params["expert_0"]["kernel"] - params["expert_1"]["kernel"]).max() > 0.1
    found = call(head, params, f)
    assert found.shape == (B, 2, C)
    for expert in range(2):
        kernel = params[f"expert_{expert}"]["kernel"]
        np.testing.assert_allclose(found[:, expert], unit(f, 1) @ unit(kernel, 0), atol=1e-6)


def test_a_bcl_head_has_cosines_and_projects_features_and_class_weights():
    """In training each projector normalises by what it is given: the batch, or the classes."""
    head, f = BclHead(C, projection_dim=4), features()
    variables = start(head, f)
    apply = jax.jit(lambda v, f: head.apply(v, f, True, mutable=["batch_stats"]))
    outputs, _ = apply(variables, f)
    params = jax.tree.map(np.float64, variables["params"])
    np.testing.assert_allclose(outputs.logits, unit(f, 1) @ unit(params["kernel"], 0), atol=1e-6)
    for name, rows, found in (
        ("projector", f, outputs.projected),
        ("prototypes", params["kernel"].T, outputs.prototypes),
    ):
        hidden = rows @ params[f"{name}_hidden"]["kernel"]
        normal = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
        expected = np.maximum(normal, 0) @ params[name]["kernel"] + params[name]["bias"]
        np.testing.assert_allclose(found, expected, atol=1e-4)

"""The same network in five frameworks gives the same numbers; only the path and the axis differ."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import spa_jax

# In `make test-all`, compiled as users compile it.
pytestmark = pytest.mark.thorough

C, D, IN, BATCH = 5, 8, 6, 24
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


class Network(NamedTuple):
    """One framework's network: its parameters, how to run and to read it, what to call the head."""

    params: Any
    apply: Callable
    kernel: Callable  # params -> (D, C)
    options: dict[str, Any]


@functools.cache
def weights():
    rng = np.random.default_rng(0)
    shapes = {"body": {"bias": (D,), "kernel": (IN, D)}, "head": {"bias": (C,), "kernel": (D, C)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


@functools.cache
def batch():
    inputs = np.random.default_rng(1).normal(size=(BATCH, IN)).astype(np.float32)
    return inputs, np.arange(BATCH) % (C - 1)  # the last class is unseen


@functools.cache
def class_means():
    features = jnp.asarray(np.random.default_rng(2).normal(size=(BATCH, D)), jnp.float32)
    return spa_jax.ClassMeans.create(num_classes=C, dim=D).update(features, batch()[1])


def plain_dict():
    def apply(params, x):
        hidden = jnp.tanh(x @ params["body"]["kernel"] + params["body"]["bias"][None])
        return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]

    return Network(weights(), apply, lambda p: p["head"]["kernel"], {})


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(C, name="head")(jnp.tanh(nn.Dense(D, name="body")(x)))


def linen():
    apply = lambda params, x: LinenNet().apply({"params": params}, x)  # noqa: E731
    return Network(weights(), apply, lambda p: p["head"]["kernel"], {})


def linen_variables():
    variables = {"params": weights()}
    shapes = jax.eval_shape(LinenNet().init, jax.random.key(0), batch()[0])
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)
    return Network(variables, LinenNet().apply, lambda v: v["params"]["head"]["kernel"], {})


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(IN, D, rngs=rngs)
        self.head = nnx.Linear(D, C, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.body(x)))


def nnx_model():
    model = NnxNet(nnx.Rngs(0))
    for layer in ("body", "head"):
        for leaf, value in weights()[layer].items():
            getattr(getattr(model, layer), leaf)[...] = value
    return model


def flax_nnx(model=None):
    graph, params = nnx.split(model or nnx_model(), nnx.Param)
    apply = lambda params, x: nnx.merge(graph, params)(x)  # noqa: E731
    return Network(params, apply, lambda p: p["head"]["kernel"][...], {})


class EquinoxNet(eqx.Module):
    body: eqx.nn.Linear
    head: eqx.nn.Linear
    activation: Callable[..., Any]

    def __call__(self, x):
        return self.head(self.activation(self.body(x)))


def equinox():
    key = jax.random.key(0)
    net = EquinoxNet(eqx.nn.Linear(IN, D, key=key), eqx.nn.Linear(D, C, key=key), jnp.tanh)
    for layer in ("body", "head"):
        values = weights()[layer]["kernel"].T, weights()[layer]["bias"]
        net = eqx.tree_at(operator.attrgetter(f"{layer}.weight", f"{layer}.bias"), net, values)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    apply = lambda params, x: jax.vmap(eqx.combine(params, static))(x)  # noqa: E731
    options = {"classifier": "head/weight", "class_axis": 0}
    return Network(params, apply, lambda p: p.head.weight.T, options)


class HaikuNet(hk.Module):
    def __init__(self):
        super().__init__("net")
        self.body, self.head = hk.Linear(D, name="body"), hk.Linear(C, name="head")

    def __call__(self, x):
        return self.head(jnp.tanh(self.body(x)))


def haiku(classifier="head/w"):
    net = hk.without_apply_rng(hk.transform(lambda x: HaikuNet()(x)))
    params = {
        f"net/~/{layer}": {"w": weights()[layer]["kernel"], "b": weights()[layer]["bias"]}
        for layer in ("body", "head")
    }
    return Network(params, net.apply, lambda p: p["net/~/head"]["w"], {"classifier": classifier})


NETWORKS = {
    "dict": plain_dict,
    "linen": linen,
    "linen_variables": linen_variables,
    "nnx": flax_nnx,
    "equinox": equinox,
    "haiku": haiku,
    "haiku_with_the_full_path": lambda: haiku("net/~/head/w"),
}
OTHERS = [name for name in NETWORKS if name != "dict"]
TRANSFORMS = {
    "proj-gradients": lambda o: optax.chain(spa_jax.spa_proj(0.25, **o), optax.sgd(0.5)),
    "proj-updates": lambda o: optax.chain(
        optax.adam(0.1), spa_jax.spa_proj(0.0, acts_on="updates", **o)
    ),
    "slerp": lambda o: optax.chain(optax.sgd(0.5), spa_jax.spa_slerp_transform(0.3, **o)),
}


def gradients(network):
    inputs, labels = batch()

    def loss(params):
        logits = network.apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.grad(loss)(network.params)


def trained_kernels(network, makes):
    """The kernel after three steps with each of the transforms."""
    means, transforms = class_means(), {name: make(network.options) for name, make in makes.items()}

    def step(tx, params, state):
        grads = gradients(network._replace(params=params))
        updates, state = tx.update(grads, state, params, class_means=means)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def step_all(carried):
        return {name: step(tx, *carried[name]) for name, tx in transforms.items()}

    carried = {name: (network.params, tx.init(network.params)) for name, tx in transforms.items()}
    for _ in range(3):
        carried = step_all(carried)
    return {name: np.asarray(network.kernel(params)) for name, (params, _) in carried.items()}


@functools.cache
def reference_kernels():
    return trained_kernels(plain_dict(), TRANSFORMS)


@pytest.mark.parametrize("name", ["linen", "nnx", "equinox", "haiku"])
def test_the_transforms_take_the_same_steps(name):
    actual = trained_kernels(NETWORKS[name](), TRANSFORMS)
    for transform, expected in reference_kernels().items():
        np.testing.assert_allclose(actual[transform], expected, **TOLERANCE, err_msg=transform)


def test_the_steps_that_are_compared_differ_from_those_without_the_transform():
    optimisers = {"sgd": optax.sgd(0.5), "adam": optax.adam(0.1)}
    without = {k: lambda _, v=v: optax.with_extra_args_support(v) for k, v in optimisers.items()}
    plain = trained_kernels(plain_dict(), without)
    for transform, kernel in reference_kernels().items():
        optimiser = "adam" if transform == "proj-updates" else "sgd"
        assert np.abs(kernel - plain[optimiser]).max() > 1e-3, transform


FUNCTIONS = {
    "cosines": lambda net: spa_jax.class_cosines(net.params, class_means(), **net.options),
    "reg": lambda net: spa_jax.spa_reg(net.params, class_means(), **net.options),
    "reg_gradient": lambda net: net.kernel(
        jax.grad(lambda p: spa_jax.spa_reg(p, class_means(), **net.options))(net.params)
    ),
    "slerp": lambda net: net.kernel(
        spa_jax.spa_slerp(net.params, class_means(), 0.3, **net.options)
    ),
}


def outcomes(network):
    """What every function of the parameters gives, compiled together."""
    of_params = jax.jit(lambda p: {k: f(network._replace(params=p)) for k, f in FUNCTIONS.items()})
    return of_params(network.params)


@pytest.mark.parametrize("name", OTHERS)
def test_functions_of_the_parameters_give_the_same_numbers(name):
    actual = outcomes(NETWORKS[name]())
    for function, expected in outcomes(plain_dict()).items():
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(actual[function], expected, **TOLERANCE, err_msg=function)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_slerp_returns_the_tree_it_was_given_with_the_other_leaves_untouched(name):
    network = NETWORKS[name]()
    slerp = jax.jit(lambda p: spa_jax.spa_slerp(p, class_means(), 0.3, **network.options))
    result = slerp(network.params)
    assert jax.tree.structure(result) == jax.tree.structure(network.params)
    leaves = zip(jax.tree.leaves(network.params), jax.tree.leaves(result), strict=True)
    assert sum(not np.array_equal(a, b) for a, b in leaves) == 1


def test_nnx_optimizer_forwards_class_means():
    model = nnx_model()
    optimizer = nnx.Optimizer(model, TRANSFORMS["proj-gradients"]({}), wrt=nnx.Param)
    for _ in range(3):
        optimizer.update(model, gradients(flax_nnx(model)), class_means=class_means())
    expected = reference_kernels()["proj-gradients"]
    np.testing.assert_allclose(model.head.kernel[...], expected, **TOLERANCE)


HEADS = ("fc/kernel", "fc_cb/kernel")


def two_heads(seed=3):
    fc, fc_cb = jnp.asarray(np.random.default_rng(seed).normal(size=(2, D, C)), jnp.float32)
    return {"body": {"kernel": jnp.ones((IN, D))}, "fc": {"kernel": fc}, "fc_cb": {"kernel": fc_cb}}


def test_class_cosines_of_two_heads_stack_in_the_order_of_the_tuple():
    params, means = two_heads(), class_means()
    one = {head: spa_jax.class_cosines(params, means, classifier=head) for head in HEADS}
    for order in (HEADS, HEADS[::-1]):
        both = spa_jax.class_cosines(params, means, classifier=order)
        assert both.shape == (2, C)
        np.testing.assert_allclose(both, np.stack([one[head] for head in order]), rtol=1e-6)
    assert np.abs(one[HEADS[0]] - one[HEADS[1]]).max() > 0.1


def test_reg_of_two_heads_is_the_mean_over_heads():
    params, means = two_heads(), class_means()
    alone = [float(spa_jax.spa_reg(params, means, classifier=head)) for head in HEADS]
    both = spa_jax.spa_reg(params, means, classifier=HEADS)
    assert both.shape == () and abs(alone[0] - alone[1]) > 1e-3
    np.testing.assert_allclose(both, np.mean(alone), rtol=1e-6)


def test_slerp_treats_each_of_two_heads_alone():
    params, means = two_heads(), class_means()
    both = spa_jax.spa_slerp(params, means, 0.3, classifier=HEADS)
    for head in HEADS:
        alone = spa_jax.spa_slerp(params, means, 0.3, classifier=head)
        layer = head.split("/")[0]
        np.testing.assert_array_equal(both[layer]["kernel"], alone[layer]["kernel"])
        assert np.any(both[layer]["kernel"] != params[layer]["kernel"])


@pytest.mark.parametrize("acts_on", ["gradients", "updates"])
def test_proj_treats_each_of_two_heads_alone_and_reports_both(acts_on):
    params, grads, means = two_heads(), two_heads(5), class_means()

    def project(classifier):
        tx = spa_jax.spa_proj(0.25, acts_on=acts_on, classifier=classifier)
        return tx.update(grads, tx.init(params), params, class_means=means)

    both, state = project(HEADS)
    assert state.corrected.shape == state.removed.shape == (2,)
    for i, head in enumerate(HEADS):
        alone, single = project(head)
        layer = head.split("/")[0]
        np.testing.assert_array_equal(both[layer]["kernel"], alone[layer]["kernel"])
        assert np.any(both[layer]["kernel"] != grads[layer]["kernel"])
        for report in ("corrected", "removed"):
            np.testing.assert_allclose(getattr(state, report)[i], getattr(single, report)[0])
            assert getattr(state, report)[i] > 0

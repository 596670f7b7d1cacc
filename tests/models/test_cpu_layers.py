"""The forms that XLA compiles well for a CPU: Flax's values, gradients and parameters."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from spa_jax.models import cpu_layers
from spa_jax.models.cpu_layers import BatchNorm, convolution, norm_class, relu
from spa_jax.models.residual import Convolution, Layers, ResNet, basic_block, stages_of

RANDOM = np.random.default_rng(0)
# Means far from zero: gradients of the mean matter.
X = jnp.asarray(RANDOM.normal(2.0, 3.0, (8, 4, 4, 6)), jnp.float32)
SLOPES = jnp.asarray(RANDOM.normal(size=X.shape), jnp.float32)
LAYOUT = ("NHWC", "HWIO", "NHWC")
PARAMS = {"scale": jnp.linspace(-1.0, 2.0, 6), "bias": jnp.linspace(-0.5, 1.0, 6)}


def gradients(kind, rectify, dtype=None, axis_name=None, **settings):
    """A function of parameters, inputs and slopes: outputs, running statistics, gradients."""
    module = kind(use_running_average=False, dtype=dtype, axis_name=axis_name, **settings)
    start = {"mean": jnp.ones(6), "var": jnp.full(6, 2.0)}

    def loss(params, x, slopes):
        variables = {"params": params, "batch_stats": start}
        y, changed = module.apply(variables, x, mutable=["batch_stats"])
        y = rectify(y)
        return jnp.sum(y.astype(jnp.float32) * slopes), (y, changed["batch_stats"])

    return jax.value_and_grad(loss, (0, 1), has_aux=True)


def assert_same(ours, flax, tolerance=1e-5):
    for own, other in zip(jax.tree.leaves(ours), jax.tree.leaves(flax), strict=True):
        assert own.dtype == other.dtype
        own, other = np.asarray(own, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(own, other, rtol=tolerance, atol=tolerance * abs(other).max())


@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16])
def test_values_statistics_and_gradients_are_those_of_flax(dtype):
    x = X if dtype is None else X.astype(dtype)
    ours = jax.jit(gradients(BatchNorm, relu, dtype))(PARAMS, x, SLOPES)
    flax = jax.jit(gradients(nn.BatchNorm, nn.relu, dtype))(PARAMS, x, SLOPES)
    assert_same(ours, flax, 2e-2 if dtype == jnp.bfloat16 else 1e-5)


def test_so_they_are_of_two_axes_and_under_vmap():
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    x, slopes = (a[:2, 0].reshape(2, 4, 6) for a in (X, SLOPES))
    ours = jax.jit(jax.vmap(gradients(BatchNorm, relu)))(params, x, slopes)
    flax = jax.jit(jax.vmap(gradients(nn.BatchNorm, nn.relu)))(params, x, slopes)
    assert_same(ours, flax)


@pytest.mark.parametrize("mapped", ["pmap", "shard_map"])
def test_so_they_are_over_eight_devices(mapped):
    def over_devices(function):
        if mapped == "pmap":
            cut = [a.reshape(8, 1, *a.shape[1:]) for a in (X, SLOPES)]
            return jax.pmap(function, "data", in_axes=(None, 0, 0))(PARAMS, *cut)

        def whole(*arguments):
            found = function(*arguments)
            return jax.tree.map(lambda leaf: leaf[None], found)

        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        places = (P(), P("data"), P("data"))
        cut = jax.shard_map(whole, mesh=mesh, in_specs=places, out_specs=P("data"), check_vma=False)
        return jax.jit(cut)(PARAMS, X, SLOPES)

    ours = over_devices(gradients(BatchNorm, relu, axis_name="data"))
    flax = over_devices(gradients(nn.BatchNorm, nn.relu, axis_name="data"))
    assert_same(ours, flax)


@pytest.mark.parametrize("setting", ["running", "mask"])
def test_running_statistics_and_masks_are_left_to_flax(setting):
    mask = jnp.ones((*X.shape[:-1], 1), bool).at[0].set(False) if setting == "mask" else None
    found = []
    for kind in (BatchNorm, nn.BatchNorm):
        module = kind(use_running_average=setting == "running", momentum=0.9)
        variables = module.init(jax.random.key(0), X)
        found.append((variables, module.apply(variables, X, mask=mask, mutable=["batch_stats"])))
    assert_same(*found, tolerance=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_bias": False},
        {"use_scale": False},
        {"use_fast_variance": False},
        {"force_float32_reductions": False, "dtype": jnp.bfloat16},
        {"axis": 1},
    ],
    ids=repr,
)
def test_settings_that_the_form_has_not_are_left_to_flax(settings):
    found = []
    for kind in (BatchNorm, nn.BatchNorm):
        module = kind(use_running_average=False, **settings)
        variables = module.init(jax.random.key(0), X)
        found.append((variables, module.apply(variables, X, mutable=["batch_stats"])))
    assert_same(*found, tolerance=0)


def test_a_new_layer_has_flaxs_names_and_start():
    class Network(nn.Module):
        norm: type[nn.BatchNorm]

        @nn.compact
        def __call__(self, x):
            return self.norm(use_running_average=False)(x)

    ours, flax = (Network(norm).init(jax.random.key(0), X) for norm in (BatchNorm, nn.BatchNorm))
    jax.tree.map(np.testing.assert_array_equal, ours, flax)


def test_on_other_backends_the_program_is_that_of_flax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    programs = {
        str(jax.make_jaxpr(gradients(norm, rectify))(PARAMS, X, SLOPES))
        for norm, rectify in ((norm_class(train=True), relu), (nn.BatchNorm, nn.relu))
    }
    assert len(programs) == 1


def test_rectified_values_have_gradients_forward_and_backward():
    x = jnp.array([-1.0, 0.0, 2.0, jnp.nan])
    np.testing.assert_array_equal(relu(x), [0.0, 0.0, 2.0, np.nan])
    np.testing.assert_array_equal(jax.grad(lambda x: relu(x).sum())(x), [0.0, 0.0, 1.0, 0.0])
    _, slopes = jax.jvp(relu, (x,), (jnp.ones(4),))
    np.testing.assert_array_equal(slopes, [0.0, 0.0, 1.0, 0.0])


@pytest.fixture
def one_device(monkeypatch):
    """Convolutions go by parts: of the smallest sizes too."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(cpu_layers, "_PART_BYTES", 2**8)


def gradients_of(convolve, **settings):
    """A function of inputs, kernel and slopes: the gradients by the first two."""
    settings = {
        "padding": ((1, 1), (1, 1)),
        "dimension_numbers": LAYOUT,
    } | settings

    def gradients(x, kernel, slopes):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, **settings), x, kernel)
        return y, back(slopes)

    return gradients


def drawn(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("batch", "stride", "window"), [(8, 1, 3), (12, 2, 3), (5, 1, 3), (4, 2, 5), (4, 1, 1)]
)
def test_gradients_of_convolutions_are_those_of_the_whole_batch(one_device, batch, stride, window):
    x, kernel = drawn(batch, 7, 6, 3), drawn(window, window, 3, 4)
    settings = {"window_strides": (stride, stride), "padding": 2 * ((window // 2,) * 2,)}
    slopes = drawn(batch, -(-7 // stride), -(-6 // stride), 4)
    ours, whole = (
        jax.jit(gradients_of(convolve, **settings))(x, kernel, slopes)
        for convolve in (convolution, jax.lax.conv_general_dilated)
    )
    assert_same(ours, whole)


def test_so_they_are_forward_and_of_a_kernel_alone(one_device):
    x, kernel, direction = drawn(8, 6, 6, 3), drawn(3, 3, 3, 4), drawn(3, 3, 3, 4)

    def both(convolve):
        def loss(kernel):
            return jnp.square(convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)).sum()

        return jax.jvp(jax.grad(loss), (kernel,), (direction,))

    assert_same(both(convolution), both(jax.lax.conv_general_dilated))


def test_so_they_are_under_vmap(one_device):
    stacks = drawn(2, 8, 6, 6, 3), drawn(2, 3, 3, 3, 4), drawn(2, 8, 6, 6, 4)
    ours, whole = (
        jax.jit(jax.vmap(gradients_of(convolve, window_strides=(1, 1))))(*stacks)
        for convolve in (convolution, jax.lax.conv_general_dilated)
    )
    assert_same(ours, whole)


@pytest.mark.parametrize("case", ["parts", "bfloat16", "groups", "devices", "accelerator"])
def test_what_is_no_float32_convolution_of_one_cpu_is_left_as_it_is(one_device, monkeypatch, case):
    dtype = jnp.bfloat16 if case == "bfloat16" else jnp.float32
    groups = 2 if case == "groups" else 1
    if case == "devices":
        monkeypatch.setattr(jax, "device_count", lambda: 2)
    if case == "accelerator":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    operands = jnp.ones((8, 6, 6, 4), dtype), jnp.ones((3, 3, 4 // groups, 4), dtype)
    ours, whole = (
        str(
            jax.make_jaxpr(gradients_of(f, window_strides=(1, 1), feature_group_count=groups))(
                *operands, jnp.ones((8, 6, 6, 4), dtype)
            )
        )
        for f in (convolution, jax.lax.conv_general_dilated)
    )
    assert (ours == whole) == (case != "parts")


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="the compiler of jax 0.10 takes the barrier away"
)
def test_no_loop_computes_more_than_a_block_or_two_however_many_there_are():
    layers = Layers(nn.initializers.he_normal(), identity_shortcuts=True)
    x = jnp.ones((4, 8, 8, 4))

    def longest_loop(blocks):
        network = ResNet(Convolution(4, 3), stages_of(basic_block, (4,), (blocks,)), layers)
        variables = jax.eval_shape(lambda: network.init(jax.random.key(0), x, False))

        def loss(params, variables):
            features, _ = network.apply(
                variables | {"params": params}, x, True, mutable=["batch_stats"]
            )
            return jnp.sum(features)

        gradient = jax.jit(jax.grad(loss)).lower(variables["params"], variables)
        text = gradient.compile().as_text() or ""
        loops = re.findall(r"%fused_computation[^{]*\{\n(.*?)\n\}", text, re.DOTALL)
        return max(loop.count("\n") for loop in loops)

    assert longest_loop(4) <= longest_loop(2) + 2

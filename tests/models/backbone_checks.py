"""What is asked of every backbone: PyTorch's outputs, bfloat16, gradients, and eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import shard_map
from jax.sharding import AxisType, PartitionSpec

from tests.models.peer_weights import (
    CHANNELS,
    RECORDED,
    images,
    peer_tensor,
    peer_variables,
    recorded_columns,
)


def shapes_of(module, x):
    """Shapes of a module's variables and of its output, without computing anything."""
    return _shapes_of(module, x.shape)


@functools.cache
def _shapes_of(module, shape):
    def run(x):
        return module.init_with_output(jax.random.key(0), x, train=False)

    outputs, variables = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, np.float32))
    return variables, outputs


def parameter_count(module, classes):
    """Parameters of a backbone for images of three channels and of a linear classifier."""
    variables, _ = shapes_of(module, np.zeros((1, 32, 32, 3), np.float32))
    backbone = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return backbone + (module.dim + 1) * classes


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(module, variables, x, train):
    """Features, and the variables that the call changes."""
    return module.apply(variables, x, train=train, mutable=["batch_stats"])


def layer_of(variables, name):
    """The statistics of PyTorch's layer `layer1.0.bn1`."""
    tree = variables["batch_stats"]
    *blocks, last = name.replace(".downsample.", ".downsample_").split(".")
    if blocks:
        tree = tree["_".join(blocks[:2])]
    return tree[last]


def assert_matches_record(name, module):
    """Features in both modes and the new statistics are those that PyTorch computed."""
    with np.load(RECORDED / f"{name}.npz") as file:
        record = dict(file)
    x = images(name, int(record["batch"]), int(record["side"]))
    variables = peer_variables(shapes_of(module, x)[0])
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == record["parameters"]
    for mode, train in (("evaluated", False), ("trained", True)):
        features, changed = apply(module, variables, x, train)
        assert features.shape == (len(x), module.dim)
        np.testing.assert_allclose(
            recorded_columns(features), record[mode], rtol=1e-4, atol=1e-4, err_msg=mode
        )
    assert_statistics_match(record, changed)


def assert_statistics_match(record, changed):
    """Means are PyTorch's; a variance took n - 1 n-ths of the step that PyTorch's took."""
    assert len(record["norms"]) == len(jax.tree.leaves(changed)) // 2
    for row, name in enumerate(record["norms"]):
        ours = layer_of(changed, name)
        mean, var = np.asarray(ours["mean"]), np.asarray(ours["var"])
        np.testing.assert_allclose(
            mean[:CHANNELS], record["running_mean"][row], rtol=1e-4, atol=1e-4, err_msg=name
        )
        kept = 0.9 * peer_tensor(f"{name}.running_var", var.shape)[:CHANNELS]
        share = 1 - 1 / record["counts"][row]
        expected = kept + share * (record["running_var"][row] - kept)
        np.testing.assert_allclose(var[:CHANNELS], expected, rtol=1e-4, err_msg=name)


def assert_bfloat16_is_close(module, half_module, x, tolerance):
    """Layers compute in bfloat16; parameters, statistics and features are float32 and close."""
    variables = peer_variables(shapes_of(half_module, x)[0])
    x = jnp.asarray(x)
    exact, _ = apply(module, variables, x, True)

    @jax.jit
    def run(variables):
        return half_module.apply(variables, x, train=True, capture_intermediates=True, mutable=True)

    features, changed = run(variables)
    assert features.dtype == np.float32
    kept = {name: changed[name] for name in ("params", "batch_stats")}
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {np.dtype(np.float32)}
    outputs = jax.tree.leaves({**changed["intermediates"], "__call__": None})
    assert {str(output.dtype) for output in outputs} == {"bfloat16"}
    error = np.linalg.norm(features - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < tolerance


def assert_gradients_are_finite(module, *batches):
    """A loss of the features has a finite gradient by every parameter, and none is all zero."""
    variables = peer_variables(shapes_of(module, batches[0])[0])

    @jax.jit
    @jax.grad
    def gradient(params, x):
        features, _ = module.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return (features**2).mean()

    for x in batches:
        of_batch = gradient(variables["params"], jnp.asarray(x))
        for path, leaf in jax.tree_util.tree_leaves_with_path(of_batch):
            assert np.isfinite(leaf).all(), path
            assert np.abs(leaf).max() > 0, path


def on_eight_devices(module, variables, x):
    """Training mode under `shard_map`, the batch cut in eight; statistics of each device."""

    def part(variables, x):
        features, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return features, jax.tree.map(lambda leaf: leaf[None], changed)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    cut, whole = PartitionSpec("data"), PartitionSpec()
    run = shard_map(part, mesh=mesh, in_specs=(whole, cut), out_specs=cut, check_vma=False)
    return jax.jit(run)(variables, x)


def assert_batch_norm_is_global_or_per_device(module, global_module, x):
    """With an axis name eight devices give what one gives; without, each normalises its part."""
    variables = peer_variables(shapes_of(module, x)[0])
    one, changed = apply(module, variables, x, True)
    eight, statistics = on_eight_devices(global_module, variables, x)
    np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-4)
    for ours, expected in zip(jax.tree.leaves(statistics), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(ours, [expected] * 8, rtol=1e-4, atol=1e-5)
    alone, _ = on_eight_devices(module, variables, x)
    part = len(x) // 8
    for first in (0, 7 * part):
        expected, _ = apply(module, variables, x[first : first + part], True)
        np.testing.assert_allclose(alone[first : first + part], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(alone) - one).max() > 1e-2

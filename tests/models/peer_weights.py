"""Weights and images for a network and its PyTorch peer, from names alone, so none need storing.

Values come from raw bits of a counter-based generator, whose stream NumPy guarantees; PyTorch's
names and layouts are the common language. `benchmarks/peers/record_backbones.py` uses this module
too, and so it imports NumPy only.
"""

import re
import zlib
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).parent / "recorded"
COLUMNS = 64
"""Features are recorded in this many evenly spaced columns."""
CHANNELS = 4
"""Running statistics are recorded in the first channels of every layer."""


def uniform(name, shape, low, high):
    """Float32 values in [low, high) that depend on the name only."""
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    unit = (bits >> np.uint64(11)) * 2.0**-53
    return (low + (high - low) * unit).reshape(shape).astype(np.float32)


def peer_tensor(name, shape):
    """The tensor with a name and shape of a PyTorch state dict; statistics are not trivial."""
    if len(shape) > 1:  # (out, in, height, width) or (out, in): uniform, with He's variance
        bound = float(np.sqrt(6 / np.prod(shape[1:])))
        return uniform(name, shape, -bound, bound)
    # Scales and shifts that keep deep networks from amplifying the rounding of batch statistics.
    bounds = {
        "running_mean": (-0.2, 0.2),
        "running_var": (0.5, 1.5),
        "weight": (0.2, 0.6),
        "bias": (-0.2, 0.6),
    }
    return uniform(name, shape, *bounds[name.rpartition(".")[2]])


def images(name, count, side):
    """Seeded images `(count, side, side, 3)`: patches, by which they differ much, and noise."""
    patches = uniform(f"patches of {name}", (count, side // 16, side // 16, 3), -2.0, 2.0)
    noise = uniform(f"noise of {name}", (count, side, side, 3), -1.0, 1.0)
    return patches.repeat(16, axis=1).repeat(16, axis=2) + noise


def peer_name(path):
    """`("layer1_0", "conv1", "kernel")` -> `layer1.0.conv1.weight`."""
    *layers, leaf = path
    kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return ".".join(
        [*(re.sub(r"_(\d+)$", r".\1", layer) for layer in layers), kinds.get(leaf, leaf)]
    )


def peer_variables(shapes):
    """Variables of the given shapes, filled with what the PyTorch peer holds."""
    return {name: _filled(tree, ()) for name, tree in shapes.items()}


def _filled(tree, path):
    if hasattr(tree, "items"):
        return {name: _filled(leaf, (*path, name)) for name, leaf in tree.items()}
    if len(tree.shape) == 2:
        return peer_tensor(peer_name(path), tree.shape[::-1]).T
    if len(tree.shape) != 4:
        return peer_tensor(peer_name(path), tree.shape)
    height, width, inner, outer = tree.shape
    return peer_tensor(peer_name(path), (outer, inner, height, width)).transpose(2, 3, 1, 0)


def recorded_columns(features):
    """The columns of features that are recorded."""
    return np.asarray(features)[:, :: features.shape[1] // COLUMNS]

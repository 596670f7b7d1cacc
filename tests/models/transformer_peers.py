"""Weights for a vision transformer or ConvNeXt and its torchvision peer, from names alone.

`benchmarks/peers/record_transformers.py` uses this module too, and so it imports NumPy only.
"""

import re

import numpy as np

from tests.models.peer_weights import uniform

_PROJECTIONS = ("query", "key", "value")


def peer_tensor(name, shape):
    """The tensor with a name and shape of a torchvision state dict; scales are not trivial."""
    leaf = name.rpartition(".")[2]
    if len(shape) in (2, 4):  # (out, in, ...): uniform, with the variance 1 / in
        bound = float(np.sqrt(3 / np.prod(shape[1:])))
        return uniform(name, shape, -bound, bound)
    low, high = {"weight": (0.5, 1.5), "layer_scale": (0.2, 0.6)}.get(leaf, (-0.3, 0.3))
    return uniform(name, shape, low, high)


def peer_params(params, peer_name):
    """Parameters of the given shapes, filled with what the torchvision peer holds.

    Args:
      params: a tree with shapes.
      peer_name: torchvision's name of a layer from ours, `layer0/ln_1` and the like.
    """

    def filled(tree, path):
        if hasattr(tree, "items"):
            return {name: filled(leaf, (*path, name)) for name, leaf in tree.items()}
        return _leaf(path, tree.shape, peer_name)

    return filled(params, ())


def vit_name(layer):
    """`layer0/mlp_3` -> `encoder.layers.encoder_layer_0.mlp.3`."""
    whole = {"positions": "encoder.pos_embedding", "ln": "encoder.ln"}
    name = re.sub(r"^layer(\d+)/", r"encoder.layers.encoder_layer_\1.", whole.get(layer, layer))
    return re.sub(r"mlp_(\d)", r"mlp.\1", name)


def convnext_name(layer):
    """`stage1_block2/block_3` -> `features.3.2.block.3`."""

    def place(match):
        return f"features.{2 * int(match[1]) + 1}.{match[2]}."

    def between(match):
        return f"features.{2 * int(match[1])}.{('norm', 'reduce').index(match[2])}"

    name = {"norm": "classifier.0"}.get(layer, re.sub(r"^stem_(\d)$", r"features.0.\1", layer))
    name = re.sub(r"^stage(\d+)_block(\d+)/", place, name)
    name = re.sub(r"^stage(\d+)_(norm|reduce)$", between, name)
    return re.sub(r"block_(\d)$", r"block.\1", name)


def _leaf(path, shape, peer_name):
    *layers, leaf = path
    if leaf in ("class_token", "positions"):
        return peer_tensor(peer_name(leaf), shape)
    if layers[-1] in _PROJECTIONS:
        return _input_projection(peer_name("/".join(layers[:-1])), layers[-1], leaf, shape)
    if leaf == "scale" and "block" in layers[-1] and "_" not in layers[-1].partition("block")[2]:
        return peer_tensor(f"{peer_name(layers[-1] + '/')}layer_scale", (*shape, 1, 1)).ravel()
    name = "/".join(layers)
    if layers[-1] == "out":
        name = "/".join(layers[:-1])
        if leaf == "kernel":  # (heads, D / heads, D)
            return peer_tensor(f"{peer_name(name)}.out_proj.weight", (shape[-1],) * 2).T.reshape(
                shape
            )
        return peer_tensor(f"{peer_name(name)}.out_proj.bias", shape)
    kinds = {"kernel": "weight", "scale": "weight"}
    name = f"{peer_name(name)}.{kinds.get(leaf, leaf)}"
    if leaf != "kernel":
        return peer_tensor(name, shape)
    if len(shape) == 2:
        return peer_tensor(name, shape[::-1]).T
    height, width, inner, outer = shape
    return peer_tensor(name, (outer, inner, height, width)).transpose(2, 3, 1, 0)


def _input_projection(name, part, leaf, shape):
    """Queries, keys and values are one tensor there, one below the other."""
    width = int(np.prod(shape[1:])) if leaf == "kernel" else int(np.prod(shape))
    rows = slice(_PROJECTIONS.index(part) * width, (_PROJECTIONS.index(part) + 1) * width)
    if leaf == "kernel":  # (D, heads, D / heads)
        whole = peer_tensor(f"{name}.in_proj_weight", (3 * width, shape[0]))
        return whole[rows].T.reshape(shape)
    return peer_tensor(f"{name}.in_proj_bias", (3 * width,))[rows].reshape(shape)

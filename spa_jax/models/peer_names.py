"""What other libraries call the parameters of the networks that they share with this one."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from spa_jax.models.convnext import STAGES
from spa_jax.models.efficientnet_lite import LITE0
from spa_jax.models.residual import ARCHITECTURES
from spa_jax.models.vision_transformer import SIZES

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


class Naming(NamedTuple):
    """The names that a library gives to the tensors of a family of networks.

    Attributes:
      library: who names them so.
      rules: what turns a path of ours into such a name, each a regular expression and what takes
        its place; slashes become dots, and a last `kernel` becomes `weight`, and so on.
      classifier: a regular expression of the names that the classifier has, for which a network
        has no place.
    """

    library: str
    rules: tuple[Rule, ...]
    classifier: str

    def name(self, path: str) -> str:
        """Its name of a parameter or running statistic of ours.

        Args:
          path: of one, behind its collection.

        Example:
          >>> PEER_NAMES["resnet50"][0].name("batch_stats/layer1_0/downsample_1/mean")
          'layer1.0.downsample.1.running_mean'
        """
        path = path.partition("/")[2]
        for pattern, replacement in self.rules:
            path = re.sub(pattern, replacement, path)
        *layers, leaf = path.split("/")
        return ".".join([*layers, _LEAVES.get(leaf, leaf)])


_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

_RESNET = (Naming("torchvision and timm", ((r"(layer\d|downsample)_(\d+)", r"\1/\2"),), r"fc\."),)

_ATTENTION = r"self_attention/(?:query|key|value)/"
_VIT = (
    Naming(
        "torchvision",
        (
            (r"^layer(\d+)/", r"encoder/layers/encoder_layer_\1/"),
            (rf"{_ATTENTION}kernel", "self_attention/in_proj_weight"),
            (rf"{_ATTENTION}bias", "self_attention/in_proj_bias"),
            (r"self_attention/out/", "self_attention/out_proj/"),
            (r"mlp_(\d)", r"mlp/\1"),
            (r"^positions", "encoder/pos_embedding"),
            (r"^ln/", "encoder/ln/"),
        ),
        r"heads\.",
    ),
    Naming(
        "timm",
        (
            (r"^layer(\d+)/", r"blocks/\1/"),
            (_ATTENTION, "attn/qkv/"),
            (r"self_attention/out/", "attn/proj/"),
            (r"ln_(\d)", r"norm\1"),
            (r"mlp_0", "mlp/fc1"),
            (r"mlp_3", "mlp/fc2"),
            (r"^conv_proj", "patch_embed/proj"),
            (r"^class_token", "cls_token"),
            (r"^positions", "pos_embed"),
            (r"^ln/", "norm/"),
        ),
        r"head\.",
    ),
)

_CONVNEXT = (
    Naming(
        "torchvision",
        (
            (r"(_block\d+)/scale$", r"\1/layer_scale"),
            (r"^norm/", "classifier/0/"),
            (r"^stem_(\d)", r"features/0/\1"),
            (r"^stage(\d+)_block(\d+)", lambda at: f"features/{2 * int(at[1]) + 1}/{at[2]}"),
            (r"^stage(\d+)_norm", lambda at: f"features/{2 * int(at[1])}/0"),
            (r"^stage(\d+)_reduce", lambda at: f"features/{2 * int(at[1])}/1"),
            (r"/block_(\d)", r"/block/\1"),
        ),
        r"classifier\.2\.",
    ),
    Naming(
        "timm",
        (
            (r"(_block\d+)/scale$", r"\1/gamma"),
            (r"^norm/", "head/norm/"),
            (r"^stem_(\d)", r"stem/\1"),
            (r"^stage(\d+)_block(\d+)", r"stages/\1/blocks/\2"),
            (r"^stage(\d+)_norm", r"stages/\1/downsample/0"),
            (r"^stage(\d+)_reduce", r"stages/\1/downsample/1"),
            (r"block_0", "conv_dw"),
            (r"block_2", "norm"),
            (r"block_3", "mlp/fc1"),
            (r"block_5", "mlp/fc2"),
        ),
        r"head\.fc\.",
    ),
)


def _place(at: re.Match[str]) -> str:
    """The blocks of all stages, counted through."""
    before = sum(stage.blocks for stage in LITE0[: int(at[1])])
    return f"_blocks/{before + int(at[2])}/_"


_EFFICIENTNET_LITE = (
    Naming(
        "timm (tf_efficientnet_lite0)",
        (
            (r"depthwise$", "conv_dw/kernel"),
            (r"^(stage0_block0)/depthwise_norm", r"\1/bn1"),
            (r"^(stage0_block0)/project_norm", r"\1/bn2"),
            (r"^(stage0_block0)/project", r"\1/conv_pw"),
            (r"expand_norm", "bn1"),
            (r"depthwise_norm", "bn2"),
            (r"project_norm", "bn3"),
            (r"expand", "conv_pw"),
            (r"project", "conv_pwl"),
            (r"^stage(\d+)_block(\d+)", r"blocks/\1/\2"),
            (r"^stem_norm", "bn1"),
            (r"^stem", "conv_stem"),
            (r"^top_norm", "bn2"),
            (r"^top", "conv_head"),
        ),
        r"classifier\.",
    ),
    Naming(
        "efficientnet-lite-pytorch",
        (
            (r"depthwise$", "depthwise_conv/kernel"),
            (r"(expand|project)/", r"\1_conv/"),
            (r"expand_norm", "bn0"),
            (r"depthwise_norm", "bn1"),
            (r"project_norm", "bn2"),
            (r"^stage(\d+)_block(\d+)/", _place),
            (r"^stem_norm", "_bn0"),
            (r"^stem", "_conv_stem"),
            (r"^top_norm", "_bn1"),
            (r"^top", "_conv_head"),
        ),
        r"_fc\.",
    ),
)

PEER_NAMES: Mapping[str, tuple[Naming, ...]] = MappingProxyType(
    {
        **dict.fromkeys(ARCHITECTURES, _RESNET),
        **dict.fromkeys(SIZES, _VIT),
        **dict.fromkeys(STAGES, _CONVNEXT),
        "efficientnet_lite0": _EFFICIENTNET_LITE,
    }
)
"""Of every network that weights are imported for, whose names are known."""

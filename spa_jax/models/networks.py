"""The networks and the heads by name, and a classifier made of one of each."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from spa_jax.errors import InputError
from spa_jax.models.adapter import Adapter, AdapterOptions, make_identity
from spa_jax.models.classifier import Classifier
from spa_jax.models.convnext import STAGES, ConvNeXt, ConvNeXtOptions, make_convnext
from spa_jax.models.efficientnet_lite import make_efficientnet_lite0
from spa_jax.models.heads import BclHead, CosineHead, EtfHead, ExpertHeads, GlmcHeads, LinearHead
from spa_jax.models.residual import (
    ARCHITECTURES,
    CifarResNetOptions,
    SmallOptions,
    make_cifar_resnet,
    make_imagenet_resnet,
    make_small_resnet,
)
from spa_jax.models.vision_transformer import SIZES, VisionTransformer, VitOptions
from spa_jax.options import Entry


def _without_axis(make: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves out the mapped axis, the last argument, for what has no batch statistics."""
    return lambda *arguments, **options: make(*arguments[:-1], **options)


def _of_fixed_size(make: Callable[..., Any], sizes: Mapping[str, Any]) -> dict[str, Entry]:
    """Networks of published sizes, which have no options."""
    return {
        name: Entry(lambda _, *rest, size=size: make(size, *rest)) for name, size in sizes.items()
    }


NETWORKS: dict[str, Entry] = {
    "small": Entry(make_small_resnet, SmallOptions),
    "vit": Entry(_without_axis(VisionTransformer), VitOptions),
    "convnext": Entry(_without_axis(make_convnext), ConvNeXtOptions),
    "cifar_resnet": Entry(make_cifar_resnet, CifarResNetOptions),
    "efficientnet_lite0": Entry(make_efficientnet_lite0),
    "identity": Entry(_without_axis(make_identity)),
    "adapter": Entry(_without_axis(Adapter), AdapterOptions),
    **_of_fixed_size(make_imagenet_resnet, ARCHITECTURES),
    **_of_fixed_size(_without_axis(VisionTransformer), SIZES),
    **_of_fixed_size(_without_axis(ConvNeXt), STAGES),
}
"""`make(options, dtype, axis_name)` gives a backbone with `dim`, called with `images, train`.

One that takes features in place of images says so by `takes_features`; if it gives as many as it
gets, its `dim` is None. To add one, write its file and a line here.
"""

HEADS: dict[str, Callable[..., Any]] = {
    "linear": _without_axis(LinearHead),
    "cosine": _without_axis(CosineHead),
    "etf": EtfHead,
    "glmc": _without_axis(GlmcHeads),
    "bcl": BclHead,
    "experts": _without_axis(ExpertHeads),
}
"""`(num_classes, axis_name, **head_options)` -> a head, called as `head(features, train)`."""

CHOSEN_HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "normalised": ("linear", {"normalised": True}),
    "cosine": ("cosine", {"scale": 10.0}),
}
"""A head and its options, by what a configuration calls it: for methods that take a linear one."""


def build_classifier(
    network: str,
    options: Any,
    head: str,
    head_options: Mapping[str, Any],
    num_classes: int,
    dtype: DTypeLike = "float32",
    axis_name: str | None = None,
    frozen_backbone: bool = False,
    remat: bool = False,
) -> Classifier:
    """A network of `NETWORKS` with a head of `HEADS`.

    Args:
      network: name of the network.
      options: an instance of the network's options.
      head: name of the head; a method has it as `head`.
      head_options: keyword arguments of the head; a method has them as `head_options`.
      num_classes: C.
      dtype: computation of the network in float32 or bfloat16; heads compute in float32.
      axis_name: mapped axis that batch statistics are taken over, in network and head.
      frozen_backbone: as in :class:`spa_jax.models.classifier.Classifier`.
      remat: whether the backward pass computes the inside of the network's blocks again, which
        takes time and saves memory.

    Raises:
      InputError: options that the network or the head refuses, or a network without blocks.

    Example:
      >>> build_classifier("vit", VitOptions(width=8, heads=2), "linear", {}, 10).backbone.dim
      8
    """
    backbone = NETWORKS[network].make(options, jnp.dtype(dtype), axis_name)
    if remat:
        if not hasattr(backbone, "remat"):
            raise InputError(
                f"config.model.remat computes the blocks of a network again, and {network} has "
                "none: leave it at False, or choose another config.model.name."
            )
        backbone = backbone.clone(remat=True)
    classes = HEADS[head](num_classes, axis_name, **head_options)
    return Classifier(backbone, classes, frozen_backbone)

"""ConvNeXt: a convolutional network with the layout of a transformer."""

import dataclasses
import functools
from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.options import option

_EPSILON = 1e-6
_MLP_RATIO = 4
_INIT = nn.initializers.truncated_normal(0.02)


class Stages(NamedTuple):
    """What tells one ConvNeXt from another.

    Attributes:
      patch_size: window and stride of the stem.
      widths: channels of each stage; the last is the feature width D.
      blocks: in each stage.
      scale_init: what the scales of the blocks start at. The published 1e-6 is for deep networks;
        one of a few blocks learns sooner from 1.
    """

    patch_size: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    scale_init: float = 1e-6


STAGES = MappingProxyType(
    {
        "convnext_tiny": Stages(4, (96, 192, 384, 768), (3, 3, 9, 3)),
        "convnext_small": Stages(4, (96, 192, 384, 768), (3, 3, 27, 3)),
    }
)
"""The networks for 224 x 224 images by name."""


@dataclasses.dataclass(frozen=True)
class ConvNeXtOptions:
    """Options of `convnext`."""

    patch_size: int = option(1, "side of a patch in pixels", low=1)
    widths: tuple[int, ...] = option((16, 32), "channels of each stage", low=1)
    blocks: int = option(1, "in each stage", low=1)


class ConvNeXtBlock(nn.Module):
    """A 7x7 convolution of each channel by itself, and a perceptron across channels, scaled.

    Attributes:
      scale_init: what the channels' scales start at.
      dtype: as in `ConvNeXt`.
    """

    scale_init: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W K"]) -> Float[Array, "B H W K"]:
        """Images `(B, H, W, K)` to images of the same shape."""
        channels = x.shape[-1]
        dense = functools.partial(nn.Dense, kernel_init=_INIT, dtype=self.dtype)
        y = nn.Conv(
            channels,
            (7, 7),
            padding=((3, 3), (3, 3)),
            feature_group_count=channels,
            kernel_init=_INIT,
            dtype=self.dtype,
            name="block_0",
        )(x)
        y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="block_2")(y)
        y = dense(_MLP_RATIO * channels, name="block_3")(y)
        y = dense(channels, name="block_5")(nn.gelu(y, approximate=False))
        scale = self.param("scale", nn.initializers.constant(self.scale_init), (channels,))
        return x + scale.astype(y.dtype)[None, None, None] * y


class ConvNeXt(nn.Module):
    """Stages of ConvNeXt blocks, each after the first at half the resolution; average pooling.

    Numbers and layers are torchvision's, without stochastic depth. There is no batch normalisation,
    so that a device's part of a batch gives what the whole batch gives.

    Attributes:
      stages: patch size, widths, blocks and start of the scales; `STAGES` has the published ones.
      dtype: computation in float32 or bfloat16. Parameters are float32 either way.
      remat: whether the backward pass computes what is inside a block again.

    Raises:
      InputError: when it is called, an image has too few pixels for the stages.

    Example:
      >>> ConvNeXt(STAGES["convnext_tiny"]).dim
      768

    Reference:
      Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, "A ConvNet for the 2020s", CVPR 2022.
    """

    stages: Stages
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @property
    def dim(self) -> int:
        """The feature width D."""
        return self.stages.widths[-1]

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, of either sign."""
        patch, widths, blocks, scale_init = self.stages
        smallest = patch * 2 ** (len(widths) - 1)
        if min(images.shape[1:3]) < smallest:
            raise InputError(
                f"A ConvNeXt with patches of {patch} pixels and {len(widths)} stages needs images "
                f"of {smallest} x {smallest} or more, got {images.shape[1]} x {images.shape[2]}: "
                f"use smaller patches or fewer stages."
            )
        x = _downsample(widths[0], patch, self.dtype, "stem_0")(images)
        x = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="stem_1")(x)
        make = nn.remat(ConvNeXtBlock) if self.remat else ConvNeXtBlock
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if stage > 0:
                x = nn.LayerNorm(_EPSILON, dtype=self.dtype, name=f"stage{stage}_norm")(x)
                x = _downsample(width, 2, self.dtype, f"stage{stage}_reduce")(x)
            for block in range(count):
                name = f"stage{stage}_block{block}"
                x = make(scale_init, self.dtype, name=name)(x)
        return nn.LayerNorm(_EPSILON, name="norm")(jnp.mean(x, axis=(1, 2), dtype=jnp.float32))


def _downsample(channels: int, window: int, dtype: DTypeLike, name: str) -> nn.Conv:
    tile = (window, window)
    return nn.Conv(channels, tile, tile, "VALID", kernel_init=_INIT, dtype=dtype, name=name)


def make_convnext(options: ConvNeXtOptions, dtype: DTypeLike = jnp.float32) -> ConvNeXt:
    """The network `convnext`, whose few blocks start with scales of 1."""
    counts = (options.blocks,) * len(options.widths)
    return ConvNeXt(Stages(options.patch_size, options.widths, counts, scale_init=1.0), dtype)

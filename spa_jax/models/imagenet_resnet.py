"""Residual networks for 224 x 224 images: ResNet-18, 34, 50, 101 and ResNeXt-50."""

from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from spa_jax.models.residual import Block, Convolution, Layers, ResNet, basic_block, stages_of

_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_EXPANSION = 4


class Architecture(NamedTuple):
    """What tells one network of the family from another.

    Attributes:
      stage_sizes: blocks in each of the four stages.
      bottleneck: blocks of three convolutions, the last 4 times as wide, in place of two.
      groups: groups of the 3x3 convolution of a bottleneck.
      width_per_group: its channels in each group, in the first stage.
    """

    stage_sizes: tuple[int, int, int, int]
    bottleneck: bool
    groups: int = 1
    width_per_group: int = 64

    def block(self, channels: int, stride: int = 1) -> Block:
        """The convolutions of a block.

        The 3x3 one of a bottleneck has the stride ("v1.5"; the paper has it in the first 1x1).
        """
        if not self.bottleneck:
            return basic_block(channels, stride)
        width = channels * self.width_per_group // 64 * self.groups
        return (
            Convolution(width, 1),
            Convolution(width, 3, stride, self.groups),
            Convolution(_EXPANSION * channels, 1),
        )


ARCHITECTURES = MappingProxyType(
    {
        "resnet18": Architecture((2, 2, 2, 2), bottleneck=False),
        "resnet34": Architecture((3, 4, 6, 3), bottleneck=False),
        "resnet50": Architecture((3, 4, 6, 3), bottleneck=True),
        "resnet101": Architecture((3, 4, 23, 3), bottleneck=True),
        "resnext50_32x4d": Architecture((3, 4, 6, 3), True, groups=32, width_per_group=4),
    }
)
"""The networks by name."""


def make_imagenet_resnet(
    architecture: Architecture, dtype: DTypeLike = jnp.float32, axis_name: str | None = None
) -> ResNet:
    """A residual network with a 7x7 stem, a maximum pool and four stages of blocks.

    Parameters, layer names and outputs are torchvision's, `layer1.0.downsample.0` being
    `layer1_0/downsample_0`. Convolutions start He-normal of the fan-out, and the last scale of each
    block at zero (torchvision's `zero_init_residual=True`).

    Args:
      architecture: a value of `ARCHITECTURES`.
      dtype: as in :class:`spa_jax.models.residual.Layers`.
      axis_name: as in :class:`spa_jax.models.residual.Layers`.

    Example:
      >>> make_imagenet_resnet(ARCHITECTURES["resnext50_32x4d"]).dim
      2048

    Reference:
      He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016. Xie,
      Girshick, Dollár, Tu and He, "Aggregated residual transformations for deep neural networks",
      CVPR 2017. Zero scales: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1
      hour", 2017.
    """
    stages = stages_of(architecture.block, (64, 128, 256, 512), architecture.stage_sizes)
    layers = Layers(_CONV_INIT, last_scale=0.0, dtype=dtype, axis_name=axis_name)
    return ResNet(Convolution(64, 7, 2), stages, layers, pool=True)

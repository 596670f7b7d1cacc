"""Residual networks for 224 x 224 images: ResNet-18, 34, 50, 101 and ResNeXt-50."""

import functools
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError

_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_CHANNELS = (64, 128, 256, 512)
_EXPANSION = 4
# Flax annotates the padding of a pool as a string, and takes margins as well.
_POOL_PADDING: Any = ((1, 1), (1, 1))


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


ARCHITECTURES = MappingProxyType(
    {
        "resnet18": Architecture((2, 2, 2, 2), bottleneck=False),
        "resnet34": Architecture((3, 4, 6, 3), bottleneck=False),
        "resnet50": Architecture((3, 4, 6, 3), bottleneck=True),
        "resnet101": Architecture((3, 4, 23, 3), bottleneck=True),
        "resnext50_32x4d": Architecture((3, 4, 6, 3), True, groups=32, width_per_group=4),
    }
)
"""The networks by name; `ImageNetResNet` takes the name."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the last scale starts at zero, so that the block is its shortcut.

    Attributes:
      channels: output channels.
      stride: stride of the first convolution.
      axis_name: as in `ImageNetResNet`.
      dtype: as in `ImageNetResNet`.
    """

    channels: int
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _ _ channels"]:
        """Images `(B, H, W, K)` to `(B, ceil(H / stride), ceil(W / stride), channels)`."""
        norm = _batch_norm(train, self.axis_name, self.dtype)
        y = _convolution(self.channels, 3, self.stride, self.dtype, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = _convolution(self.channels, 3, 1, self.dtype, name="conv2")(y)
        y = norm(name="bn2", scale_init=nn.initializers.zeros)(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = _convolution(self.channels, 1, self.stride, self.dtype, name="downsample_0")(x)
            x = norm(name="downsample_1")(x)
        return nn.relu(y + x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the last scale starts at zero. The 3x3 one has the stride.

    Attributes:
      width: channels of the first two convolutions.
      channels: output channels.
      stride: stride of the 3x3 convolution ("v1.5"; the paper has it in the first 1x1).
      groups: groups of the 3x3 convolution.
      axis_name: as in `ImageNetResNet`.
      dtype: as in `ImageNetResNet`.
    """

    width: int
    channels: int
    stride: int = 1
    groups: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _ _ channels"]:
        """Images `(B, H, W, K)` to `(B, ceil(H / stride), ceil(W / stride), channels)`."""
        norm = _batch_norm(train, self.axis_name, self.dtype)
        y = _convolution(self.width, 1, 1, self.dtype, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = _convolution(self.width, 3, self.stride, self.dtype, self.groups, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y))
        y = _convolution(self.channels, 1, 1, self.dtype, name="conv3")(y)
        y = norm(name="bn3", scale_init=nn.initializers.zeros)(y)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = _convolution(self.channels, 1, self.stride, self.dtype, name="downsample_0")(x)
            x = norm(name="downsample_1")(x)
        return nn.relu(y + x)


class ImageNetResNet(nn.Module):
    """A residual network with a 7x7 stem, a maximum pool and four stages of blocks.

    Parameters, layer names and outputs are torchvision's, `layer1.0.downsample.0` being
    `layer1_0/downsample_0`. Convolutions start He-normal of the fan-out, and the last scale of each
    block at zero (torchvision's `zero_init_residual=True`). A running variance here averages the
    biased variance of the batches, as Flax does, and PyTorch's the unbiased one.

    Attributes:
      architecture: a name in `ARCHITECTURES`.
      axis_name: mapped axis over which batch normalisation takes its statistics, under `jax.pmap`
        and `jax.shard_map` (with `check_vma=False`). None takes them over the batch that the
        module sees: the global batch under `jax.jit`, each device's own part under the other two.
      dtype: computation in float32 or bfloat16. Parameters and statistics are float32 either way.

    Raises:
      InputError: `architecture` is not the name of a network.

    Example:
      >>> ImageNetResNet("resnext50_32x4d").dim
      2048

    Reference:
      He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016. Xie,
      Girshick, Dollár, Tu and He, "Aggregated residual transformations for deep neural networks",
      CVPR 2017. Zero scales: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1
      hour", 2017.
    """

    architecture: str
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise InputError(
                f"There is no ImageNet network named {self.architecture!r}; choose one of "
                f"{', '.join(ARCHITECTURES)}."
            )
        super().__post_init__()

    @property
    def dim(self) -> int:
        """The feature width D."""
        return _CHANNELS[-1] * (_EXPANSION if ARCHITECTURES[self.architecture].bottleneck else 1)

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, which are >= 0."""
        x = _convolution(_CHANNELS[0], 7, 2, self.dtype, name="conv1")(images)
        x = nn.relu(_batch_norm(train, self.axis_name, self.dtype)(name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=_POOL_PADDING)
        for stage, blocks in enumerate(ARCHITECTURES[self.architecture].stage_sizes):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = self._block(_CHANNELS[stage], stride, f"layer{stage + 1}_{block}")(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

    def _block(self, channels: int, stride: int, name: str) -> BasicBlock | Bottleneck:
        _, bottleneck, groups, width_per_group = ARCHITECTURES[self.architecture]
        if not bottleneck:
            return BasicBlock(channels, stride, self.axis_name, self.dtype, name=name)
        width = channels * width_per_group // 64 * groups
        return Bottleneck(
            width, channels * _EXPANSION, stride, groups, self.axis_name, self.dtype, name=name
        )


def _convolution(
    channels: int, window: int, stride: int, dtype: DTypeLike, groups: int = 1, *, name: str
) -> nn.Conv:
    # "SAME" would pad an even image on one side only where the stride is 2.
    margin = (window - 1) // 2
    return nn.Conv(
        channels,
        (window, window),
        (stride, stride),
        padding=((margin, margin), (margin, margin)),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=_CONV_INIT,
        dtype=dtype,
        name=name,
    )


def _batch_norm(
    train: bool, axis_name: str | None, dtype: DTypeLike
) -> functools.partial[nn.BatchNorm]:
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
        dtype=dtype,
    )

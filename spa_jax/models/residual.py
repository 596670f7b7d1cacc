"""Residual networks as tables: a stem, blocks of convolutions with shortcuts, an average.

Each network is such a table, with its own way of making layers: the small one, which suits a CPU
(few pixels, wide channels); those for 32 x 32 images, as most of the long-tailed literature trains
them; ResNet-18, 34, 50, 101 and ResNeXt-50 for 224 x 224 images.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.models.cpu_layers import convolution, norm_class, relu
from spa_jax.options import option

# PyTorch's `kaiming_normal_` as the CIFAR networks call it: of the fan-in, and not truncated.
_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_EXPANSION = 4

# Flax annotates the padding of a pool as a string, and takes margins as well.
_POOL_PADDING: Any = ((1, 1), (1, 1))


def batch_norm(train: bool, axis_name: str | None, **settings: Any) -> nn.BatchNorm:
    """Batch normalisation with PyTorch's momentum, 0.9 in Flax's terms, and epsilon, 1e-5.

    A running variance averages the biased variance of the batches, as Flax does, and PyTorch's the
    unbiased one, which is n / (n - 1) times as large (n values a channel).

    Args:
      train: whether to normalise by the batch, and to let it move the running statistics.
      axis_name: mapped axis over which to take the statistics, under `jax.pmap` and `jax.shard_map`
        (with `check_vma=False`). None takes them over the batch that the module sees: the global
        batch under `jax.jit`, each device's own part under the other two.
      settings: further arguments of `flax.linen.BatchNorm`, or others than these.
    """
    settings = {"momentum": 0.9, "epsilon": 1e-5} | settings
    norm = norm_class(train)
    return norm(use_running_average=not train, axis_name=axis_name, **settings)


class Convolution(NamedTuple):
    """A convolution of a network's table.

    Attributes:
      channels: of its output.
      window: side of its window in pixels.
      stride: its stride.
      groups: groups of channels that do not see each other.
    """

    channels: int
    window: int
    stride: int = 1
    groups: int = 1


Block = tuple[Convolution, ...]


class Layers(NamedTuple):
    """How the layers of one network are made.

    Attributes:
      kernel_init: start of the convolutions.
      last_scale: start of the last scale of each block; with 0 a new block is its shortcut.
      identity_shortcuts: shortcuts are `identity_shortcut`; False: a 1x1 convolution with
        normalisation where the shape changes, and nothing elsewhere.
      dtype: computation in float32 or bfloat16, None for that of inputs and parameters. Parameters
        and statistics are float32 either way.
      axis_name: of :func:`batch_norm`.
      as_pytorch: convolutions pad both sides alike, and layers carry PyTorch's names,
        `layer1.0.conv1` being `layer1_0/conv1`. False: Flax's "SAME", which pads an even image on
        one side only where the stride is 2, and Flax's names, `ResidualBlock_0/Conv_0`.
    """

    kernel_init: nn.initializers.Initializer
    last_scale: float = 1.0
    identity_shortcuts: bool = False
    dtype: DTypeLike | None = jnp.float32
    axis_name: str | None = None
    as_pytorch: bool = True

    def name(self, name: str) -> str | None:
        """PyTorch's name of a layer, or none, so that Flax finds one."""
        return name if self.as_pytorch else None

    def convolution(self, shape: Convolution, name: str) -> nn.Conv:
        """A layer of that shape, without bias."""
        margin = (shape.window - 1) // 2
        return nn.Conv(
            shape.channels,
            (shape.window, shape.window),
            (shape.stride, shape.stride),
            padding=((margin, margin), (margin, margin)) if self.as_pytorch else "SAME",
            feature_group_count=shape.groups,
            conv_general_dilated=convolution,
            use_bias=False,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name=self.name(name),
        )

    def norm(self, train: bool, name: str, scale: float = 1.0) -> nn.BatchNorm:
        """A normalisation whose scales start at the given value."""
        return batch_norm(
            train,
            self.axis_name,
            scale_init=nn.initializers.constant(scale),
            dtype=self.dtype,
            name=self.name(name),
        )


def identity_shortcut(
    x: Float[Array, "B H W K"], channels: int, stride: int
) -> Float[Array, "B _ _ channels"]:
    """The shortcut without parameters, "option A": every `stride`-th pixel, zeros as new channels.

    The zeros stand half before and half after the old channels.

    Args:
      x: `(B, H, W, K)` floating.
      channels: channels of the result, K or more by an even number.
      stride: 1 or more.

    Returns:
      `(B, ceil(H / stride), ceil(W / stride), channels)`, the dtype of `x`.

    Example:
      >>> x = jnp.arange(1.0, 9.0).reshape(1, 2, 2, 2)
      >>> identity_shortcut(x, channels=4, stride=2).tolist()
      [[[[0.0, 1.0, 2.0, 0.0]]]]

    Reference:
      He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016.
    """
    new = (channels - x.shape[-1]) // 2
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (new, new)))


class ResidualBlock(nn.Module):
    """Convolutions, each with batch normalisation, and a shortcut around them.

    Attributes:
      convolutions: in order; PyTorch's names are `conv1`, `bn1`, `conv2` and so on, and
        `downsample_0`, `downsample_1` on the shortcut.
      layers: how they are made.
    """

    convolutions: Block
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _ _ _"]:
        """Images `(B, H, W, K)` to `(B, ceil(H / stride), ceil(W / stride), channels)`."""
        y, layers = x, self.layers
        for number, shape in enumerate(self.convolutions, start=1):
            last = number == len(self.convolutions)
            y = layers.convolution(shape, f"conv{number}")(y)
            y = layers.norm(train, f"bn{number}", layers.last_scale if last else 1.0)(y)
            y = y if last else relu(y)
        channels, stride = y.shape[-1], math.prod(shape.stride for shape in self.convolutions)
        if layers.identity_shortcuts:
            x = identity_shortcut(x, channels, stride).astype(y.dtype)
        elif x.shape != y.shape:
            x = layers.convolution(Convolution(channels, 1, stride), "downsample_0")(x)
            x = layers.norm(train, "downsample_1")(x)
        return relu(y + x)


class ResNet(nn.Module):
    """A stem, stages of residual blocks and the average over the image.

    Attributes:
      stem: the first convolution.
      stages: the blocks of each stage.
      layers: how they are made.
      pool: whether a maximum pool follows the stem, 3x3 with stride 2.
      remat: whether the backward pass computes what is inside a block again.
    """

    stem: Convolution
    stages: tuple[tuple[Block, ...], ...]
    layers: Layers
    pool: bool = False
    remat: bool = False

    @property
    def dim(self) -> int:
        """The feature width D."""
        return self.stages[-1][-1][-1].channels

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, which are >= 0."""
        x = self.layers.convolution(self.stem, "conv1")(images)
        x = relu(self.layers.norm(train, "bn1")(x))
        if self.pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=_POOL_PADDING)
        make = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
        flax_names = (f"ResidualBlock_{number}" for number in itertools.count())
        for stage, blocks in enumerate(self.stages, start=1):
            for number, block in enumerate(blocks):
                name = self.layers.name(f"layer{stage}_{number}") or next(flax_names)
                x = make(block, self.layers, name=name)(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


def basic_block(channels: int, stride: int = 1) -> Block:
    """Two 3x3 convolutions; the first has the stride."""
    return Convolution(channels, 3, stride), Convolution(channels, 3)


def stages_of(
    block: Callable[[int, int], Block], channels: Sequence[int], counts: Sequence[int]
) -> tuple[tuple[Block, ...], ...]:
    """The table of a network's blocks: every stage but the first halves the resolution.

    Args:
      block: `(channels, stride)` -> a block.
      channels: of each stage.
      counts: blocks in each stage.

    Example:
      >>> stages = stages_of(basic_block, [16, 32], [1, 2])
      >>> [[block[0].stride for block in blocks] for blocks in stages]
      [[1], [2, 1]]
    """
    return tuple(
        tuple(block(width, 2 if stage > 0 and number == 0 else 1) for number in range(count))
        for stage, (width, count) in enumerate(zip(channels, counts, strict=True))
    )


@dataclasses.dataclass(frozen=True)
class SmallOptions:
    """Options of `small`; the last width is the feature width D."""

    widths: tuple[int, ...] = option((16, 32), "channels of each stage", low=1)
    blocks: int = option(1, "in each stage", low=1)
    stem_stride: int = option(1, "stride of the first convolution", low=1)


def make_small_resnet(
    options: SmallOptions, dtype: DTypeLike = jnp.float32, axis_name: str | None = None
) -> ResNet:
    """Stem, one stage of residual blocks for each width, global average pooling.

    Every stage but the first halves the resolution. The window of the stem is 3x3 for stride 1 and
    `stride + 1` else.

    Args:
      options: widths, blocks in each stage, stride of the stem.
      dtype: float32.
      axis_name: as in :class:`Layers`.

    Raises:
      InputError: another dtype.

    Example:
      >>> make_small_resnet(SmallOptions(widths=(16, 32))).dim
      32
    """
    if jnp.dtype(dtype) != jnp.float32:
        raise InputError(
            "The small network computes in float32: choose another config.model.name for "
            f"config.model.dtype={jnp.dtype(dtype).name}."
        )
    widths, stride = options.widths, options.stem_stride
    stem = Convolution(widths[0], max(3, stride + 1), stride)
    stages = stages_of(basic_block, widths, len(widths) * [options.blocks])
    # Without a dtype of its own it follows its parameters: in float64 too, where JAX has that on.
    layers = Layers(_FAN_OUT, dtype=None, axis_name=axis_name, as_pytorch=False)
    return ResNet(stem, stages, layers)


@dataclasses.dataclass(frozen=True)
class CifarResNetOptions:
    """Options of `cifar_resnet`; GLMC's and SpA's "ResNet-32" has width factor 4 (D = 256)."""

    depth: int = option(32, "6 n + 2 for n blocks in each stage: 20, 32, 44, 56 or 110")
    width_factor: int = option(1, "multiplies 16, 32 and 64 channels; 1 is standard", low=1)


def make_cifar_resnet(
    options: CifarResNetOptions, dtype: DTypeLike = jnp.float32, axis_name: str | None = None
) -> ResNet:
    """ResNet-20, 32, 44, 56 ... for CIFAR: three stages of 16, 32 and 64 channels, option A.

    The numbers are those of the PyTorch networks in the long-tailed literature: symmetric padding,
    He-normal initialisation of the fan-in, batch normalisation with momentum 0.9 and epsilon 1e-5.
    One thing differs: see :func:`batch_norm` on running variances.

    Args:
      options: depth and width factor. ResNet-32 has 0.46 M parameters and D = 64; four times as
        wide it has 7.4 M and D = 256.
      dtype: as in :class:`Layers`.
      axis_name: as in :class:`Layers`.

    Raises:
      InputError: no network has this depth.

    Example:
      >>> make_cifar_resnet(CifarResNetOptions(depth=32, width_factor=4)).dim
      256

    Reference:
      He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016,
      section 4.2.
    """
    depth, factor = options.depth, options.width_factor
    if depth < 8 or (depth - 2) % 6 != 0:
        raise InputError(
            f"A CIFAR ResNet has depth 6 n + 2 (two layers a block, n blocks in each of three "
            f"stages), got depth={depth}; choose 20, 32, 44, 56 or 110."
        )
    stages = stages_of(basic_block, (16 * factor, 32 * factor, 64 * factor), 3 * [(depth - 2) // 6])
    layers = Layers(_FAN_IN, identity_shortcuts=True, dtype=dtype, axis_name=axis_name)
    return ResNet(Convolution(16 * factor, 3), stages, layers)


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
        "resnet152": Architecture((3, 8, 36, 3), bottleneck=True),
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
      dtype: as in :class:`Layers`.
      axis_name: as in :class:`Layers`.

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
    layers = Layers(_FAN_OUT, last_scale=0.0, dtype=dtype, axis_name=axis_name)
    return ResNet(Convolution(64, 7, 2), stages, layers, pool=True)

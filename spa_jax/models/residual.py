"""Residual networks as tables: a stem, blocks of convolutions with shortcuts, an average.

Each family of networks is such a table, with its own way of making layers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.models.batch_norm import batch_norm

# Flax annotates the padding of a pool as a string, and takes margins as well.
_POOL_PADDING: Any = ((1, 1), (1, 1))


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
      axis_name: of :func:`spa_jax.models.batch_norm.batch_norm`.
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
        for number, convolution in enumerate(self.convolutions, start=1):
            last = number == len(self.convolutions)
            y = layers.convolution(convolution, f"conv{number}")(y)
            y = layers.norm(train, f"bn{number}", layers.last_scale if last else 1.0)(y)
            y = y if last else nn.relu(y)
        channels, stride = y.shape[-1], math.prod(shape.stride for shape in self.convolutions)
        if layers.identity_shortcuts:
            x = identity_shortcut(x, channels, stride).astype(y.dtype)
        elif x.shape != y.shape:
            x = layers.convolution(Convolution(channels, 1, stride), "downsample_0")(x)
            x = layers.norm(train, "downsample_1")(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """A stem, stages of residual blocks and the average over the image.

    Attributes:
      stem: the first convolution.
      stages: the blocks of each stage.
      layers: how they are made.
      pool: whether a maximum pool follows the stem, 3x3 with stride 2.
    """

    stem: Convolution
    stages: tuple[tuple[Block, ...], ...]
    layers: Layers
    pool: bool = False

    @property
    def dim(self) -> int:
        """The feature width D."""
        return self.stages[-1][-1][-1].channels

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, which are >= 0."""
        x = self.layers.convolution(self.stem, "conv1")(images)
        x = nn.relu(self.layers.norm(train, "bn1")(x))
        if self.pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=_POOL_PADDING)
        for stage, blocks in enumerate(self.stages, start=1):
            for number, block in enumerate(blocks):
                name = self.layers.name(f"layer{stage}_{number}")
                x = ResidualBlock(block, self.layers, name=name)(x, train)
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

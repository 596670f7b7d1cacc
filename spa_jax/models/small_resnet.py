"""A small residual network that suits a CPU: few pixels, wide channels."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.models.batch_norm import batch_norm
from spa_jax.options import option

_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class SmallOptions:
    """Options of `small`."""

    widths: tuple[int, ...] = option((16, 32), "channels of each stage", low=1)
    blocks: int = option(1, "in each stage", low=1)
    stem_stride: int = option(1, "stride of the first convolution", low=1)


def make_small(options: SmallOptions, dtype: DTypeLike, axis_name: str | None) -> "SmallResNet":
    """The network `small`; InputError for a dtype other than float32."""
    if jnp.dtype(dtype) != jnp.float32:
        raise InputError(
            "The small network computes in float32: choose another config.model.name for "
            f"config.model.dtype={jnp.dtype(dtype).name}."
        )
    if not options.widths:
        raise InputError("config.model.small.widths must be positive integers, got ().")
    return SmallResNet(options.widths, options.blocks, options.stem_stride, axis_name)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut around them."""

    channels: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _ _ channels"]:
        """Images `(B, H, W, channels)` to `(B, H / stride, W / stride, channels)`."""
        y = _convolution(self.channels, 3, self.stride)(x)
        y = nn.relu(batch_norm(train, self.axis_name)(y))
        y = _convolution(self.channels, 3, 1)(y)
        y = batch_norm(train, self.axis_name)(y)
        if x.shape != y.shape:
            x = _convolution(self.channels, 1, self.stride)(x)
            x = batch_norm(train, self.axis_name)(x)
        return nn.relu(x + y)


class SmallResNet(nn.Module):
    """Stem, one stage of residual blocks for each width, global average pooling.

    Attributes:
      widths: channels of each stage; the last is the feature width D. Every stage but the first
        halves the resolution.
      blocks: residual blocks in each stage.
      stem_stride: stride of the stem, whose window is 3x3 for stride 1 and `stride + 1` else.
      axis_name: as in :func:`spa_jax.models.batch_norm.batch_norm`.
    """

    widths: Sequence[int]
    blocks: int = 1
    stem_stride: int = 1
    axis_name: str | None = None

    @property
    def dim(self) -> int:
        """The feature width D."""
        return self.widths[-1]

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, channels)` to features `(B, D)`, which are >= 0."""
        window = max(3, self.stem_stride + 1)
        x = _convolution(self.widths[0], window, self.stem_stride)(images)
        x = nn.relu(batch_norm(train, self.axis_name)(x))
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = ResidualBlock(width, stride, self.axis_name)(x, train)
        return jnp.mean(x, axis=(1, 2))


def _convolution(channels: int, window: int, stride: int) -> nn.Conv:
    return nn.Conv(
        channels, (window, window), (stride, stride), use_bias=False, kernel_init=_CONV_INIT
    )

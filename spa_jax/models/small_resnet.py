"""A small residual network that suits a CPU: few pixels, wide channels."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from spa_jax.errors import InputError
from spa_jax.models.residual import Convolution, Layers, ResNet, basic_block, stages_of
from spa_jax.options import option

_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


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
      axis_name: as in :class:`spa_jax.models.residual.Layers`.

    Raises:
      InputError: another dtype, or no width.

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
    if not widths:
        raise InputError("config.model.small.widths must be positive integers, got ().")
    stem = Convolution(widths[0], max(3, stride + 1), stride)
    stages = stages_of(basic_block, widths, len(widths) * [options.blocks])
    # Without a dtype of its own it follows its parameters: in float64 too, where JAX has that on.
    layers = Layers(_CONV_INIT, dtype=None, axis_name=axis_name, as_pytorch=False)
    return ResNet(stem, stages, layers)

"""Residual networks for 32 x 32 images, as most of the long-tailed literature trains them."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from spa_jax.errors import InputError
from spa_jax.models.residual import Convolution, Layers, ResNet, basic_block, stages_of
from spa_jax.options import option

# PyTorch's `kaiming_normal_` as it is called there: of the fan-in, and not truncated.
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


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
    One thing differs: see :func:`spa_jax.models.batch_norm.batch_norm` on running variances.

    Args:
      options: depth and width factor. ResNet-32 has 0.46 M parameters and D = 64; four times as
        wide it has 7.4 M and D = 256.
      dtype: as in :class:`spa_jax.models.residual.Layers`.
      axis_name: as in :class:`spa_jax.models.residual.Layers`.

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
    layers = Layers(_CONV_INIT, identity_shortcuts=True, dtype=dtype, axis_name=axis_name)
    return ResNet(Convolution(16 * factor, 3), stages, layers)

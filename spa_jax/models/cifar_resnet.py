"""Residual networks for 32 x 32 images, as most of the long-tailed literature trains them."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError

# PyTorch's `kaiming_normal_` as it is called there: of the fan-in, and not truncated.
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_CHANNELS = (16, 32, 64)


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut without parameters.

    Attributes:
      channels: output channels.
      stride: stride of the first convolution.
      axis_name: as in `CifarResNet`.
      dtype: as in `CifarResNet`.
    """

    channels: int
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _ _ channels"]:
        """Images `(B, H, W, K)` to `(B, ceil(H / stride), ceil(W / stride), channels)`."""
        norm = _batch_norm(train, self.axis_name, self.dtype)
        y = _convolution(self.channels, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = _convolution(self.channels, 1, self.dtype, "conv2")(y)
        y = norm(name="bn2")(y)
        return nn.relu(y + identity_shortcut(x, self.channels, self.stride).astype(y.dtype))


class CifarResNet(nn.Module):
    """ResNet-20, 32, 44, 56 ... for CIFAR: three stages of 16, 32 and 64 channels, option A.

    The numbers are those of the PyTorch networks in the long-tailed literature: symmetric padding,
    He-normal initialisation of the fan-in, batch normalisation with momentum 0.9 and epsilon 1e-5.
    One thing differs: a running variance here averages the biased variance of the batches, as Flax
    does, and PyTorch's the unbiased one, which is n / (n - 1) times as large (n values a channel).
    Layers carry PyTorch's names, `layer1.0.conv1` being `layer1_0/conv1`.

    Attributes:
      depth: 6 n + 2 for n blocks in each stage.
      width_factor: multiplies every width. 1 is the standard network (ResNet-32: 0.46 M
        parameters, D = 64); GLMC's and SpA's "ResNet-32" has 4 (7.4 M, D = 256).
      axis_name: mapped axis over which batch normalisation takes its statistics, under `jax.pmap`
        and `jax.shard_map` (with `check_vma=False`). None takes them over the batch that the
        module sees: the global batch under `jax.jit`, each device's own part under the other two.
      dtype: computation in float32 or bfloat16. Parameters and statistics are float32 either way.

    Raises:
      InputError: no network has this depth, or `width_factor` is less than 1.

    Example:
      >>> CifarResNet(depth=32, width_factor=4).dim
      256

    Reference:
      He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016,
      section 4.2.
    """

    depth: int = 32
    width_factor: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6 != 0:
            raise InputError(
                f"A CIFAR ResNet has depth 6 n + 2 (two layers a block, n blocks in each of three "
                f"stages), got depth={self.depth}; choose 20, 32, 44, 56 or 110."
            )
        if self.width_factor < 1:
            raise InputError(
                f"width_factor multiplies 16, 32 and 64 channels and is 1 or more, got "
                f"width_factor={self.width_factor}; 1 is the standard network."
            )
        super().__post_init__()

    @property
    def dim(self) -> int:
        """The feature width D."""
        return _CHANNELS[-1] * self.width_factor

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, which are >= 0."""
        x = _convolution(_CHANNELS[0] * self.width_factor, 1, self.dtype, "conv1")(images)
        x = nn.relu(_batch_norm(train, self.axis_name, self.dtype)(name="bn1")(x))
        for stage, channels in enumerate(_CHANNELS):
            for block in range((self.depth - 2) // 6):
                x = BasicBlock(
                    channels * self.width_factor,
                    stride=2 if stage > 0 and block == 0 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def _convolution(channels: int, stride: int, dtype: DTypeLike, name: str) -> nn.Conv:
    # "SAME" would pad an even image on one side only where the stride is 2.
    return nn.Conv(
        channels,
        (3, 3),
        (stride, stride),
        padding=((1, 1), (1, 1)),
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

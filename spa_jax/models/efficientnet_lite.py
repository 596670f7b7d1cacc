"""EfficientNet-Lite0: inverted residual blocks, made for small devices; its weights are public."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.models.residual import batch_norm
from spa_jax.options import NoOptions

# TensorFlow's, for which the published running statistics are made.
_MOMENTUM, _EPSILON = 0.99, 1e-3
_EXPANSION = 6
_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Each output of a depthwise convolution sees one channel.
_DEPTHWISE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Stage(NamedTuple):
    """Blocks of one width.

    Attributes:
      channels: of what each block gives.
      window: side of the depthwise convolutions.
      stride: of the first of them.
      blocks: how many.
    """

    channels: int
    window: int
    stride: int
    blocks: int


LITE0 = (
    Stage(16, 3, 1, 1),
    Stage(24, 3, 2, 2),
    Stage(40, 5, 2, 2),
    Stage(80, 3, 2, 3),
    Stage(112, 5, 1, 3),
    Stage(192, 5, 2, 4),
    Stage(320, 3, 1, 1),
)
"""The blocks of EfficientNet-Lite0; those of the first stage do not widen what they get."""


def depthwise_convolution(
    x: Float[Array, "B H W K"], kernel: Float[Array, "window window 1 K"], stride: int
) -> Float[Array, "B _ _ K"]:
    r"""A convolution of each channel by itself, with TensorFlow's "SAME" padding.

    .. math:: y_{p} = \sum_{ij} k_{ij} \odot x_{s p + (i, j) - m}

    It is written as that sum, since XLA's own is several times slower on a CPU.

    Args:
      x: `(B, H, W, K)` floating.
      kernel: `(window, window, 1, K)` of the same dtype.
      stride: 1 or more.

    Returns:
      `(B, ceil(H / stride), ceil(W / stride), K)`; an odd margin is larger below and on the right.

    Example:
      >>> x = jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1)
      >>> depthwise_convolution(x, jnp.ones((3, 3, 1, 1)), stride=2).tolist()
      [[[[10.0]]]]
    """
    window = kernel.shape[0]
    sides = [-(-side // stride) for side in x.shape[1:3]]
    margins = jax.lax.padtype_to_pads(x.shape[1:3], (window,) * 2, (stride,) * 2, "SAME")
    padded = jnp.pad(x, ((0, 0), *margins, (0, 0)))
    height, width = ((side - 1) * stride + 1 for side in sides)
    parts = (
        padded[:, i : i + height : stride, j : j + width : stride] * kernel[i, j][None, None]
        for i in range(window)
        for j in range(window)
    )
    return functools.reduce(jnp.add, parts)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, one of each channel by itself, and a 1x1 one that narrows.

    Attributes:
      channels: of what it gives.
      window: side of the depthwise convolution.
      stride: of the depthwise convolution.
      expansion: how much wider the middle is; 1: nothing widens.
      dtype: as in `EfficientNetLite`.
      axis_name: as in `EfficientNetLite`.
    """

    channels: int
    window: int
    stride: int
    expansion: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W K"], train: bool) -> Float[Array, "B _ _ channels"]:
        """Images `(B, H, W, K)` to `(B, ceil(H / stride), ceil(W / stride), channels)`."""
        norm = functools.partial(_norm, train, self.axis_name, self.dtype)
        dense = functools.partial(nn.Dense, use_bias=False, kernel_init=_FAN_OUT, dtype=self.dtype)
        y, width = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = nn.relu6(norm("expand_norm")(dense(width, name="expand")(y)))
        shape = (self.window, self.window, 1, width)
        kernel = self.param("depthwise", _DEPTHWISE, shape).astype(y.dtype)
        y = nn.relu6(norm("depthwise_norm")(depthwise_convolution(y, kernel, self.stride)))
        y = norm("project_norm")(dense(self.channels, name="project")(y))
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """A stem, stages of inverted residual blocks, a last 1x1 convolution and the average.

    Numbers are those of the published weights: padding as in TensorFlow, batch normalisation with
    epsilon 1e-3 and momentum 0.99, activations cut off at 6. Stochastic depth is left out.

    Attributes:
      stages: of blocks; `LITE0` has the published ones.
      dtype: computation in float32 or bfloat16. Parameters and statistics are float32 either way.
      axis_name: of :func:`spa_jax.models.residual.batch_norm`.
      stem: channels of the first convolution.
      dim: the feature width D.
      remat: whether the backward pass computes what is inside a block again.

    Example:
      >>> EfficientNetLite().dim
      1280

    Reference:
      Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks",
      ICML 2019; the Lite networks: Liu, "Higher accuracy on vision models with EfficientNet-Lite",
      TensorFlow blog, 2020.
    """

    stages: tuple[Stage, ...] = LITE0
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    stem: int = 32
    dim: int = 1280
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)` in [0, 6]."""
        norm = functools.partial(_norm, train, self.axis_name, self.dtype)
        settings = {"use_bias": False, "kernel_init": _FAN_OUT, "dtype": self.dtype}
        x = nn.Conv(self.stem, (3, 3), (2, 2), name="stem", **settings)(images)
        x = nn.relu6(norm("stem_norm")(x))
        make = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
        for number, stage in enumerate(self.stages):
            for block in range(stage.blocks):
                x = make(
                    stage.channels,
                    stage.window,
                    stage.stride if block == 0 else 1,
                    _EXPANSION if number > 0 else 1,
                    self.dtype,
                    self.axis_name,
                    name=f"stage{number}_block{block}",
                )(x, train)
        x = nn.relu6(norm("top_norm")(nn.Dense(self.dim, name="top", **settings)(x)))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


def _norm(train: bool, axis_name: str | None, dtype: DTypeLike, name: str) -> nn.BatchNorm:
    return batch_norm(
        train, axis_name, dtype=dtype, name=name, momentum=_MOMENTUM, epsilon=_EPSILON
    )


def make_efficientnet_lite0(
    options: NoOptions, dtype: DTypeLike = jnp.float32, axis_name: str | None = None
) -> EfficientNetLite:
    """The network `efficientnet_lite0`, for images of any size; it was trained on 224 x 224."""
    return EfficientNetLite(dtype=dtype, axis_name=axis_name)

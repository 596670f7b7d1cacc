r"""Layers in the form whose gradient is cheap where XLA compiles it for a CPU.

Values and gradients are those of Flax to rounding, and so are names and parameters; what differs is
what the compiled program computes twice, and how far it reads in memory. On other backends the
layers are Flax's own.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Half of what a core's cache holds: the rest is for the gradients by the outputs.
_PART_BYTES = 2**20
_MOST_PARTS = 8


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _convolved(
    convolve: Callable[[Array, Array], Array], parts: int, x: Array, kernel: Array
) -> Array:
    return convolve(x, kernel)


@_convolved.defjvp
def _convolved_jvp(
    convolve: Callable[[Array, Array], Array], parts: int, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (x, kernel), (of_x, of_kernel) = primals, tangents
    # Whose transposition, the gradient, is a sum over the parts.
    by_parts = [convolve(part, of_kernel) for part in jnp.split(x, parts)]
    return convolve(x, kernel), convolve(of_x, kernel) + jnp.concatenate(by_parts)


def convolution(
    x: Float[Array, "B *_ K"], kernel: Float[Array, "*_ I O"], *args: Any, **settings: Any
) -> Float[Array, "B *_ O"]:
    r"""`jax.lax.conv_general_dilated`, whose gradient by the kernel a CPU takes part by part.

    .. math:: \frac{\partial L}{\partial k} = \sum_p \frac{\partial}{\partial k}
        \langle g_p, x_p * k \rangle

    for the parts p of the batch, at most eight, x the inputs and g the gradient by the outputs. A
    part fits into the cache, where XLA transposes it and reads it once for each place of the
    window; the whole batch comes from memory each time. Other gradients are as they were, and so is
    what is not float32, has groups or a window of one pixel, or is cut over several devices.

    Args:
      x: `(B, ..., K)`, the batch first.
      kernel: `(..., I, O)`.
      args: further arguments of `jax.lax.conv_general_dilated`, by position.
      settings: others, by name.

    Example:
      >>> numbers = ("NHWC", "HWIO", "NHWC")
      >>> x, kernel = jnp.ones((2, 3, 3, 1)), jnp.ones((3, 3, 1, 4))
      >>> convolution(x, kernel, (1, 1), "VALID", dimension_numbers=numbers).shape
      (2, 1, 1, 4)
    """

    def convolve(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, *args, **settings)

    whole = math.prod(kernel.shape[:-2]) == 1 or settings.get("feature_group_count", 1) > 1
    if whole or x.dtype != jnp.float32 or not _on_cpu() or jax.device_count() > 1:
        return convolve(x, kernel)
    wanted = 2 ** math.ceil(math.log2(max(1, x.nbytes / _PART_BYTES)))
    parts = math.gcd(len(x), min(wanted, _MOST_PARTS))
    return _convolved(convolve, parts, x, kernel) if parts > 1 else convolve(x, kernel)


@jax.custom_jvp
def _kept_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.optimization_barrier(jnp.maximum(x, 0))


@_kept_relu.defjvp
def _kept_relu_jvp(primals: Any, tangents: Any) -> Any:
    y, (slope,) = _kept_relu(*primals), tangents
    return y, jnp.where(y > 0, slope, jnp.zeros_like(slope))


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), whose result a CPU keeps for the backward pass.

    Else XLA computes a block's result anew wherever the gradient reads it, from that of the block
    before it, which it computes anew as well: where shortcuts make a chain of blocks, the work
    grows with its square. The compiler of jax 0.10 does so all the same.

    Args:
      x: floating, of any shape.

    Example:
      >>> relu(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    return _kept_relu(x) if _on_cpu() else nn.relu(x)


class BatchNorm(nn.BatchNorm):
    r"""`flax.linen.BatchNorm`, whose gradient a CPU takes from two sums over the batch.

    .. math:: y = (x - \bar m) a + b - (m - \bar m) a, \quad a = \gamma / \sqrt{v + \epsilon}

    with scale :math:`\gamma` and offset b, the mean m and the variance v of the batch, and
    :math:`\bar m`, which is m without its gradient. The last term is zero, and its gradient that
    of the mean: the sum of y's gradients, which b needs too, times a. Flax's form sums their
    product with a as well, which XLA writes to memory first.

    Example:
      >>> x = jnp.array([[1.0], [3.0]])
      >>> norm = BatchNorm(use_running_average=False)
      >>> norm.init_with_output(jax.random.key(0), x)[0].round(3).tolist()
      [[-1.0], [1.0]]
    """

    def _is_plain(self) -> bool:
        """Whether the form below has all that is asked for; else Flax's is taken."""
        whole = self.axis == -1 and self.axis_index_groups is None
        return whole and all(
            (self.use_scale, self.use_bias, self.use_fast_variance, self.force_float32_reductions)
        )

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*_ K"],
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
    ) -> Float[Array, "*_ K"]:
        """As :class:`flax.linen.BatchNorm`, whose statistics of a batch are over all axes but one.

        Args:
          x: `(..., K)`, K channels.
          use_running_average: whether to normalise by running statistics, if the module does not
            say so.
          mask: of the values that count.
        """
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        if running or mask is not None or not self._is_plain():
            return super().__call__(x, use_running_average, mask=mask)
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        offset = self.param("bias", self.bias_init, shape, self.param_dtype)
        wide = x.astype(jnp.promote_types(self.dtype or x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        moments = jnp.stack([jnp.mean(wide, axes), jnp.mean(jnp.square(wide), axes)])
        if self.axis_name is not None and not self.is_initializing():
            moments = jax.lax.pmean(moments, self.axis_name)
        mean, var = moments[0], jnp.maximum(0.0, moments[1] - jnp.square(moments[0]))
        if not self.is_initializing():
            old = self.momentum
            running_mean.value = old * running_mean.value + (1 - old) * mean
            running_var.value = old * running_var.value + (1 - old) * var
        fixed, factor = jax.lax.stop_gradient(mean), jax.lax.rsqrt(var + self.epsilon) * scale
        of_channels = (fixed, factor, offset - (mean - fixed) * factor)
        fixed, factor, offset = (jnp.expand_dims(value, axes) for value in of_channels)
        y = (x - fixed) * factor + offset
        return y.astype(self.dtype or jnp.result_type(x, scale, offset))


def norm_class(train: bool) -> type[nn.BatchNorm]:
    """`BatchNorm` where it is trained on a CPU, and Flax's own elsewhere.

    Args:
      train: whether batches are normalised by their own statistics.

    Example:
      >>> norm_class(train=False) is nn.BatchNorm
      True
    """
    return BatchNorm if train and _on_cpu() else nn.BatchNorm

"""Networks on features that another network gave: one that hands them on, and an adapter."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.options import NoOptions, option


class Identity(nn.Module):
    """Hands features on, so that a linear head is trained on them: a linear probe."""

    dim = None
    takes_features = True

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> Float[Array, "B D"]:
        """Features `(B, D)` to themselves."""
        return features


def make_identity(options: NoOptions, dtype: DTypeLike = jnp.float32) -> Identity:
    """The network `identity`.

    Raises:
      InputError: another dtype than float32, as nothing is computed.
    """
    if jnp.dtype(dtype) != jnp.float32:
        raise InputError(
            f"config.model.dtype={jnp.dtype(dtype).name} does nothing in the network identity, "
            "which computes nothing: leave it at float32."
        )
    return Identity()


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """Options of `adapter`."""

    width: int = option(256, "of the layer between the features and what is added to them", low=1)


class Adapter(nn.Module):
    r"""A perceptron of two layers, whose output is added to the features.

    .. math:: h = f + W_2 \max(0, W_1 f + b_1) + b_2

    :math:`W_2` starts at zero, so that the first step is that of a linear probe.

    Attributes:
      options: the width of the layer between.
      dtype: computation in float32 or bfloat16. Parameters are float32 either way.

    Example:
      >>> adapter, features = Adapter(AdapterOptions(width=4)), jnp.ones((2, 3))
      >>> adapter.init_with_output(jax.random.key(0), features, train=True)[0].shape
      (2, 3)

    Reference:
      Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019.
    """

    options: AdapterOptions
    dtype: DTypeLike = jnp.float32
    dim = None
    takes_features = True

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], train: bool) -> Float[Array, "B D"]:
        """Features `(B, D)` to float32 features of the same width."""
        x = nn.relu(nn.Dense(self.options.width, dtype=self.dtype, name="down")(features))
        zeros = nn.initializers.zeros
        x = nn.Dense(features.shape[-1], dtype=self.dtype, kernel_init=zeros, name="up")(x)
        return features + x.astype(jnp.float32)

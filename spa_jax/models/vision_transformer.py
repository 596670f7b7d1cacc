"""Vision transformers: patches as tokens, attention between them, a class token as the feature."""

import dataclasses
from types import MappingProxyType

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from spa_jax.errors import InputError
from spa_jax.options import option

_EPSILON = 1e-6
_MLP_RATIO = 4


@dataclasses.dataclass(frozen=True)
class VitOptions:
    """Options of `vit`, which tell one vision transformer from another."""

    patch_size: int = option(1, "side of a patch in pixels", low=1)
    width: int = option(32, "of the tokens, the feature width D", low=1)
    layers: int = option(1, "of attention, each followed by 4 D hidden units", low=1)
    heads: int = option(4, "of attention; they divide D", low=1)


SIZES = MappingProxyType(
    {"vit_s16": VitOptions(16, 384, 12, 6), "vit_b16": VitOptions(16, 768, 12, 12)}
)
"""The networks for 224 x 224 images by name."""


class EncoderLayer(nn.Module):
    """Attention and a perceptron, each on normalised tokens and added to what came in.

    Attributes:
      heads: of attention.
      dtype: as in `VisionTransformer`.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Tokens `(B, N, D)` to tokens `(B, N, D)`."""
        width = x.shape[-1]
        y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="ln_1")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, name="self_attention"
        )
        x += attention(y)
        y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="ln_2")(x)
        y = nn.Dense(_MLP_RATIO * width, dtype=self.dtype, name="mlp_0")(y)
        y = nn.gelu(y, approximate=False)
        return x + nn.Dense(width, dtype=self.dtype, name="mlp_3")(y)


class VisionTransformer(nn.Module):
    """A vision transformer, "pre-norm", with learned positions and a class token.

    Numbers and layers are torchvision's, `encoder.layers.encoder_layer_0` being `layer0`; dropout
    is 0. There is no batch normalisation, so that a device's part of a batch gives what the whole
    batch gives. The positions belong to one image size, that of `init`.

    Attributes:
      size: patch size, width, layers and heads; `SIZES` has the published ones.
      dtype: computation in float32 or bfloat16. Parameters are float32 either way.
      remat: whether the backward pass computes what is inside a layer of attention again.

    Raises:
      InputError: the heads do not divide the width; when it is called, the patches do not tile the
        image.

    Example:
      >>> VisionTransformer(SIZES["vit_s16"]).dim
      384

    Reference:
      Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at
      scale", ICLR 2021; the small size: Touvron et al., "Training data-efficient image transformers
      and distillation through attention", ICML 2021.
    """

    size: VitOptions
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        if self.size.width % self.size.heads:
            raise InputError(
                f"Attention heads share the width of the tokens evenly, got {self.size.heads} "
                f"heads for a width of {self.size.width}: choose a number of heads "
                f"(config.model.vit.heads) that divides it."
            )
        super().__post_init__()

    @property
    def dim(self) -> int:
        """The feature width D."""
        return self.size.width

    @nn.compact
    def __call__(self, images: Float[Array, "B _ _ _"], train: bool) -> Float[Array, "B _"]:
        """Images `(B, H, W, K)` to float32 features `(B, D)`, of either sign."""
        patch, width = self.size.patch_size, self.size.width
        if images.shape[1] % patch or images.shape[2] % patch:
            raise InputError(
                f"Patches of {patch} x {patch} pixels do not tile images of {images.shape[1]} x "
                f"{images.shape[2]}: choose a patch size that divides both."
            )
        x = nn.Conv(
            width, (patch, patch), (patch, patch), "VALID", dtype=self.dtype, name="conv_proj"
        )(images)
        x = x.reshape(len(x), -1, width)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, width))
        x = jnp.concatenate([jnp.tile(token.astype(x.dtype), (len(x), 1, 1)), x], axis=1)
        positions = self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], width))
        x += positions.astype(x.dtype)
        make = nn.remat(EncoderLayer) if self.remat else EncoderLayer
        for layer in range(self.size.layers):
            x = make(self.size.heads, self.dtype, name=f"layer{layer}")(x)
        return nn.LayerNorm(_EPSILON, name="ln")(x[:, 0].astype(jnp.float32))

"""A backbone and a head, which returns the features next to the logits."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Classifier(nn.Module):
    """Features and logits of images; the head's kernel is `head/kernel`, `(D, C)`.

    Attributes:
      backbone: images `(B, H, W, channels)` -> features `(B, D)`; its `dim` is D.
      head: features `(B, D)` -> logits `(B, C)`.
    """

    backbone: Any
    head: Any

    def __call__(
        self, images: Float[Array, "B _ _ _"], train: bool
    ) -> tuple[Float[Array, "B D"], Float[Array, "B C"]]:
        """Images `(B, H, W, channels)` to features `(B, D)` and logits `(B, C)`."""
        features = self.backbone(images, train)
        return features, self.head(features, train)

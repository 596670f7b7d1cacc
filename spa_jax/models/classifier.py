"""A backbone and a linear head, which returns the features next to the logits."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Classifier(nn.Module):
    """Features and logits of images; the head's kernel is `head/kernel`, `(D, C)`.

    Attributes:
      backbone: images `(B, H, W, channels)` -> features `(B, D)`; its `dim` is D.
      num_classes: C.
    """

    backbone: Any
    num_classes: int

    @nn.compact
    def __call__(
        self, images: Float[Array, "B _ _ _"], train: bool
    ) -> tuple[Float[Array, "B D"], Float[Array, "B num_classes"]]:
        """Images `(B, H, W, channels)` to features `(B, D)` and logits `(B, C)`."""
        features = self.backbone(images, train)
        return features, nn.Dense(self.num_classes, name="head")(features)

"""A backbone and a head, which returns the features next to what the head gives."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Classifier(nn.Module):
    """Features and head outputs of images; a linear head's kernel is `head/kernel`, `(D, C)`.

    Attributes:
      backbone: images `(B, H, W, channels)`, or features in their place -> features `(B, D)`; its
        `dim` is D, or None where it is as wide as what it is given.
      head: features `(B, D)` -> logits `(B, C)`, or a tuple that holds them; if it has `features`
        of its own, the class weights are compared with those.
      frozen_backbone: whether the backbone is in evaluation mode in training too, so that its batch
        statistics stay as they are.
      share: what is done to the features before the head gets them, on a mesh over which its class
        weights are cut; None: nothing.
    """

    backbone: Any
    head: Any
    frozen_backbone: bool = False
    share: Callable[[Array], Array] | None = None

    def __call__(
        self, images: Float[Array, "B ..."], train: bool
    ) -> tuple[Float[Array, "B D"], Any]:
        """What the backbone takes to features `(B, D)` and the head's outputs.

        The features are those that the class weights are compared with.
        """
        features = self.backbone(images, train and not self.frozen_backbone)
        if self.share is not None:
            features = self.share(features)
        outputs = self.head(features, train)
        return getattr(outputs, "features", features), outputs

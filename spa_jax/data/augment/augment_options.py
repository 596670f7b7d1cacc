"""What can be set of the augmentation of training images."""

import dataclasses

from spa_jax.data.augment.normalization import NORMALIZATIONS, OF_DATA_SET
from spa_jax.errors import InputError
from spa_jax.options import check_options, defaults_of, option

ENCODED_FIELDS = ("image_size", "resize", "min_area")
"""Options that matter for images that are decoded from files of any size."""

STREAM_FIELDS = (*ENCODED_FIELDS, "color_jitter", "grey", "blur")
"""Options of what happens on the host, to images that come in a stream."""


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """What happens to a training image; the defaults leave one that is on the device as it is.

    On the host, in streams alone: a random-resized crop, colour jitter, grey, blur; GLMC's of
    ImageNet-LT are `AugmentOptions(color_jitter=0.4, grey=0.2, blur=0.5)`. On the device: crop,
    flip, policy, cutout, then mixing with another image.

    Attributes:
      crop_padding: pixels of padding for the random crop, 0 for none.
      flip: whether to mirror half of the images.
      policy: "none", "randaugment" or "autoaugment_cifar".
      randaugment_layers: operations one after the other.
      randaugment_magnitude: from 0 to 30.
      cutout: side of the square that is blanked out, 0 for none.
      mix: "none", "mixup" or "cutmix".
      mix_alpha: the mixing coefficient is drawn from Beta(alpha, alpha).
      image_size: pixels on each side of an image that is decoded for a stream.
      resize: for testing, the shorter side is resized to this before the centre is cropped.
      min_area: smallest share of the image's area that a training crop has.
      color_jitter: brightness, contrast and saturation change by factors in [1 - x, 1 + x].
      grey: probability that an image loses its colours.
      blur: probability that an image is blurred.
      normalization: "dataset", by mean and deviation of the training set's pixels (of ImageNet's
        where images are decoded), or one of `NORMALIZATIONS`, for a network that was trained so.

    Raises:
      InputError: a value out of range.
    """

    crop_padding: int = option(0, "pixels of zeros around the image before a random crop", low=0)
    flip: bool = option(False, "mirror half of the images")
    policy: str = option(
        "none",
        "operations that are drawn at random",
        choices=("none", "randaugment", "autoaugment_cifar"),
    )
    randaugment_layers: int = option(2, "operations one after the other", low=1)
    randaugment_magnitude: int = option(
        9, "three times the paper's, which goes from 0 to 10", low=0, high=30
    )
    cutout: int = option(0, "side of the square that is blanked; 0: none", low=0)
    mix: str = option("none", "of each image with another one", choices=("none", "mixup", "cutmix"))
    mix_alpha: float = option(1.0, "the mixing coefficient is Beta(alpha, alpha)", low=1e-3)
    image_size: int = option(224, "pixels on each side of a decoded image", low=1)
    resize: int = option(256, "shorter side before the central crop of a test image", low=1)
    min_area: float = option(
        0.08, "smallest share of an image that a random-resized crop takes", low=1e-3, high=1
    )
    color_jitter: float = option(0.0, "brightness, contrast and saturation", low=0)
    grey: float = option(0.0, "probability", low=0, high=1)
    blur: float = option(0.0, "probability", low=0, high=1)
    normalization: str = option(
        OF_DATA_SET,
        "of pixel values: by the training set's, or as a network was published",
        choices=(OF_DATA_SET, *NORMALIZATIONS),
    )

    def __post_init__(self) -> None:
        check_options(self, "config.augment")
        if self.resize < self.image_size:
            raise InputError(
                f"config.augment.resize must be image_size or more, got {self.resize} for "
                f"config.augment.image_size={self.image_size}."
            )


PIXEL_FIELDS = tuple(
    field for field in defaults_of(AugmentOptions) if field not in ("mix", "mix_alpha")
)
"""Options of what happens to pixels, which features have none of."""

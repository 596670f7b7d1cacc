"""What happens to one training image on the device, in order: crop, flip, policy, cutout."""

import dataclasses

import jax
from jaxtyping import Array, Key, Num

from spa_jax.data.augment.policies import autoaugment_cifar, check_randaugment, randaugment
from spa_jax.data.augment.spatial import cutout, random_crop, random_flip
from spa_jax.errors import InputError

POLICIES = ("none", "randaugment", "autoaugment_cifar")

# Not 0 and 1: folding these in gives the two keys of a split, which crop and flip have.
_POLICY, _CUTOUT = 2, 3


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """What `augment_one` does to an image; the defaults leave it as it is.

    Attributes:
      crop_padding: pixels of padding for the random crop, 0 for none.
      flip: whether to mirror half of the images.
      policy: "none", "randaugment" or "autoaugment_cifar".
      randaugment_layers: operations one after the other.
      randaugment_magnitude: from 0 to 30.
      cutout: side of the square that is blanked out, 0 for none.

    Raises:
      InputError: an unknown policy, or a number out of range.
    """

    crop_padding: int = 0
    flip: bool = False
    policy: str = "none"
    randaugment_layers: int = 2
    randaugment_magnitude: int = 9
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(
                f"There is no augmentation policy {self.policy!r}; set config.augment.policy to "
                f"one of {', '.join(POLICIES)}."
            )
        for name, pixels in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if pixels < 0:
                raise InputError(
                    f"config.augment.{name} must be 0 or more pixels, got {pixels}; 0 switches it "
                    "off."
                )
        if self.policy == "randaugment":
            check_randaugment(self.randaugment_layers, self.randaugment_magnitude)


def augment_one(
    key: Key[Array, ""], image: Num[Array, "H W K"], options: AugmentOptions
) -> Num[Array, "H W K"]:
    """Augments one image: crop, flip, policy, cutout, those that the options switch on.

    What is switched on draws the same whatever else is.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, uint8 if there is a policy.
      options: what to do.

    Returns:
      `(H, W, channels)` of the same dtype.

    Example:
      >>> options = AugmentOptions(crop_padding=4, flip=True, cutout=16)
      >>> augment_one(jax.random.key(0), jnp.ones((32, 32, 3), jnp.uint8), options).shape
      (32, 32, 3)
    """
    crop_key, flip_key = jax.random.split(key)
    image = random_crop(crop_key, image, options.crop_padding)
    if options.flip:
        image = random_flip(flip_key, image)
    policy_key = jax.random.fold_in(key, _POLICY)
    if options.policy == "randaugment":
        layers, magnitude = options.randaugment_layers, options.randaugment_magnitude
        image = randaugment(policy_key, image, layers, magnitude)
    elif options.policy == "autoaugment_cifar":
        image = autoaugment_cifar(policy_key, image)
    return cutout(jax.random.fold_in(key, _CUTOUT), image, options.cutout)

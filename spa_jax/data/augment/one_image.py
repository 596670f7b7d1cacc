"""What happens to one training image on the device, in order: crop, flip, policy, cutout."""

import jax
from jaxtyping import Array, Key, Num

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.policies import autoaugment_cifar, randaugment
from spa_jax.data.augment.spatial import cutout, random_crop, random_flip

# Not 0 and 1: folding these in gives the two keys of a split, which crop and flip have.
_POLICY, _CUTOUT = 2, 3


def augment_one(
    key: Key[Array, ""], image: Num[Array, "H W K"], options: AugmentOptions
) -> Num[Array, "H W K"]:
    """Augments one image: crop, flip, policy, cutout, those that the options switch on.

    What is switched on draws the same whatever else is.

    Args:
      key: the example's key.
      image: `(H, W, channels)`, uint8 if there is a policy.
      options: what to do; those of streams and of mixing are not used.

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

"""RandAugment and AutoAugment's policy for CIFAR-10, as JAX functions of one example's key."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

from spa_jax.data.augment import affine, photometric
from spa_jax.errors import InputError

MAX_MAGNITUDE = 30

# From the paper's appendix: (operation, probability, magnitude from 0 to 9, or 0 if it has none).
AUTOAUGMENT_CIFAR = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
_MAX_POLICY_MAGNITUDE = 9

_MAX_SHIFT = 150 / 331  # of the side: 150 pixels of the 331 that the policies were found on


def _none(share: float, height: int, width: int) -> float:
    return 0.0


def _factor(share: float, height: int, width: int) -> float:
    return 1 + 0.9 * share


# What an operation is given, by the signed share of its largest magnitude and the image's size: a
# number, or a matrix. In RandAugment's order; what it does not use is last.
_GIVEN: dict[str, Callable[[float, int, int], float | np.ndarray]] = {
    "identity": _none,
    "autocontrast": _none,
    "equalize": _none,
    "rotate": lambda share, height, width: affine.rotate_matrix(30.0 * share, height, width),
    "solarize": lambda share, *_: 255 * (1 - abs(share)),
    "color": _factor,
    "posterize": lambda share, *_: 8 - round(4 * abs(share)),
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
    "shear_x": lambda share, *_: affine.fixed_point(1, 0.3 * share, 0, 0, 1, 0),
    "shear_y": lambda share, *_: affine.fixed_point(1, 0, 0, 0.3 * share, 1, 0),
    "translate_x": lambda share, height, width: affine.fixed_point(
        1, 0, int(_MAX_SHIFT * width * share), 0, 1, 0
    ),
    "translate_y": lambda share, height, width: affine.fixed_point(
        1, 0, 0, 0, 1, int(_MAX_SHIFT * height * share)
    ),
    "invert": _none,
}
RANDAUGMENT_OPERATIONS = tuple(_GIVEN)[:-1]
# Of an image and a number. All others differ in matrices alone: a batch under vmap, which pays for
# every branch, warps once.
FUNCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: photometric.autocontrast(image),
    "equalize": lambda image, _: photometric.equalize(image),
    "invert": lambda image, _: photometric.invert(image),
    "posterize": lambda image, bits: photometric.posterize(image, bits.astype(jnp.int32)),
    "solarize": photometric.solarize,
    "color": photometric.color,
    "contrast": photometric.contrast,
    "brightness": photometric.brightness,
    "sharpness": photometric.sharpness,
}
_IDENTITY = 0


class Operation(NamedTuple):
    """An operation in numbers, which are computed in float64 while the program is traced.

    Attributes:
      branch: int32, which of the functions that `apply_operation` chooses from.
      amount: float32, the factor of a blend, the bits of posterize or the threshold of solarize.
      matrix: `(6,)` int32, of a shear, translation or rotation.
    """

    branch: Any
    amount: Any
    matrix: Any


def randaugment(
    key: Key[Array, ""],
    image: UInt8[Array, "H W K"],
    num_layers: int = 2,
    magnitude: int = 9,
    fill: int = 128,
) -> UInt8[Array, "H W K"]:
    """Applies operations that are drawn uniformly out of 14, all of one magnitude.

    Shears, translations, rotations and the four enhancements go either way with probability one
    half. At magnitude m of 30: shears by 0.3 m/30, translations by 150/331 m/30 of the side
    (rounded towards 0), rotations by m degrees, colour, contrast, brightness and sharpness by the
    factor 1 +- 0.9 m/30, posterize to 8 - round(4 m/30) bits, solarize above 255 (1 - m/30).

    Args:
      key: the example's key.
      image: `(H, W, 3)` or `(H, W, 1)` uint8 with values from 0 to 255.
      num_layers: operations one after the other, 1 or more.
      magnitude: from 0 to 30, three times the paper's scale from 0 to 10.
      fill: value of the pixels that come from outside.

    Returns:
      An image of the same shape.

    Raises:
      InputError: an image that is not uint8 or has other channels, or a number out of range.

    Example:
      >>> randaugment(jax.random.key(0), jnp.zeros((8, 8, 3), jnp.uint8)).shape
      (8, 8, 3)

    Reference:
      Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
      Space", NeurIPS 2020.
    """
    photometric.check_image(image)
    if num_layers < 1 or not 0 <= magnitude <= MAX_MAGNITUDE:
        raise InputError(
            f"RandAugment needs 1 layer or more and a magnitude from 0 to {MAX_MAGNITUDE} (three "
            f"times the paper's, from 0 to 10), got {num_layers} and {magnitude}; to switch it "
            "off, set config.augment.policy to none."
        )
    strength = magnitude / MAX_MAGNITUDE
    choices = _stack(
        _both_ways(name, strength, *image.shape[:2]) for name in RANDAUGMENT_OPERATIONS
    )
    for layer_key in jax.random.split(key, num_layers):
        name_key, way_key = jax.random.split(layer_key)
        which = jax.random.randint(name_key, (), 0, len(RANDAUGMENT_OPERATIONS))
        way = jax.random.randint(way_key, (), 0, 2)
        image = apply_operation(_at(choices, which, way), image, fill)
    return image


def autoaugment_cifar(
    key: Key[Array, ""], image: UInt8[Array, "H W K"], fill: int = 128
) -> UInt8[Array, "H W K"]:
    """Applies one of the 25 sub-policies that AutoAugment found for CIFAR-10.

    Both operations of the sub-policy are applied, each with its probability. Magnitudes are as in
    `randaugment`, m of 9 in place of m of 30.

    Args:
      key: the example's key.
      image: `(H, W, 3)` or `(H, W, 1)` uint8 with values from 0 to 255.
      fill: value of the pixels that come from outside.

    Returns:
      An image of the same shape.

    Raises:
      InputError: an image that is not uint8 or has other channels.

    Example:
      >>> autoaugment_cifar(jax.random.key(0), jnp.zeros((8, 8, 3), jnp.uint8)).shape
      (8, 8, 3)

    Reference:
      Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", CVPR 2019.
    """
    photometric.check_image(image)
    size = image.shape[:2]
    choices = _stack(
        _stack(_both_ways(name, m / _MAX_POLICY_MAGNITUDE, *size) for name, _, m in row)
        for row in AUTOAUGMENT_CIFAR
    )
    probabilities = np.array([[p for _, p, _ in row] for row in AUTOAUGMENT_CIFAR], np.float32)
    row_key, *step_keys = jax.random.split(key, 3)
    row = jax.random.randint(row_key, (), 0, len(AUTOAUGMENT_CIFAR))
    for step, step_key in enumerate(step_keys):
        apply_key, way_key = jax.random.split(step_key)
        applies = jax.random.bernoulli(apply_key, jnp.asarray(probabilities)[row, step])
        way = jax.random.randint(way_key, (), 0, 2)
        chosen = _at(choices, row, step, way)
        chosen = chosen._replace(branch=jnp.where(applies, chosen.branch, _IDENTITY))
        image = apply_operation(chosen, image, fill)
    return image


def make_operation(name: str, strength: float, way: int, height: int, width: int) -> Operation:
    """The numbers of an operation, for `apply_operation`.

    Args:
      name: one of `RANDAUGMENT_OPERATIONS`, or "invert".
      strength: share of the largest magnitude, from 0 to 1.
      way: -1 or 1, for the operations that go either way.
      height: of the images.
      width: of the images.

    Returns:
      The operation, as NumPy arrays.

    Raises:
      InputError: no operation of this name.

    Example:
      >>> make_operation("brightness", 1.0, -1, 32, 32).amount.round(3)
      np.float32(0.1)
    """
    if name not in _GIVEN:
        raise InputError(f"There is no operation {name!r}; there are {', '.join(_GIVEN)}.")
    given = _GIVEN[name](way * strength, height, width)
    amount, matrix = (given, np.zeros(6, np.int32)) if name in FUNCTIONS else (0.0, given)
    branch = [*FUNCTIONS, name].index(name)
    return Operation(np.int32(branch), np.float32(amount), matrix)


def apply_operation(
    operation: Operation, image: UInt8[Array, "H W K"], fill: int = 128
) -> UInt8[Array, "H W K"]:
    """Applies an operation that may be traced, as PIL would.

    Args:
      operation: of `make_operation` for this image size.
      image: `(H, W, 3)` or `(H, W, 1)` uint8.
      fill: value of the pixels that come from outside.

    Returns:
      An image of the same shape.

    Example:
      >>> apply_operation(make_operation("invert", 0.0, 1, 1, 1), jnp.zeros((1, 1, 1), jnp.uint8))
      Array([[[255]]], dtype=uint8)
    """
    branches = (*FUNCTIONS.values(), lambda image, _: affine.warp(image, operation.matrix, fill))
    return jax.lax.switch(operation.branch, branches, image, jnp.asarray(operation.amount))


def _both_ways(name: str, strength: float, height: int, width: int) -> Operation:
    return _stack([make_operation(name, strength, way, height, width) for way in (-1, 1)])


def _stack(operations: Iterable[Operation]) -> Operation:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *operations)


def _at(operations: Operation, *index: Any) -> Operation:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], operations)

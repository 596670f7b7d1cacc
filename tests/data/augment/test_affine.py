"""Shears, translations and rotations against PIL itself, pixel for pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spa_jax.data.augment import affine

FILL = 9
# Output (x, y) -> input (a x + b y + c, d x + e y + f), from the operations' definitions.
PIL_MATRICES = {
    "shear_x": lambda amount: (1, amount, 0, 0, 1, 0),
    "shear_y": lambda amount: (1, 0, 0, amount, 1, 0),
    "translate_x": lambda amount: (1, 0, amount, 0, 1, 0),
    "translate_y": lambda amount: (1, 0, 0, 0, 1, amount),
}
SHEARS = [*np.linspace(-1, 1, 41), 0.123, -2.7]
SHIFTS = [*range(-40, 41, 3), -1, 0, 1]
ANGLES = [*range(-30, 31), *range(-720, 721, 45), 0.1, 6.667, 123.4, 359.9]
AMOUNTS = {
    "shear_x": SHEARS,
    "shear_y": SHEARS,
    "translate_x": SHIFTS,
    "translate_y": SHIFTS,
    "rotate": ANGLES,
}


def numbered_image(height, width):
    """No two pixels alike, none of the fill value."""
    numbers = np.arange(height * width).reshape(height, width)
    image = np.stack([numbers % 251, numbers // 251, np.full_like(numbers, 200)], axis=-1)
    return image.astype(np.uint8)


def by_pil(name, image, amount):
    pil = Image.fromarray(image)
    if name == "rotate":
        return np.asarray(pil.rotate(amount, fillcolor=(FILL,) * 3))
    matrix = PIL_MATRICES[name](amount)
    nearest = Image.Resampling.NEAREST
    return np.asarray(
        pil.transform(pil.size, Image.Transform.AFFINE, matrix, nearest, fillcolor=(FILL,) * 3)
    )


@functools.cache
def warped():
    return jax.jit(jax.vmap(affine.warp, in_axes=(None, 0, None)))


def matrix_of(name, amount, size):
    if name == "rotate":
        return affine.rotate_matrix(amount, *size)
    return affine.fixed_point(*PIL_MATRICES[name](amount))


@pytest.mark.parametrize("size", [(32, 32), (12, 31), (1, 1)])
@pytest.mark.parametrize("name", AMOUNTS)
def test_a_known_amount_gives_pils_pixels(name, size):
    image, amounts = numbered_image(*size), [float(amount) for amount in AMOUNTS[name]]
    matrices = np.stack([matrix_of(name, amount, size) for amount in amounts])
    found = np.asarray(warped()(jnp.asarray(image), jnp.asarray(matrices), FILL))
    expected = np.stack([by_pil(name, image, amount) for amount in amounts])
    np.testing.assert_array_equal(found, expected, strict=True)


def turn(image, degrees, fill=FILL):
    return affine.warp(image, affine.rotate_matrix(degrees, *image.shape[:2]), fill)


@settings(max_examples=60, deadline=None)
@given(degrees=st.floats(-720, 720))
def test_any_angle_gives_pils_pixels(degrees):
    image = numbered_image(32, 32)
    found = np.asarray(turn(jnp.asarray(image), degrees))
    np.testing.assert_array_equal(found, by_pil("rotate", image, degrees))


def test_four_quarter_turns_are_the_image():
    image = jnp.asarray(numbered_image(7, 7))
    once = turn(image, 90.0)
    np.testing.assert_array_equal(once, np.rot90(image))
    np.testing.assert_array_equal(turn(turn(once, 180.0), 90.0), image)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32])
def test_type_and_channels_are_kept(dtype):
    image = jnp.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    one_to_the_left = affine.fixed_point(1, 0, 1, 0, 1, 0)
    moved = jax.jit(lambda image: affine.warp(image, one_to_the_left, fill=7))(image)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved[:, :2], image[:, 1:])
    np.testing.assert_array_equal(moved[:, 2], np.full((2, 5), 7))


def test_matrices_and_fills_are_vmapped():
    image = jnp.asarray(numbered_image(6, 5))
    matrices = np.stack([affine.rotate_matrix(angle, 6, 5) for angle in (10.0, -25.0, 80.0)])
    fills = jnp.array([1, 2, 3], jnp.uint8)
    together = jax.jit(jax.vmap(affine.warp, in_axes=(None, 0, 0)))(image, matrices, fills)
    for one, matrix, fill in zip(together, matrices, fills, strict=True):
        np.testing.assert_array_equal(one, affine.warp(image, matrix, fill))

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
FUNCTIONS = {
    "shear_x": affine.shear_x,
    "shear_y": affine.shear_y,
    "translate_x": affine.translate_x,
    "translate_y": affine.translate_y,
    "rotate": affine.rotate,
}
# Output (x, y) -> input (a x + b y + c, d x + e y + f), from the operations' definitions.
PIL_MATRICES = {
    "shear_x": lambda amount: (1, amount, 0, 0, 1, 0),
    "shear_y": lambda amount: (1, 0, 0, amount, 1, 0),
    "translate_x": lambda amount: (1, 0, amount, 0, 1, 0),
    "translate_y": lambda amount: (1, 0, 0, 0, 1, amount),
}
SHEARS = [*np.linspace(-1, 1, 41), 0.123, -2.7]
SHIFTS = [*range(-40, 41, 3), -1, 0, 1, 0.5, -0.5, 1.5, 14.501, -3.49, 1e6, -1e6]
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
def traced(name):
    """An operation as a function of image and amount."""
    return jax.jit(lambda image, amount: FUNCTIONS[name](image, amount, FILL))


@functools.cache
def warped():
    return jax.jit(jax.vmap(affine.warp, in_axes=(None, 0, None)))


def matrix_of(name, amount, size):
    return {
        "shear_x": lambda: affine.shear_x_matrix(amount),
        "shear_y": lambda: affine.shear_y_matrix(amount),
        "translate_x": lambda: affine.translate_matrix(amount, 0),
        "translate_y": lambda: affine.translate_matrix(0, amount),
        "rotate": lambda: affine.rotate_matrix(amount, *size),
    }[name]()


@pytest.mark.parametrize("size", [(32, 32), (12, 31), (1, 1)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_known_amount_gives_pils_pixels(name, size):
    image, amounts = numbered_image(*size), [float(amount) for amount in AMOUNTS[name]]
    matrices = np.stack([matrix_of(name, amount, size) for amount in amounts])
    found = np.asarray(warped()(jnp.asarray(image), jnp.asarray(matrices), FILL))
    expected = np.stack([by_pil(name, image, amount) for amount in amounts])
    np.testing.assert_array_equal(found, expected, strict=True)


def test_a_known_amount_may_be_given_to_the_operation():
    image = numbered_image(12, 31)
    for name, amount in (("shear_x", 0.3), ("shear_y", -0.2), ("rotate", 21)):
        found = FUNCTIONS[name](jnp.asarray(image), amount, FILL)
        np.testing.assert_array_equal(np.asarray(found), by_pil(name, image, amount), strict=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_traced_amount_gives_pils_pixels_but_for_one_in_ten_thousand(name):
    image = numbered_image(20, 31)
    amounts = np.array(AMOUNTS[name], np.float32)
    found = jax.vmap(traced(name), in_axes=(None, 0))(jnp.asarray(image), jnp.asarray(amounts))
    expected = np.stack([by_pil(name, image, float(amount)) for amount in amounts])
    differing = (np.asarray(found) != expected).any(axis=-1)
    assert differing.mean() <= 1e-4
    if name.startswith("translate"):
        assert not differing.any()


@settings(max_examples=60, deadline=None)
@given(degrees=st.floats(-720, 720, width=32))
def test_any_traced_angle_gives_pils_pixels_but_for_one_in_a_thousand(degrees):
    image = numbered_image(32, 32)
    found = np.asarray(traced("rotate")(jnp.asarray(image), jnp.float32(degrees)))
    assert (found != by_pil("rotate", image, degrees)).any(axis=-1).mean() <= 1e-3


@settings(max_examples=60, deadline=None)
@given(shear=st.floats(-2, 2, width=32), name=st.sampled_from(["shear_x", "shear_y"]))
def test_any_traced_shear_gives_pils_pixels_but_for_one_row(shear, name):
    """A whole row can lie on the edge between two pixels, where the last bit decides."""
    image = numbered_image(32, 32)
    found = np.asarray(traced(name)(jnp.asarray(image), jnp.float32(shear)))
    assert (found != by_pil(name, image, shear)).any(axis=-1).sum() <= 32


@settings(max_examples=40, deadline=None)
@given(pixels=st.integers(-15, 15))
def test_a_translation_there_and_back_keeps_what_stayed_inside(pixels):
    image = jnp.asarray(numbered_image(16, 16))
    back = traced("translate_x")(traced("translate_x")(image, pixels), -pixels)
    kept = slice(max(pixels, 0), 16 + min(pixels, 0))
    np.testing.assert_array_equal(back[:, kept], image[:, kept])
    outside = np.ones(16, bool)
    outside[kept] = False
    assert (np.asarray(back)[:, outside] == FILL).all()


def test_four_quarter_turns_are_the_image():
    image = jnp.asarray(numbered_image(7, 7))
    once = affine.rotate(image, 90.0)
    np.testing.assert_array_equal(once, np.rot90(image))
    np.testing.assert_array_equal(affine.rotate(affine.rotate(once, 180.0), 90.0), image)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32])
def test_type_and_channels_are_kept(dtype):
    image = jnp.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    moved = jax.jit(lambda image: affine.translate_x(image, 1, fill=7))(image)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved[:, :2], image[:, 1:])
    np.testing.assert_array_equal(moved[:, 2], np.full((2, 5), 7))


def test_amounts_and_fills_are_vmapped():
    image = jnp.asarray(numbered_image(6, 5))
    angles, fills = jnp.array([10.0, -25.0, 80.0]), jnp.array([1, 2, 3], jnp.uint8)
    together = jax.jit(jax.vmap(affine.rotate, in_axes=(None, 0, 0)))(image, angles, fills)
    alone = jax.jit(affine.rotate)
    for one, angle, fill in zip(together, angles, fills, strict=True):
        np.testing.assert_array_equal(one, alone(image, angle, fill))

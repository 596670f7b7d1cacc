"""Colour operations against PIL itself, bit for bit, on real and on awkward images."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from spa_jax.data.augment import photometric
from spa_jax.data.augment.policies import FUNCTIONS
from tests.refusals import refusal

# Name -> PIL's function of an image and an amount, and the amounts.
FACTORS = np.concatenate([np.linspace(0.1, 1.9, 19), [0.0, 0.123, 2.5, -0.5, 7.0]])
PIL_OPERATIONS = {
    "autocontrast": (lambda image, _: ImageOps.autocontrast(image), [0]),
    "equalize": (lambda image, _: ImageOps.equalize(image), [0]),
    "invert": (lambda image, _: ImageOps.invert(image), [0]),
    "posterize": (ImageOps.posterize, range(1, 9)),
    "solarize": (ImageOps.solarize, [*range(0, 257, 16), 1, 178.5, 255]),
    "color": (lambda image, factor: ImageEnhance.Color(image).enhance(factor), FACTORS),
    "contrast": (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), FACTORS),
    "brightness": (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), FACTORS),
    "sharpness": (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), FACTORS),
}


def real_images(size=(32, 32)):
    """Eight crops of two photographs, scaled down to (height, width): `(8, height, width, 3)`."""
    crops = []
    for photograph in load_sample_images().images:
        for left in (0, 120, 240, 340):
            crop = Image.fromarray(photograph[100:400, left : left + 300])
            crops.append(np.asarray(crop.resize(size[::-1], Image.Resampling.BOX)))
    return np.stack(crops)


def awkward_images(height, width, channels):
    """Noise, few values, one value, and a white ground that PIL's equalize runs over the top of."""
    generator = np.random.default_rng(height * width)
    shape = (height, width, channels)
    white = np.where(generator.random(shape) < 0.6, 255, generator.integers(0, 250, shape))
    images = [
        generator.integers(0, 256, shape),
        generator.integers(50, 61, shape),
        generator.choice([0, 255], shape),
        np.minimum(generator.geometric(0.02, shape), 255),
        np.full(shape, 0),
        np.full(shape, 7),
        np.full(shape, 255),
        white,
    ]
    return np.stack(images).astype(np.uint8)


IMAGES = {
    "photographs": real_images(),
    "awkward": awkward_images(32, 32, 3),
    "grey and not square": awkward_images(20, 31, 1),
}


def to_pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def from_pil(image):
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


@functools.cache
def compiled(name):
    """An operation on every image with every amount."""
    of_amounts = jax.vmap(FUNCTIONS[name], in_axes=(None, 0))
    return jax.jit(jax.vmap(of_amounts, in_axes=(0, None)))


def assert_equals_pil(name, images, amounts):
    found = compiled(name)(jnp.asarray(images), jnp.asarray(amounts, jnp.float32))
    expected = [
        [from_pil(PIL_OPERATIONS[name][0](to_pil(image), amount)) for amount in amounts]
        for image in images
    ]
    np.testing.assert_array_equal(np.asarray(found), np.stack(expected), strict=True)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", PIL_OPERATIONS)
def test_an_operation_gives_what_pil_gives(name, kind):
    assert_equals_pil(name, IMAGES[kind], list(PIL_OPERATIONS[name][1]))


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (7, 2), (3, 3)])
@pytest.mark.parametrize("name", ["sharpness", "contrast"])
def test_an_operation_gives_what_pil_gives_on_images_that_are_almost_all_rim(name, size):
    height, width = size
    assert_equals_pil(name, awkward_images(height, width, channels=1), [0.0, 0.7, 1.9])


def test_contrast_rounds_a_mean_of_a_half_up_as_pil_does():
    image = np.array([[[100], [101]]], np.uint8)
    assert_equals_pil("contrast", image[None], [0.0, 0.5, 2.0])
    assert compiled("contrast")(jnp.asarray(image[None]), jnp.array([0.0])).max() == 101


@pytest.mark.skipif("SPA_JAX_CIFAR" not in os.environ, reason="SPA_JAX_CIFAR names no folder")
@pytest.mark.parametrize("name", PIL_OPERATIONS)
def test_an_operation_gives_what_pil_gives_on_cifar(name):
    with np.load(Path(os.environ["SPA_JAX_CIFAR"]) / "cifar10" / "test.npz") as arrays:
        images = arrays["image"][:300]
    assert_equals_pil(name, images, list(PIL_OPERATIONS[name][1])[:4])


def test_blending_gives_what_pil_gives_for_every_pair_of_values():
    """Among the factors are some for which a fused multiply-add gives other values."""
    degenerate, image = (
        values.astype(np.uint8) for values in np.meshgrid(np.arange(256), np.arange(256))
    )
    blend = jax.jit(photometric.blend)
    factors = np.concatenate(
        [np.linspace(-0.5, 2.5, 61), np.random.default_rng(0).uniform(-1, 3, 40)]
    )
    for factor in factors:
        found = blend(degenerate[..., None], image[..., None], jnp.float32(factor))[..., 0]
        expected = Image.blend(Image.fromarray(degenerate), Image.fromarray(image), factor)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), str(factor))


@pytest.mark.thorough
def test_autocontrast_gives_what_pil_gives_for_every_darkest_and_brightest_value():
    """Rounding in float64 loses a level for one pair of 18 in 100."""
    edges = [(low, high) for low in range(256) for high in range(low, 256)]
    columns = np.stack([np.clip(np.arange(256), *edge) for edge in edges]).astype(np.uint8)
    columns = np.concatenate([columns, columns[:2]])  # a multiple of 3 channels
    images = columns.reshape(-1, 3, 256, 1).transpose(0, 2, 3, 1)
    found = np.asarray(jax.jit(jax.vmap(photometric.autocontrast))(jnp.asarray(images)))
    expected = np.stack([np.asarray(ImageOps.autocontrast(Image.fromarray(i))) for i in images])
    np.testing.assert_array_equal(found, expected, strict=True)
    highest = found.max(axis=(1, 2))
    assert {254, 255} <= set(highest.ravel().tolist())


def test_a_python_factor_is_a_traced_factor():
    image = jnp.asarray(IMAGES["photographs"][0])
    expected = compiled("color")(image[None], jnp.array([1.27]))[0, 0]
    np.testing.assert_array_equal(photometric.color(image, 1.27), expected, strict=True)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), "(4, 4, 2)"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.zeros((4, 4), np.uint8), "(4, 4)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "(2, 4, 4, 3)"),
    ],
    ids=["float", "two channels", "four channels", "flat", "batch"],
)
def test_other_images_are_refused_with_what_to_do(untyped, image, said):
    for name in set(FUNCTIONS) - {"identity"}:
        message = refusal(FUNCTIONS[name], jnp.asarray(image), jnp.float32(1))
        assert said in message
        assert "uint8" in message
        assert "jax.vmap" in message


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(bits):
    message = refusal(photometric.posterize, jnp.zeros((2, 2, 1), jnp.uint8), bits)
    assert "from 1 to 8" in message
    assert str(bits) in message

"""RandAugment and AutoAugment against PIL: every operation, and the distribution of the results."""

import collections
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from spa_jax.data.augment.policies import (
    RANDAUGMENT_OPERATIONS,
    apply_operation,
    autoaugment_cifar,
    make_operation,
    randaugment,
)
from tests.data.augment.test_photometric import awkward_images, from_pil, real_images, to_pil
from tests.parameters import first
from tests.refusals import refusal

FILL = 77
NEAREST = Image.Resampling.NEAREST
# The policy as the paper's table prints it; a dash is a magnitude that the operation does not use.
PUBLISHED_POLICY = """
Invert 0.1 -        Contrast 0.2 6
Rotate 0.7 2        TranslateX 0.3 9
Sharpness 0.8 1     Sharpness 0.9 3
ShearY 0.5 8        TranslateY 0.7 9
AutoContrast 0.5 -  Equalize 0.9 -
ShearY 0.2 7        Posterize 0.3 7
Color 0.4 3         Brightness 0.6 7
Sharpness 0.3 9     Brightness 0.7 9
Equalize 0.6 -      Equalize 0.5 -
Contrast 0.6 7      Sharpness 0.6 5
Color 0.7 7         TranslateX 0.5 8
Equalize 0.3 -      AutoContrast 0.4 -
TranslateY 0.4 3    Sharpness 0.2 6
Brightness 0.9 6    Color 0.2 8
Solarize 0.5 2      Invert 0.0 -
Equalize 0.2 -      AutoContrast 0.6 -
Equalize 0.2 -      Equalize 0.6 -
Color 0.9 9         Equalize 0.6 -
AutoContrast 0.8 -  Solarize 0.2 8
Brightness 0.1 3    Color 0.7 0
Solarize 0.4 5      AutoContrast 0.9 -
TranslateY 0.9 9    TranslateY 0.7 9
AutoContrast 0.9 -  Solarize 0.8 3
Equalize 0.8 -      Invert 0.1 -
TranslateY 0.7 9    AutoContrast 0.9 -
"""


def moved(image, *matrix):
    fill = FILL if image.mode == "L" else (FILL,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, matrix, NEAREST, fillcolor=fill)


def by_pil(name, image, share, way):
    """An operation as the papers describe it, at this share of the largest magnitude."""
    width, height = image.size
    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(1.0 + way * 0.9 * share)
    fill = FILL if image.mode == "L" else (FILL,) * 3
    return {
        "identity": lambda: image,
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * share)),
        "solarize": lambda: ImageOps.solarize(image, 255.0 - 255.0 * share),
        "shear_x": lambda: moved(image, 1, way * 0.3 * share, 0, 0, 1, 0),
        "shear_y": lambda: moved(image, 1, 0, 0, way * 0.3 * share, 1, 0),
        "translate_x": lambda: moved(
            image, 1, 0, way * math.floor(150 / 331 * width * share), 0, 1, 0
        ),
        "translate_y": lambda: moved(
            image, 1, 0, 0, 0, 1, way * math.floor(150 / 331 * height * share)
        ),
        "rotate": lambda: image.rotate(way * 30.0 * share, fillcolor=fill),
    }[name]()


@pytest.mark.parametrize("kind", first(1, ["grey and not square", "photographs"]))
def test_every_operation_at_every_magnitude_gives_what_pil_gives(kind):
    images = {
        "photographs": lambda: np.concatenate([real_images()[::5], awkward_images(32, 32, 3)[-1:]]),
        "grey and not square": lambda: awkward_images(20, 15, 1)[:2],
    }[kind]()
    shares = [m / largest for largest in (9, 30) for m in range(largest + 1)]
    cases = list(itertools.product((*RANDAUGMENT_OPERATIONS, "invert"), shares, (-1, 1)))
    made = [make_operation(*case, *images.shape[1:3]) for case in cases]
    operations = jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    filled = functools.partial(apply_operation, fill=FILL)
    applied = jax.vmap(jax.vmap(filled, in_axes=(0, None)), in_axes=(None, 0))
    found = np.asarray(jax.jit(applied)(operations, jnp.asarray(images)))
    for image, results in zip(images, found, strict=True):
        for case, result in zip(cases, results, strict=True):
            name, share, way = case
            expected = from_pil(by_pil(name, to_pil(image), share, way))
            np.testing.assert_array_equal(result, expected, str(case))


IMAGE = real_images((12, 8))[1]


def distribution(histories):
    """Probability of each result, from all histories (probability, [(name, share, way), ...])."""
    results = collections.defaultdict(float)
    for probability, operations in histories:
        image = to_pil(IMAGE)
        for name, share, way in operations:
            image = by_pil(name, image, share, way)
        results[from_pil(image).tobytes()] += probability
    assert math.isclose(sum(results.values()), 1.0)
    return results


def assert_distributed(policy, results, draws):
    """Every draw is a possible result, and they are as frequent as they should be.

    A key gives the same wherever it stands in a batch. Returns keys and what they gave.
    """
    keys = jax.random.split(jax.random.key(11), draws)
    batch = jax.jit(jax.vmap(policy, in_axes=(0, None)))
    found = np.asarray(batch(keys, jnp.asarray(IMAGE)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(batch(keys[::-1], jnp.asarray(IMAGE))[::-1], found)
    counts = collections.Counter(image.tobytes() for image in found)
    assert set(counts) <= {image for image, probability in results.items() if probability > 0}
    common = [image for image, probability in results.items() if probability * draws >= 8]
    expected = np.array([results[image] * draws for image in common])
    observed = np.array([counts[image] for image in common])
    expected = np.append(expected, draws - expected.sum() + 1e-9)
    observed = np.append(observed, draws - observed.sum())
    statistic, freedom = ((observed - expected) ** 2 / expected).sum(), len(common)
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)
    return keys, found


@pytest.mark.thorough
def test_randaugment_draws_each_operation_and_each_way_alike():
    """And an image alone gets what it gets in a batch."""
    single = list(itertools.product(RANDAUGMENT_OPERATIONS, [9 / 30], (-1, 1)))
    histories = [
        (1 / len(single) ** 2, operations) for operations in itertools.product(single, repeat=2)
    ]
    policy = functools.partial(randaugment, num_layers=2, magnitude=9, fill=FILL)
    keys, found = assert_distributed(policy, distribution(histories), 8000)
    alone = jax.jit(policy)
    for key, expected in zip(keys[:5], found, strict=False):
        np.testing.assert_array_equal(alone(key, jnp.asarray(IMAGE)), expected)


def steps_of(cell):
    """(probability, operations) of a cell of the table: left out, or applied in one way of two."""
    printed, probability, magnitude = cell
    name = re.sub(r"(Shear|Translate)([XY])", r"\1_\2", printed).lower()
    share = 0.0 if magnitude == "-" else int(magnitude) / 9
    applied = [(float(probability) / 2, [(name, share, way)]) for way in (-1, 1)]
    return [(1 - float(probability), []), *applied]


@pytest.mark.thorough
def test_autoaugment_draws_the_published_sub_policies_with_their_probabilities():
    rows = [line.split() for line in PUBLISHED_POLICY.strip().splitlines()]
    assert len(rows) == 25
    histories = [
        (first / 25 * second, [*earlier, *later])
        for row in rows
        for (first, earlier), (second, later) in itertools.product(
            steps_of(row[:3]), steps_of(row[3:])
        )
    ]
    policy = functools.partial(autoaugment_cifar, fill=FILL)
    assert_distributed(policy, distribution(histories), 8000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_layers": 0}, "1 layer or more"),
        ({"magnitude": 31}, "from 0 to 30"),
        ({"magnitude": -1}, "from 0 to 30"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, said):
    message = refusal(randaugment, jax.random.key(0), jnp.asarray(IMAGE), **arguments)
    assert said in message
    assert str(next(iter(arguments.values()))) in message


@pytest.mark.parametrize("policy", [randaugment, autoaugment_cifar])
@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 2), np.uint8)])
def test_other_images_are_refused(untyped, policy, image):
    message = refusal(policy, jax.random.key(0), jnp.asarray(image))
    assert "uint8 images" in message
    assert str(image.shape) in message


def test_an_unknown_operation_is_refused_with_those_that_there_are():
    message = refusal(make_operation, "solarise", 0.5, 1, 8, 8)
    assert "'solarise'" in message
    assert "solarize" in message
    assert "invert" in message

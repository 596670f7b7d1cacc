"""Turned weights: their angles and lengths, and their exponents in closed form."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spa_jax
from spa_jax.dynamics.theory import misalignment as turned
from spa_jax.dynamics.theory.exponents import error_exponents, overall_exponent
from tests.refusals import refusal

properties = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
DEGREE = np.pi / 180


@pytest.mark.thorough
@properties
@given(seeds, st.sampled_from([2, 5]), st.sampled_from([0.0, 0.4, 1.0]))
def test_the_closed_form_of_turned_weights_is_that_of_their_exponents(seed, num_classes, share):
    angles = np.random.default_rng(seed).uniform(0, 80 * DEGREE, num_classes)
    correlation = share - (1 - share) / (num_classes - 1)
    means = spa_jax.simplex_etf(num_classes, 2 * num_classes, jax.random.key(2))
    weights = turned.rotated_weights(means, np.float32(angles), correlation)
    gram = np.asarray(weights) @ np.asarray(weights).T
    desired = correlation * np.outer(np.sin(angles), np.sin(angles))
    desired -= np.outer(np.cos(angles), np.cos(angles)) / (num_classes - 1)
    np.fill_diagonal(desired, 1)
    np.testing.assert_allclose(gram, desired, atol=1e-5)
    np.testing.assert_allclose(spa_jax.row_angles(means, weights), angles, atol=1e-4)
    found = turned.rotated_exponents(np.float32(angles), correlation)
    np.testing.assert_allclose(found, error_exponents(means, weights), rtol=1e-3, atol=1e-5)


@properties
@given(seeds, st.sampled_from([2, 3, 8]), st.floats(0, 1))
def test_the_two_largest_angles_decide_the_overall_exponent(seed, num_classes, share):
    angles = np.random.default_rng(seed).uniform(0, 90 * DEGREE, num_classes)
    k = 1 / (num_classes - 1)
    rho = -k * share
    second, largest = np.sort(angles)[-2:]
    margin = np.cos(largest) + k * np.cos(second)
    length = 1 + k * np.cos(largest) * np.cos(second) - rho * np.sin(largest) * np.sin(second)
    found = overall_exponent(turned.rotated_exponents(np.float32(angles), rho))
    np.testing.assert_allclose(found, margin**2 / (4 * length), rtol=1e-4)


def test_a_frame_turned_in_a_plane_keeps_its_shape_and_what_is_orthogonal_to_the_plane():
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(5, 5)))[0].astype(np.float32)
    found = np.asarray(turned.rotate_in_plane(frame, 3, 1, 0.4))
    np.testing.assert_allclose(found[[0, 2, 4]], frame[[0, 2, 4]], atol=1e-6)
    np.testing.assert_allclose(found[3], np.cos(0.4) * frame[3] + np.sin(0.4) * frame[1], atol=1e-6)
    np.testing.assert_allclose(found[1], np.cos(0.4) * frame[1] - np.sin(0.4) * frame[3], atol=1e-6)
    means = np.asarray(spa_jax.simplex_etf(6, 5, jax.random.key(3)))
    moved = np.asarray(turned.rotate_in_plane(means, 2, 4, 1.1))
    np.testing.assert_allclose(moved @ moved.T, means @ means.T, atol=1e-5)


REFUSED = {
    "a correlation": (
        lambda: turned.rotated_exponents(np.zeros(3, np.float32), -0.6),
        r"\[-0.5, 1\], got -0.6",
    ),
    "too few dimensions": (
        lambda: turned.rotated_weights(spa_jax.simplex_etf(4, 6), np.zeros(4, np.float32), 0.0),
        "D >= 7, got D = 6: make the means with dim=7",
    ),
    "angles of other classes": (
        lambda: turned.rotated_weights(spa_jax.simplex_etf(4, 9), np.zeros(3, np.float32), 0.0),
        "4 means but 3 angles",
    ),
    "no plane": (
        lambda: turned.rotate_in_plane(spa_jax.simplex_etf(2, 2), 0, 1, 0.1),
        "Rows 0 and 1 are parallel",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))

"""What has no neural-collapse metrics is refused with a reason."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.dynamics import collapse
from spa_jax.dynamics.collapse import NCState
from tests.dynamics.collapse.cases import C, D, draw, narrow, update
from tests.refusals import refusal


def spoilt(what):
    """A sound case with one thing wrong: the features, labels and weights."""
    features, labels, weights, _ = draw(0)
    features, weights = narrow(features, weights)
    if what == "empty":
        labels = np.where((labels == 2) | (labels == 4), 1, labels)
    elif what == "not finite":
        features[[3, 9], 2] = np.nan
    elif what == "too large":
        features *= np.float32(1e25)
    elif what == "too small":
        features *= np.float32(1e-25)
    elif what == "coinciding":
        features[:] = np.float32(np.linspace(-3, 3, D) / 7)
    elif what == "not finite weights":
        weights[[1, 5], 3] = np.inf
    else:
        assert what == "no weights"
        weights[:] = 0
    return update(NCState.create(C, D), features, labels), weights


FAULTS = {
    "empty": r"examples of every class.* 2 of 6 classes, first \[2, 4\].*num_classes",
    "not finite": r"^2 examples were left out.*NaN.*diverged",
    "too large": r"too large or too small to be squared.*float64",
    "too small": r"too large or too small to be squared.*float64",
    "coinciding": r"class means coincide.*same features for every image",
    "not finite weights": r"weights and bias must be finite.*2 of 6 classes, first \[1, 5\]",
    "no weights": r"weights are zero.*after the first step",
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_has_no_value_is_refused(what):
    state, weights = spoilt(what)
    assert re.search(FAULTS[what], refusal(collapse.metrics, state, weights))
    for function in (collapse.centred_means, collapse.whitening):
        if "weights" not in what:
            assert re.search(FAULTS[what], refusal(function, state))


def test_traced_values_are_refused_saying_where_to_measure():
    state, weights = spoilt("no weights")
    says = "must be known here.*is traced.*measure outside of jax.jit"
    calls = (
        lambda: jax.jit(collapse.metrics)(state, weights),
        lambda: jax.vmap(collapse.metrics, in_axes=(None, 0))(state, weights[None]),
        lambda: jax.jit(collapse.whitening)(state),
        lambda: jax.jit(lambda rows: collapse.minority_collapse(rows, [0, 1]))(weights),
    )
    for call in calls:
        assert re.search(says, refusal(call))


def test_weights_that_are_all_the_same_are_refused_when_they_are_centred():
    state, _ = spoilt("no weights")
    weights = np.tile(np.float32(np.linspace(1, 2, D)), (C, 1))
    assert collapse.metrics(state, weights)["nc2_equinorm_weights"] < 1e-6
    assert "center_weights" in refusal(collapse.metrics, state, weights, center_weights=True)


def state_of_ones():
    return NCState.create(2, 3)


ROWS, MEANS = np.eye(2, 3, dtype=np.float32), np.ones((2, 3), np.float32)
REFUSED = {
    "one class": (lambda: NCState.create(1, 3), "num_classes >= 2.*num_classes=1"),
    "no width": (lambda: NCState.create(2, 0), "dim >= 1.*dim=0"),
    "a short format": (lambda: NCState.create(2, 3, jnp.bfloat16), "float32 or float64.*bfloat16"),
    "float64 that is off": (lambda: NCState.create(2, 3, np.float64), "jax_enable_x64.*off"),
    "another width": (
        lambda: state_of_ones().update(np.ones((4, 5), np.float32), np.zeros(4, int)),
        r"features must be floating of shape \(4, 3\), got shape \(4, 5\).*width",
    ),
    "images": (
        lambda: state_of_ones().update(np.ones((4, 3), np.uint8), np.zeros(4, int)),
        "features must be floating.* got .*dtype uint8.*not images",
    ),
    "soft labels": (
        lambda: state_of_ones().update(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)),
        r"labels must be integers of shape \(4,\), got shape \(4, 2\).*one class each",
    ),
    "a mask of another batch": (
        lambda: state_of_ones().update(
            np.ones((4, 3), np.float32), np.zeros(4, int), np.ones(5, bool)
        ),
        r"mask must be numbers of shape \(4,\), got shape \(5,\).*one number an example",
    ),
    "states of other shapes": (
        lambda: state_of_ones().merge(NCState.create(2, 4)),
        r"cannot be merged.*\(2, 3\).*\(2, 4\)",
    ),
    "a Flax kernel": (
        lambda: collapse.metrics(state_of_ones(), np.ones((3, 2), np.float32)),
        r"weights must be floating of shape \(2, 3\).*\(3, 2\).*pass kernel\.T",
    ),
    "a bias of other classes": (
        lambda: collapse.metrics(state_of_ones(), ROWS, np.ones(3, np.float32)),
        r"bias must be floating of shape \(2,\), got shape \(3,\)",
    ),
    "an unknown centre": (
        lambda: collapse.metrics(state_of_ones(), ROWS, center="median"),
        "class_means.*samples.*'median'",
    ),
    "no example for NC4": (
        lambda: collapse.nc4(MEANS, MEANS, ROWS, mask=np.zeros(2, bool)),
        "no example to compare",
    ),
    "features for NC4 that are not finite": (
        lambda: collapse.nc4(MEANS * np.float32([[1], [np.nan]]), MEANS, ROWS),
        r"features must be finite.* 1 of 2 rows.*\[1\].*diverged",
    ),
    "unseen classes for NC4": (
        lambda: collapse.nc4(MEANS, MEANS * np.float32([[1], [0]]), ROWS),
        r"must not be zero rows.*classes without examples.* 1 of 2 class means, first \[1\]",
    ),
    "a whitening of another width": (
        lambda: collapse.nc1_contributions(MEANS, np.zeros(2, int), MEANS, np.eye(2)),
        r"whitening must be floating of shape \(2, 3\)",
    ),
    "a whitening that is not finite": (
        lambda: collapse.nc1_contributions(MEANS, np.zeros(2, int), MEANS, ROWS / np.float32(0.0)),
        "whitening must be finite",
    ),
    "a pair of one class": (lambda: collapse.minority_collapse(ROWS, [1]), "two or more.*no pair"),
    "a class twice": (
        lambda: collapse.minority_collapse(ROWS, [1, 1, 7]),
        r"\[0, 2\).*out of range: \[7\], more than once: \[1\]",
    ),
    "rows that are not finite": (
        lambda: collapse.minority_collapse(np.full((3, 2), np.nan), [0, 1]),
        "rows must be finite.* 3 of 3 rows",
    ),
}


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input_is_refused_saying_what(what, untyped):
    call, says = REFUSED[what]
    assert re.search(says, refusal(call))

"""Methods by name: what each says of itself fits together, and its own checks and logits."""

import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.longtail.method import Method
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import HEADS
from tests.longtail import reference
from tests.longtail.made_methods import loss_of, method


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_head_and_names_its_kernels(name):
    made = method(name)
    assert isinstance(made, Method)
    assert made.head in HEADS
    assert {*made.tested, *made.aligned} <= {*made.kernels}
    made.check(epochs=10**6)


def test_options_reach_the_losses():
    """Each against the equation with that option, and the mean over the batch."""
    logits, labels, _, counts = reference.problem(0)
    problem = (jnp.asarray(logits), jnp.asarray(labels), counts)
    shares = counts / counts.sum()
    for tau in (0.5, 1.0):
        expected = reference.logit_adjusted(logits, labels, shares, tau).mean()
        found = loss_of("logit_adjustment", *problem, tau=tau)
        assert found == pytest.approx(expected, rel=1e-5)
    balanced = reference.balanced_softmax(logits, labels, counts).mean()
    assert loss_of("balanced_softmax", *problem) == pytest.approx(balanced, rel=1e-5)
    for source, sizes in (("global", counts), ("batch", np.bincount(labels, minlength=5))):
        expected = reference.arb(logits, labels, sizes).mean()
        assert loss_of("arb", *problem, counts=source) == pytest.approx(expected, rel=1e-5)
    margins = reference.ldam_margins(counts, 0.3)
    losses = reference.ldam(logits, labels, margins, 10.0)
    weights = reference.effective_number_weights(counts, 0.9)[labels]
    for epoch, expected in ((3, reference.weighted_mean(losses, weights)), (4, losses.mean())):
        options = {"margin": 0.3, "scale": 10.0, "beta": 0.9, "epoch": epoch}
        assert loss_of("ldam_drw", *problem, **options) == pytest.approx(expected, rel=1e-5)


def test_logits_of_the_test_are_adjusted_or_scaled_where_the_method_says_so():
    logits, _, _, counts = reference.problem(1)
    sizes = jnp.asarray(counts, jnp.float32)
    shares = np.log(counts / counts.sum())
    for name, options, expected in (
        ("cross_entropy", {}, logits),
        ("logit_adjustment", {"tau": 2.0}, logits),
        ("post_hoc_logit_adjustment", {"tau": 2.0}, logits - 2 * shares),
        ("ldam_drw", {"scale": 7.0}, 7 * logits),
        ("bcl", {"scale": 7.0}, 7 * logits),
    ):
        found = method(name, **options).test_logits(jnp.asarray(logits), sizes)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

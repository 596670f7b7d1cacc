"""What SpA-Proj reports of its last update."""

import jax.numpy as jnp
import numpy as np
import pytest

import spa_jax

MEANS = jnp.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]])
PARAMS = {"head": jnp.eye(3, 2) + 0.1}


def state_after(gamma, gradient):
    tx = spa_jax.spa_proj(gamma, classifier="head", class_axis=0)
    _, state = tx.update({"head": gradient}, tx.init(PARAMS), PARAMS, class_means=MEANS)
    return state


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_removed_share_does_not_depend_on_the_size_of_the_gradient(scale):
    gradient = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.5, 1.0]])
    removed = state_after(0.0, scale * gradient).removed
    assert 0.05 < float(removed[0]) < 1
    np.testing.assert_allclose(removed, state_after(0.0, gradient).removed, rtol=1e-5)


def test_weights_that_are_not_numbers_show():
    """They are not taken for weights without a direction, which would hide them."""
    params = {"head": PARAMS["head"].at[0, 0].set(jnp.nan)}
    options = {"classifier": "head", "class_axis": 0}
    assert jnp.isnan(spa_jax.spa_reg(params, MEANS, **options))
    assert jnp.isnan(spa_jax.class_cosines(params, MEANS, **options)[0])


@pytest.mark.parametrize("gamma", ["0.5", None, [0.5], True])
def test_a_gamma_that_is_no_number_is_refused_at_once(gamma):
    with pytest.raises(TypeError, match="gamma must be a number"):
        spa_jax.spa_proj(gamma)


def test_nothing_is_removed_from_a_zero_gradient():
    state = state_after(0.0, jnp.zeros((3, 2)))
    assert float(state.removed[0]) == float(state.corrected[0]) == 0.0


def test_the_identity_corrects_no_class():
    assert float(state_after(1.0, jnp.ones((3, 2))).corrected[0]) == 0.0

"""The control for SLERP: its angles, in random directions."""

import jax.numpy as jnp
import numpy as np
import optax

from spa_jax.alignment import spa_slerp_transform
from spa_jax.training.random_turns import in_random_directions


def test_each_weight_turns_by_slerps_angle_in_a_direction_that_stays_its_own():
    rng = np.random.default_rng(0)
    params = {"head": {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)}}
    grads = {"head": {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)}}
    means = rng.normal(size=(3, 5)).astype(np.float32)
    aligned = {"classifier": "head/kernel", "center": True}
    slerp = spa_slerp_transform(0.01, 0.9, **aligned)
    plain, turned, random = (
        optax.chain(optax.sgd(0.1), *last)
        for last in ((), (slerp,), (in_random_directions(slerp, aligned),))
    )

    def rows_after(tx, before=params):
        tx = optax.with_extra_args_support(tx)
        updates, _ = tx.update(grads, tx.init(before), before, class_means=means)
        return np.asarray(optax.apply_updates(before, updates)["head"]["kernel"].T, np.float64)

    def angles(one, other):
        one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other))
        return 2 * np.arcsin(np.linalg.norm(one - other, axis=1) / 2)

    stepped, aimed, found = rows_after(plain), rows_after(turned), rows_after(random)
    assert angles(stepped, aimed).min() > 1e-3
    np.testing.assert_allclose(angles(stepped, found), angles(stepped, aimed), rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(stepped, axis=1), 1e-5)
    # In a space of five dimensions the chance of meeting the class mean is small.
    assert angles(found, aimed).min() > 1e-3
    np.testing.assert_array_equal(found, rows_after(random))


def test_what_slerp_leaves_stays():
    params = {"head": {"kernel": jnp.eye(3)}}
    means = np.eye(3, dtype=np.float32)
    aligned = {"classifier": "head/kernel", "center": False}
    tx = in_random_directions(spa_slerp_transform(0.5, 0.95, **aligned), aligned)
    zero = {"head": {"kernel": jnp.zeros((3, 3))}}
    updates, _ = tx.update(zero, tx.init(params), params, class_means=means)
    np.testing.assert_allclose(updates["head"]["kernel"], 0, atol=1e-7)

"""A control for SpA-SLERP: the same angles, in directions that mean nothing."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from spa_jax.alignment.geometry import unit_rows
from spa_jax.alignment.kernels import kernels_in, with_kernels

_DIRECTIONS_SEED = 0


def in_random_directions(
    turning: optax.GradientTransformationExtraArgs, aligned: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    r"""Turns each class weight by the angle of another transformation, but somewhere else.

    With :math:`\theta` the angle by which `turning` turns the weight w of a class after the step,
    and :math:`d` the unit tangent part at w of a direction that was drawn once for the class,

    .. math:: w \leftarrow \|w\| (\cos(\theta) \hat w + \sin(\theta) d)

    What alignment gains and this does not is owed to where the class means are, not to turning.

    Args:
      turning: a last link, such as :func:`spa_jax.spa_slerp_transform`.
      aligned: names the `(D, C)` kernels as `classifier`.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        turned, state = turning.update(updates, state, params, **extra_args)
        classifier = aligned["classifier"]
        trees = (kernels_in(tree, classifier) for tree in (params, updates, turned))
        replaced = []
        for kernel, step, turned_step in zip(*trees, strict=True):
            turn = _turn_by_angle_to((kernel + step).T, (kernel + turned_step).T)
            replaced.append(turn.T - kernel)
        return with_kernels(updates, classifier, replaced), state

    return optax.GradientTransformationExtraArgs(turning.init, update)


def _turn_by_angle_to(
    rows: Float[Array, "C D"], others: Float[Array, "C D"]
) -> Float[Array, "C D"]:
    unit, norm = unit_rows(rows), jnp.linalg.norm(rows, axis=1, keepdims=True)
    # By the chord, as the cosine of a small angle is 1 in float32.
    chord = jnp.linalg.norm(unit_rows(others) - unit, axis=1, keepdims=True)
    angle = 2.0 * jnp.arcsin(jnp.minimum(chord / 2.0, 1.0))
    drawn = jax.random.normal(jax.random.key(_DIRECTIONS_SEED), rows.shape)
    tangent = unit_rows(drawn - jnp.sum(drawn * unit, axis=1, keepdims=True) * unit)
    return norm * (jnp.cos(angle) * unit + jnp.sin(angle) * tangent)

"""SpA-SLERP: turns classifier weights towards their class means after the optimiser's step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from spa_jax.alignment.checks import check_range, check_update_arguments, warn_of_short_dtype
from spa_jax.alignment.class_means import ClassMeans
from spa_jax.alignment.geometry import RowPairs, widen
from spa_jax.alignment.kernels import (
    DEFAULT_CLASSIFIER,
    entries_axis,
    find_kernels,
    kernels_in,
    read_heads,
    with_kernels,
)


class SpaSlerpState(NamedTuple):
    """State of :func:`spa_slerp_transform`.

    Attributes:
      count: int32 scalar, updates so far: what an alpha schedule is evaluated at.
    """

    count: Int[Array, ""]


def slerp_schedule(alpha_max: Any, total_steps: Any) -> optax.Schedule:
    r"""The share of the angle that SpA-SLERP turns at each step: a half cosine from 0 up.

    .. math:: \alpha_t = \alpha_{\max} (1 - \cos(\pi t / T)) / 2, \quad t \in [0, T]

    Args:
      alpha_max: the share at the end, in [0, 1]; a scalar array is used as given.
      total_steps: T, the optimiser steps of the run, 1 or more.

    Returns:
      An optax schedule: `count` (the number of steps completed before this one, 0 at the first,
      clipped to [0, T]) -> scalar float32.

    Raises:
      ValueError: `alpha_max` outside [0, 1] or `total_steps` < 1.

    Example:
      >>> schedule = slerp_schedule(0.02, 100)
      >>> [round(float(schedule(t)), 4) for t in (0, 50, 100, 200)]
      [0.0, 0.01, 0.02, 0.02]
    """
    check_range("alpha_max", alpha_max, 0, 1, "it is the largest share of the angle turned a step")
    check_range("total_steps", total_steps, 1, float("inf"), "it is the length of the run in steps")

    def schedule(count: Any) -> Float[Array, ""]:
        progress = jnp.clip(jnp.asarray(count, jnp.float32) / total_steps, 0.0, 1.0)
        return jnp.asarray(alpha_max, jnp.float32) * (1.0 - jnp.cos(jnp.pi * progress)) / 2.0

    return schedule


def spa_slerp(
    params: PyTree,
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"],
    alpha: Any,
    threshold: Any = 0.95,
    *,
    classifier: str | Sequence[str] = DEFAULT_CLASSIFIER,
    class_axis: int | None = None,
    center: bool = True,
) -> PyTree:
    r"""SpA-SLERP: turns each misaligned weight by a share of its angle to its class mean.

    For each class whose cosine :math:`\langle \hat w, \hat\mu \rangle` is below the threshold, with
    :math:`\theta` its angle and :math:`d` the unit tangent part of :math:`\hat\mu` at :math:`w`,

    .. math:: w \leftarrow \|w\| (\cos(\alpha \theta) \hat w + \sin(\alpha \theta) d)

    Norms are kept; all other leaves, classes at or above the threshold and classes without a
    direction come back bit for bit. Call it on the params after the optimiser's step.

    Args:
      params: any pytree that holds the classifier kernel.
      class_means: a :class:`spa_jax.ClassMeans`, or a floating `(C, D)` array whose rows that
        are zero or not finite are classes not seen.
      alpha: share of the angle to turn, in [0, 1]: a number or a scalar array, which is used as
        given. A schedule has to be evaluated first, e.g. `slerp_schedule(0.02, steps)(step)`.
      threshold: turn only classes with a cosine below it, in [-1, 1]; arrays are used as given.
      classifier: path of the kernel, or a tuple of paths: each head is treated alone.
      class_axis: None for `(D, C)` kernels (Flax, Haiku), 0 for `(C, D)` (Equinox, PyTorch).
      center: turn towards means centred by their average over the seen classes.

    Returns:
      Params of the same structure, shapes and dtypes. Keep the head in float32: turns smaller than
      one unit in the last place of a bfloat16 weight are lost, of which a warning tells.

    Raises:
      ValueError: a number out of range, a path that matches no single 2-D leaf, means that do not
        fit.
      TypeError: a schedule instead of its value.

    Example:
      >>> params = {"head": {"kernel": jnp.array([[2.0, 0.0], [0.0, 1.0]])}}
      >>> means = jnp.array([[0.0, 1.0], [0.0, 1.0]])
      >>> spa_slerp(params, means, alpha=1.0, center=False)["head"]["kernel"].round(2).tolist()
      [[-0.0, 0.0], [2.0, 1.0]]

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters: The Missing Piece for Inducing Neural Collapse
      in Long-Tailed Learning", AAAI 2026, SpA-SLERP.
    """
    if callable(alpha):
        raise TypeError(
            "spa_slerp takes the value of alpha at this step, got a schedule: pass "
            "schedule(step), or use spa_slerp_transform, which evaluates schedules itself."
        )
    _check_strengths(alpha, threshold)
    heads = read_heads(
        params, class_means, classifier=classifier, class_axis=class_axis, center=center
    )
    new_kernels = []
    for head, kernel in zip(heads, kernels_in(params, classifier), strict=True):
        dtype = jnp.asarray(kernel).dtype
        warn_of_short_dtype("spa_slerp", dtype)
        turned, _ = _turn(head, alpha, threshold)
        new_kernels.append(turned.astype(dtype))
    return with_kernels(params, classifier, new_kernels)


def spa_slerp_transform(
    alpha: Any,
    threshold: Any = 0.95,
    *,
    classifier: str | Sequence[str] = DEFAULT_CLASSIFIER,
    class_axis: int | None = None,
    center: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""SpA-SLERP as the last link of an optax chain.

    Rewrites the update so that `optax.apply_updates` lands on the turned weights:

    .. math:: u \leftarrow \operatorname{slerp}(w + u) - w

    Equal to :func:`spa_slerp` after `apply_updates`, to 1e-6 in float32 and, in bfloat16, to one
    unit in the last place of the larger of the weight before and after. Put it last: what follows
    it in the chain would change the turned update.
    Inside `optax.MultiSteps` it turns once per optimiser step. `update` needs the params and the
    keyword `class_means`, as :func:`spa_jax.spa_proj` does.

    Args:
      alpha: share of the angle to turn, in [0, 1]: a number, a scalar array, or an optax schedule
        such as :func:`slerp_schedule`. Numbers are checked; arrays, traced values and schedules
        are used as given.
      threshold: turn only classes with a cosine below it, in [-1, 1]; arrays are used as given.
      classifier: path of the kernel in the params, or a tuple of paths: each head is treated alone.
      class_axis: None for `(D, C)` kernels (Flax, Haiku), 0 for `(C, D)` (Equinox, PyTorch). Under
        `optax.inject_hyperparams` an explicit 0 needs `static_args=("class_axis",)`.
      center: turn towards means centred by their average over the seen classes.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a :class:`SpaSlerpState`. Updates
      keep their dtype. Keep the head in float32: turns smaller than one unit in the last place of
      a bfloat16 weight are lost.

    Raises:
      ValueError: a number out of range, here; a path that matches no single 2-D leaf, from `init`;
        means that do not fit, from `update`.
      TypeError: `update` without params or without `class_means`.

    Example:
      >>> params = {"head": {"kernel": jnp.array([[2.0, 0.0], [0.0, 1.0]])}}
      >>> tx = optax.chain(optax.sgd(1.0), spa_slerp_transform(slerp_schedule(0.02, 100)))
      >>> grads = {"head": {"kernel": jnp.ones((2, 2))}}
      >>> updates, _ = tx.update(grads, tx.init(params), params, class_means=jnp.eye(2))
      >>> updates["head"]["kernel"].round(2).tolist()
      [[-1.0, -1.0], [-1.0, -1.0]]

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters", AAAI 2026, SpA-SLERP.
    """
    _check_strengths(alpha, threshold)
    entries_axis(class_axis)

    def init_fn(params: PyTree) -> SpaSlerpState:
        find_kernels(params, classifier)
        return SpaSlerpState(jnp.zeros((), jnp.int32))

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        class_means: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SpaSlerpState]:
        del extra_args
        check_update_arguments("spa_slerp_transform", params, class_means)
        share = alpha(state.count) if callable(alpha) else alpha
        kernels, steps = (kernels_in(tree, classifier) for tree in (params, updates))
        stepped: Any = optax.apply_updates(kernels, steps)
        heads = read_heads(
            with_kernels(params, classifier, stepped),
            class_means,
            classifier=classifier,
            class_axis=class_axis,
            center=center,
        )
        new_steps = []
        for head, kernel, step in zip(heads, kernels, steps, strict=True):
            warn_of_short_dtype("spa_slerp_transform", kernel.dtype)
            turned, turns = _turn(head, share, threshold)
            # Through the kernel's dtype, so that the difference is of two weights that exist.
            landed = widen(turned.astype(kernel.dtype))
            difference = (landed - widen(kernel)).astype(step.dtype)
            new_steps.append(jnp.where(turns, difference, step))
        state = SpaSlerpState(jnp.asarray(optax.safe_increment(state.count)))
        return with_kernels(updates, classifier, new_steps), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _turn(head: RowPairs, alpha: Any, threshold: Any) -> tuple[Float[Array, "_ _"], Any]:
    """The turned kernel, and which of its classes turn at all, to be broadcast over it."""
    turned, moves = head.slerp(alpha)
    below = head.cosines() < jnp.asarray(threshold, head.rows.dtype)
    turns = head.spread(moves & below)
    return jnp.where(turns, turned, head.rows), turns


def _check_strengths(alpha: Any, threshold: Any) -> None:
    check_range("alpha", alpha, 0, 1, "it is the share of the angle that is turned at a step")
    check_range("threshold", threshold, -1, 1, "it is the cosine above which nothing is turned")

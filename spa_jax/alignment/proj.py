"""SpA-Proj: removes from the gradient what would turn classifier weights away from class means."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from spa_jax.alignment.checks import check_range, check_update_arguments
from spa_jax.alignment.geometry import RowPairs, as_one, over_norms, row_norms, widen
from spa_jax.alignment.kernels import (
    DEFAULT_CLASSIFIER,
    classifier_paths,
    entries_axis,
    find_kernels,
    kernels_in,
    read_heads,
    with_kernels,
)

Radial = Literal["keep", "scale"]
ActsOn = Literal["gradients", "updates"]


class SpaProjState(NamedTuple):
    """State of :func:`spa_proj`.

    Attributes:
      count: int32 scalar, updates so far: what a gamma schedule is evaluated at.
      corrected: `(H,)` float32 in [0, 1], for each head the share of its C classes from whose row
        something was removed at the last update.
      removed: `(H,)` float32 >= 0, for each head the Frobenius norm of what the last update took
        away (incoming minus outgoing kernel update) over the norm of the incoming one.
    """

    count: Int[Array, ""]
    corrected: Float[Array, " H"]
    removed: Float[Array, " H"]


def spa_proj(
    gamma: Any = 0.6,
    *,
    radial: Radial = "keep",
    acts_on: ActsOn = "gradients",
    classifier: str | Sequence[str] = DEFAULT_CLASSIFIER,
    class_axis: int | None = None,
    center: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""SpA-Proj: keeps only a share of the gradient that turns weights away from class means.

    For each class, with weight row :math:`w`, gradient row :math:`g`, tangent gradient
    :math:`g_{\tan} = g - \langle g, \hat w \rangle \hat w` and :math:`d` the unit tangent part of
    the class mean's direction :math:`\hat\mu` (the way :math:`w` turns fastest towards it),

    .. math:: g \leftarrow g - (1 - \gamma) \max(0, \langle g_{\tan}, d \rangle) \, d

    A descent step goes along :math:`-g`, so a positive :math:`\langle g_{\tan}, d \rangle` is what
    turns the weight away. Other leaves, and classes without a direction, pass bit for bit.

    Put it first in a chain, before weight decay and momentum, as the paper does. With
    `acts_on="updates"` it goes last and sees the signed step :math:`u` that will be added; then

    .. math:: u \leftarrow u - (1 - \gamma) \min(0, \langle u_{\tan}, d \rangle) \, d

    and with :math:`\gamma = 0` it promises :math:`\langle u_{\tan}, d \rangle \ge 0` for every
    class: the derivative of :math:`\cos(w_c, \hat\mu_c)` along the update is not negative, the
    means held fixed. It promises no more: a finite step can still lower a cosine at second order,
    :math:`\gamma > 0` lets its share through, rounding to bfloat16 updates adds its own error, and
    wrappers that make another step of the inner update (`schedule_free`, `lookahead`) void it.

    `update` needs the params and the keyword `class_means`, a :class:`spa_jax.ClassMeans` or a
    floating `(C, D)` array whose rows that are zero or not finite are classes not seen; other extra
    arguments are ignored.

    Args:
      gamma: share of the harmful component that is kept: a number in [0, 1] (1 changes nothing, 0
        removes it), a scalar array, or an optax schedule. Numbers are checked; arrays, traced
        values and schedules are used as given.
      radial: "keep" is the formula above, the paper's text. "scale" is the form of the released
        code, :math:`(1 - \gamma) (g_{\tan} - \max(0, \langle g_{\tan}, d \rangle) d) + \gamma g`,
        which also scales the radial part by :math:`\gamma`.
      acts_on: "gradients" (first in the chain) or "updates" (last).
      classifier: path of the kernel in the params, or a tuple of paths: each head is treated alone.
      class_axis: None for `(D, C)` kernels (Flax, Haiku), 0 for `(C, D)` (Equinox, PyTorch). Under
        `optax.inject_hyperparams` an explicit 0 needs `static_args=("class_axis",)`.
      center: steer by means centred by their average over the seen classes.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose state is a :class:`SpaProjState`. Updates
      keep their dtype; the arithmetic is float32 (float64 for float64, which JAX has only with
      `jax_enable_x64`: without it a NumPy kernel of float64 is read as float32).

    Raises:
      ValueError: `gamma` outside [0, 1] or an unknown option, here; a path that matches no single
        2-D leaf, from `init`; means that do not fit, from `update`.
      TypeError: `update` without params or without `class_means`.

    Example:
      >>> params = {"head": {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]])}}
      >>> means = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
      >>> tx = optax.chain(spa_proj(gamma=0.0, center=False), optax.sgd(1.0))
      >>> grads = {"head": {"kernel": jnp.array([[3.0, 0.0], [2.0, 0.0]])}}
      >>> updates, _ = tx.update(grads, tx.init(params), params, class_means=means)
      >>> updates["head"]["kernel"].round(2).tolist()
      [[-3.0, -0.0], [-0.0, -0.0]]

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters: The Missing Piece for Inducing Neural Collapse
      in Long-Tailed Learning", AAAI 2026, SpA-Proj.
    """
    check_range("gamma", gamma, 0, 1, "it is the share of the harmful component that is kept")
    _check_option("radial", radial, ("keep", "scale"))
    _check_option("acts_on", acts_on, ("gradients", "updates"))
    entries_axis(class_axis)
    num_heads = len(classifier_paths(classifier))
    harmful_sign = 1.0 if acts_on == "gradients" else -1.0

    def init_fn(params: PyTree) -> SpaProjState:
        find_kernels(params, classifier)
        # An array of its own for each field: a state that holds one twice cannot be donated.
        return SpaProjState(
            count=jnp.zeros((), jnp.int32),
            corrected=jnp.zeros((num_heads,), jnp.float32),
            removed=jnp.zeros((num_heads,), jnp.float32),
        )

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        class_means: Any = None,
        **extra_args: Any,
    ) -> tuple[PyTree, SpaProjState]:
        del extra_args
        check_update_arguments("spa_proj", params, class_means)
        heads = read_heads(
            params, class_means, classifier=classifier, class_axis=class_axis, center=center
        )
        kept = gamma(state.count) if callable(gamma) else gamma
        new_updates, corrected, removed = [], [], []
        for head, update in zip(heads, kernels_in(updates, classifier), strict=True):
            edited, changed, share = _edit(widen(update), head, kept, radial, harmful_sign)
            new_updates.append(edited.astype(update.dtype))
            corrected.append(jnp.mean(changed, dtype=jnp.float32))
            removed.append(share.astype(jnp.float32))
        state = SpaProjState(
            jnp.asarray(optax.safe_increment(state.count)), jnp.stack(corrected), jnp.stack(removed)
        )
        return with_kernels(updates, classifier, new_updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@functools.partial(as_one, static_argnames=("radial", "harmful_sign"))
def _edit(
    incoming: Float[Array, "_ _"], head: RowPairs, kept: Any, radial: Radial, harmful_sign: float
) -> tuple[Float[Array, "_ _"], Bool[Array, " C"], Float[Array, ""]]:
    """The gradient (or update) without the harmful share, which classes that changed, and the norm
    of what was taken away over the norm of what came."""
    lost = 1.0 - jnp.asarray(kept, incoming.dtype)
    norms = row_norms(incoming, head.axis)
    tangents = head.tangents()
    along = jnp.sum(incoming * tangents.parts, head.axis) * tangents.inverse_sines
    harmful = lost * jnp.where(harmful_sign * along > 0, along, 0.0)
    taken = tangents.parts * head.spread(harmful * tangents.inverse_sines)
    taken_norms = jnp.abs(harmful)
    if radial == "scale":
        # Of length 1, since products of large gradients and large weights overflow.
        units = over_norms(incoming, head.spread(norms), minimum=0.0)
        scaled = jnp.where(head.has_direction, lost * head.dots(units) * norms, 0.0)
        taken += head.unit(scaled)
        taken_norms = jnp.hypot(harmful, scaled)
    edited = jnp.where(head.spread(taken_norms != 0), incoming - taken, incoming)
    total, part = row_norms(jnp.stack([norms, taken_norms]))
    return edited, harmful != 0, part / jnp.where(total > 0, total, 1.0)


def _check_option(name: str, value: Any, options: tuple[str, ...]) -> None:
    if value not in options:
        expected = " or ".join(repr(option) for option in options)
        raise ValueError(f"{name} must be {expected}, got {value!r}.")

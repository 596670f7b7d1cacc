"""SpA-Reg: a loss term that is small when weights point at their class means; and the cosines."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from spa_jax.alignment.class_means import ClassMeans
from spa_jax.alignment.kernels import DEFAULT_CLASSIFIER, read_heads


def class_cosines(
    params: PyTree,
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"],
    *,
    classifier: str | Sequence[str] = DEFAULT_CLASSIFIER,
    class_axis: int | None = None,
    center: bool = True,
) -> Float[Array, "*H C"]:
    r"""Cosine between each class's weight vector and the direction of its feature mean.

    .. math:: \cos_c = \langle \hat w_c, \hat\mu_c \rangle

    Args:
      params: any pytree that holds the classifier kernel.
      class_means: a :class:`spa_jax.ClassMeans`, or a floating `(C, D)` array whose rows that
        are zero or not finite are classes not seen.
      classifier: path of the kernel, or a tuple of paths (several heads).
      class_axis: None for `(D, C)` kernels (Flax, Haiku), 0 for `(C, D)` (Equinox, PyTorch).
      center: measure against means centred by their average over the seen classes.

    Returns:
      `(C,)` float32 in [-1, 1], `(H, C)` for a tuple of H paths; 0 for a class without a direction.

    Raises:
      ValueError: a path that matches no single 2-D leaf, or shapes that do not fit.

    Example:
      >>> params = {"head": {"kernel": jnp.eye(3)}}
      >>> class_cosines(params, jnp.eye(3), center=False).tolist()
      [1.0, 1.0, 1.0]

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters", AAAI 2026, the quantity of its Figure 4.
    """
    heads = read_heads(
        params, class_means, classifier=classifier, class_axis=class_axis, center=center
    )
    cosines = jnp.stack([head.cosines() for head in heads])
    return cosines[0] if isinstance(classifier, str) else cosines


def spa_reg(
    params: PyTree,
    class_means: ClassMeans | Float[Array | np.ndarray, "C D"],
    *,
    classifier: str | Sequence[str] = DEFAULT_CLASSIFIER,
    class_axis: int | None = None,
    center: bool = True,
) -> Float[Array, ""]:
    r"""SpA-Reg: one minus the mean cosine between classifier weights and class means.

    .. math:: L = \operatorname{mean}_{c} \left[ 1 - \langle \hat w_c, \hat\mu_c \rangle \right]

    over the classes that have a direction; 0 if none has. The gradient stops at the means, so the
    term turns the weights and leaves the features alone. Add it to any loss, with a weight.

    Args:
      params: any pytree that holds the classifier kernel; the gradient flows to it.
      class_means: a :class:`spa_jax.ClassMeans`, or a floating `(C, D)` array whose rows that
        are zero or not finite are classes not seen.
      classifier: path of the kernel, or a tuple of paths: the mean over the heads.
      class_axis: None for `(D, C)` kernels (Flax, Haiku), 0 for `(C, D)` (Equinox, PyTorch).
      center: align with means centred by their average over the seen classes.

    Returns:
      Scalar float32 in [0, 2], finite in value and gradient for any finite weights and means.

    Raises:
      ValueError: a path that matches no single 2-D leaf, or shapes that do not fit.

    Example:
      >>> params = {"head": {"kernel": -jnp.eye(3)}}
      >>> spa_reg(params, jnp.eye(3), center=False).item()
      2.0

    Reference:
      Wang, Gao and Xie, "Space Alignment Matters", AAAI 2026, SpA-Reg.
    """
    heads = read_heads(
        params,
        jax.lax.stop_gradient(class_means),
        classifier=classifier,
        class_axis=class_axis,
        center=center,
    )
    terms = []
    for head in heads:
        misalignment = jnp.where(head.has_direction, 1.0 - head.cosines(), 0.0)
        terms.append(jnp.sum(misalignment) / jnp.maximum(jnp.sum(head.has_direction), 1))
    return jnp.mean(jnp.stack(terms))

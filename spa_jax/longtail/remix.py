"""Remix: mixup whose labels favour the smaller of the two classes."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from spa_jax.longtail.losses import (
    Counts,
    Labels,
    Logits,
    Scalar,
    Targets,
    class_row,
    cross_entropy,
    target_weights,
)
from spa_jax.longtail.method import LossContext, Method, Views
from spa_jax.options import option


@dataclasses.dataclass(frozen=True)
class RemixOptions:
    """Options of `remix`; the defaults are the paper's."""

    kappa: float = option(3.0, "a class this many times larger gives its label up", low=1)
    tau: float = option(0.5, "where its image has less than this share", low=0, high=1)


def make_remix(options: RemixOptions) -> Method:
    """The method `remix`: cross-entropy on mixed images, with :func:`remix_targets`.

    The config's `augment.mix_alpha` is that of mixup, 1 in the paper. Class means are of the mixed
    images with the shares that they were mixed by, as for `mixup`.
    """

    def loss(logits: Logits, targets: Targets, context: LossContext) -> Float[Array, ""]:
        counts = context.class_counts
        relabelled = remix_targets(context.labels, targets, counts, options.kappa, options.tau)
        return jnp.mean(cross_entropy(logits, relabelled))

    return Method("linear", loss, views=Views(mix="mixup"))


def remix_targets(
    labels: Labels,
    targets: Targets,
    counts: Counts,
    kappa: Scalar = 3.0,
    tau: Scalar = 0.5,
) -> Float[Array, "B C"]:
    r"""Targets of mixup, all of which go to the smaller class where the classes' sizes differ much.

    .. math:: t = \lambda_y e_a + (1 - \lambda_y) e_b, \quad
       \lambda_y = \begin{cases}
         0 & n_a / n_b \ge \kappa \text{ and } \lambda < \tau \\
         1 & n_a / n_b \le 1 / \kappa \text{ and } 1 - \lambda < \tau \\
         \lambda & \text{otherwise}
       \end{cases}

    Args:
      labels: `(B,)` integers, a: of the images before mixing.
      targets: `(B, C)`, :math:`\lambda e_a + (1 - \lambda) e_b`
        (:func:`spa_jax.longtail.losses.mix_targets`), or labels, where nothing is mixed.
      counts: `(C,)` training examples of each class.
      kappa: ratio of sizes from which the larger class gives its label up, >= 1.
      tau: share of the larger class's image below which it does, in [0, 1].

    Returns:
      `(B, C)` float32.

    Raises:
      InputError: as :func:`spa_jax.longtail.losses.cross_entropy`.

    Example:
      >>> mixed, counts = jnp.array([[0.25, 0.75], [0.75, 0.25]]), jnp.array([30, 10])
      >>> remix_targets(jnp.array([0, 0]), mixed, counts).tolist()
      [[0.0, 1.0], [0.75, 0.25]]

    Reference:
      Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020.
    """
    shape = (labels.shape[0], counts.shape[0])
    own, mixed = target_weights(labels, shape), target_weights(targets, shape)
    # Of two images of one class nothing is left for others, and the share of that class is 1.
    others = (1.0 - own) * mixed
    other = target_weights(jnp.argmax(others, axis=1), shape)
    share = jnp.sum(own * mixed, axis=1, keepdims=True)
    sizes = class_row(counts, shape[1], "counts").astype(jnp.float32)
    size, other_size = (jnp.sum(part * sizes, axis=1, keepdims=True) for part in (own, other))
    gives_up = (size >= kappa * other_size) & (share < tau)
    takes_all = (other_size >= kappa * size) & (1.0 - share < tau)
    share = jnp.where(gives_up, 0.0, jnp.where(takes_all, 1.0, share))
    return share * own + (1.0 - share) * other

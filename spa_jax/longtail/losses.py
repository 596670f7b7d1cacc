"""Losses on logits for long-tailed classes, one number per example.

Targets are integer labels `(B,)`, or soft targets `(B, C)` whose rows need not sum to 1: losses are
linear in them, so that mixed targets give the mixed loss. The caller takes the mean. A label
outside [0, C) is refused when its value is known; traced, its example has loss 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer, Num, Shaped

from spa_jax.alignment.checks import is_known
from spa_jax.alignment.class_means import check_labels
from spa_jax.alignment.geometry import widen, widen_labels
from spa_jax.errors import InputError

Logits = Float[Array | np.ndarray, "B C"]
Labels = Integer[Array | np.ndarray, " B"]
Targets = Labels | Float[Array | np.ndarray, "B C"]
Counts = Num[Array | np.ndarray, " C"]
Scalar = Num[Array | np.ndarray, ""] | float


def cross_entropy(logits: Logits, targets: Targets) -> Float[Array, " B"]:
    r"""Softmax cross-entropy.

    .. math:: L = -\sum_c t_c \log \frac{e^{z_c}}{\sum_j e^{z_j}}

    Args:
      logits: `(B, C)` floating; minus infinity takes a class out.
      targets: `(B,)` integer labels, or `(B, C)` soft targets >= 0 with any sum.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: shapes or dtypes that do not fit, or a known label outside [0, C).

    Example:
      >>> jnp.exp(-cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))).tolist()
      [0.25, 0.25]
    """
    return optax.safe_softmax_cross_entropy(*logits_and_weights(logits, targets))


def log_prior(counts: Counts) -> Float[Array, " C"]:
    r"""Logarithm of the share of each class.

    .. math:: \log \pi_c = \log (n_c / \sum_j n_j)

    Args:
      counts: `(C,)` training examples of each class, above 0. Traced counts are not checked.

    Returns:
      `(C,)` float32.

    Raises:
      InputError: a known count that is not above 0.

    Example:
      >>> jnp.exp(log_prior(jnp.array([30, 10]))).tolist()
      [0.75, 0.25]
    """
    sizes = class_sizes(counts, "the logarithm of its share")
    return jnp.log(sizes / jnp.sum(sizes))


def logit_adjusted(
    logits: Logits, targets: Targets, log_prior: Float[Array | np.ndarray, " C"], tau: Scalar = 1.0
) -> Float[Array, " B"]:
    r"""Logit-adjusted loss; with `tau` 1 it is balanced softmax.

    .. math:: L = \operatorname{CE}(z + \tau \log \pi, t)

    Balanced softmax has the counts in the place of the shares: they differ by a constant shift,
    which cross-entropy does not see. Predict with the plain logits.

    Args:
      logits: `(B, C)` floating.
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      log_prior: `(C,)`, from :func:`log_prior`; a constant shift of it does not matter.
      tau: strength, 0 is cross-entropy.

    Returns:
      `(B,)` float32.

    Raises:
      InputError: as :func:`cross_entropy`.

    Example:
      >>> prior = jnp.log(jnp.array([0.75, 0.25]))
      >>> jnp.exp(-logit_adjusted(jnp.zeros((1, 2)), jnp.array([1]), prior)).tolist()
      [0.25]

    Reference:
      Menon et al., "Long-tail learning via logit adjustment", ICLR 2021; Ren et al., "Balanced
      Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """
    check_matrix(logits, "logits")
    prior = class_row(log_prior, logits.shape[1], "log_prior")
    return cross_entropy(widen(logits) + tau * prior, targets)


def adjust_logits(
    logits: Logits, log_prior: Float[Array | np.ndarray, " C"], tau: Scalar = 1.0
) -> Float[Array, "B C"]:
    r"""Post-hoc logit adjustment of a classifier trained with plain cross-entropy.

    .. math:: z - \tau \log \pi

    Args:
      logits: `(B, C)` floating.
      log_prior: `(C,)`, from :func:`log_prior`.
      tau: strength, 0 leaves the logits as they are.

    Returns:
      `(B, C)` float32, to take the largest of.

    Raises:
      InputError: shapes or dtypes that do not fit.

    Example:
      >>> prior = jnp.log(jnp.array([0.75, 0.25]))
      >>> jnp.argmax(adjust_logits(jnp.array([[0.5, 0.0]]), prior)).item()
      1

    Reference:
      Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """
    check_matrix(logits, "logits")
    return widen(logits) - tau * class_row(log_prior, logits.shape[1], "log_prior")


def tau_normalised(
    logits: Logits, lengths: Float[Array | np.ndarray, " C"], tau: Scalar = 1.0
) -> Float[Array, "B C"]:
    r"""Logits of class weights that are divided by a power of their lengths, after training.

    .. math:: \langle f, w_c \rangle / \|w_c\|^\tau

    Args:
      logits: `(B, C)` floating, :math:`\langle f, w_c \rangle`, without a bias.
      lengths: `(C,)` floating, :math:`\|w_c\|`; a weight of length 0 stays.
      tau: strength: 0 leaves lengths as they are, with 1 all weights have length 1.

    Returns:
      `(B, C)` float32, to take the largest of.

    Raises:
      InputError: shapes or dtypes that do not fit.

    Example:
      >>> tau_normalised(jnp.array([[3.0, 1.0]]), jnp.array([4.0, 1.0])).tolist()
      [[0.75, 1.0]]

    Reference:
      Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR
      2020, which leaves the bias out as well.
    """
    check_matrix(logits, "logits")
    of_classes = class_row(lengths, logits.shape[1], "lengths")
    return widen(logits) / jnp.where(of_classes > 0, of_classes, 1.0) ** tau


def batch_counts(
    labels: Labels, num_classes: int, axis_name: str | None = None
) -> Float[Array, " C"]:
    """Examples of each class in the whole batch.

    Args:
      labels: `(B,)` integers in [0, C), before mixing; this device's part under `axis_name`.
      num_classes: C.
      axis_name: mapped axis of `jax.pmap` or `jax.shard_map`, over which counts are added.

    Returns:
      `(C,)` float32.

    Raises:
      InputError: a known label outside [0, C).

    Example:
      >>> batch_counts(jnp.array([0, 2, 2]), 3).tolist()
      [1.0, 0.0, 2.0]
    """
    counts = jnp.sum(target_weights(labels, (labels.shape[0], num_classes)), axis=0)
    return counts if axis_name is None else jax.lax.psum(counts, axis_name)


def mix_targets(
    labels_a: Labels,
    labels_b: Labels,
    lam: Scalar | Float[Array | np.ndarray, " B"],
    num_classes: int,
) -> Float[Array, "B C"]:
    r"""Soft targets of mixup and cutmix.

    .. math:: t = \lambda e_a + (1 - \lambda) e_b

    Args:
      labels_a: `(B,)` integers in [0, C).
      labels_b: `(B,)` integers in [0, C), the partners.
      lam: share of the first, in [0, 1]: one number or `(B,)`. An array is used as given.
      num_classes: C.

    Returns:
      `(B, C)` float32.

    Raises:
      InputError: a number `lam` outside [0, 1], or a known label outside [0, C).

    Example:
      >>> mix_targets(jnp.array([0, 1]), jnp.array([2, 1]), 0.75, 3).tolist()
      [[0.75, 0.0, 0.25], [0.0, 1.0, 0.0]]

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    if isinstance(lam, float | int) and not 0 <= lam <= 1:
        raise InputError(f"lam must be in [0, 1], got {lam}: it is the share of the first label.")
    shape = (labels_a.shape[0], num_classes)
    share = jnp.broadcast_to(jnp.asarray(lam, jnp.float32), shape[:1])[:, None]
    return share * target_weights(labels_a, shape) + (1.0 - share) * target_weights(labels_b, shape)


def weighted_targets(
    targets: Targets, class_weights: Float[Array | np.ndarray, " C"]
) -> Float[Array, "B C"]:
    r"""Re-weighted labels, whose rows no longer sum to 1.

    .. math:: y^w_c = r_c \, t_c

    Args:
      targets: `(B,)` integer labels or `(B, C)` soft targets.
      class_weights: `(C,)`, r.

    Returns:
      `(B, C)` float32.

    Raises:
      InputError: as :func:`cross_entropy`.

    Example:
      >>> weighted_targets(jnp.array([1, 0]), jnp.array([0.5, 1.5])).tolist()
      [[0.0, 1.5], [0.5, 0.0]]
    """
    shape = (targets.shape[0], class_weights.shape[0])
    return target_weights(targets, shape) * widen(class_weights)[None]


def log_sum_exp_of_others(logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
    r"""For each class, the log-sum-exp over the other classes.

    .. math:: \log \sum_{j \ne c} e^{z_j}

    Args:
      logits: `(B, C)` floating.

    Returns:
      `(B, C)` of the same dtype; minus infinity where there is no other class.

    Example:
      >>> others = jnp.exp(log_sum_exp_of_others(jnp.log(jnp.array([[1.0, 2.0, 4.0]]))))
      >>> jnp.allclose(others, jnp.array([[6.0, 5.0, 3.0]])).item()
      True
    """
    # From both sides, since taking one class out of the whole sum cancels where it dominates.
    none = jnp.full_like(logits[:, :1], -jnp.inf)
    before = jax.lax.cumlogsumexp(logits, axis=1)[:, :-1]
    after = jax.lax.cumlogsumexp(logits, axis=1, reverse=True)[:, 1:]
    return jnp.logaddexp(
        jnp.concatenate([none, before], axis=1), jnp.concatenate([after, none], axis=1)
    )


def gather_batch(values: Shaped[Array, "B ..."], axis_name: str | None) -> Shaped[Array, "N ..."]:
    """What all devices have of a batch, in their order, for losses between its examples.

    A loss that each device computes of the whole is as good a share of it as a mean of its own
    part: their mean is the loss of the batch, and that of their gradients is its gradient.

    Args:
      values: `(B, ...)`, this device's part under `axis_name`.
      axis_name: mapped axis of `jax.pmap` or `jax.shard_map`; None: the batch is whole.

    Returns:
      `(N, ...)`, the whole batch.

    Example:
      >>> jax.pmap(lambda x: gather_batch(x, "i"), "i")(jnp.ones((1, 3, 2))).shape
      (1, 3, 2)
    """
    return values if axis_name is None else jax.lax.all_gather(values, axis_name, tiled=True)


def logits_and_weights(
    logits: Logits, targets: Targets, name: str = "logits"
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Logits in float32 at least, and the :func:`target_weights` that belong to them, checked."""
    check_matrix(logits, name)
    return widen(logits), target_weights(targets, logits.shape)


def target_weights(targets: Targets, shape: tuple[int, ...]) -> Float[Array, "B C"]:
    """Targets as `(B, C)` weights in float32 at least: one-hot rows of labels, or soft targets."""
    if shape[0] == 0:
        raise InputError("The batch holds no example: skip the loss of an empty batch.")
    try:
        check_labels(targets, shape[0], shape[1])
    except ValueError as error:
        raise InputError(f"The targets do not fit: {error}") from error
    # A gather by label would give the last class, the rarest, to the label -1.
    one_hot = targets.ndim == 1
    return jax.nn.one_hot(widen_labels(targets), shape[1]) if one_hot else widen(targets)


def class_row(
    values: Num[Array | np.ndarray, " C"], num_classes: int, name: str
) -> Float[Array, "1 C"]:
    """One number for each class, as a row in float32 at least; another shape is an InputError."""
    if values.shape != (num_classes,):
        raise InputError(
            f"{name} must have shape ({num_classes},), one number a class, got {values.shape}."
        )
    row = jnp.asarray(values)[None]
    return row.astype(jnp.promote_types(row.dtype, jnp.float32))


def check_matrix(values: Shaped[Array | np.ndarray, "..."], name: str) -> None:
    """Raises InputError unless the values are a floating matrix, one row for each example."""
    if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise InputError(
            f"{name} must be a floating matrix, one row an example, got shape {values.shape} and "
            f"dtype {values.dtype}."
        )


def class_sizes(counts: Counts, quantity: str) -> Float[Array, " C"]:
    """Class counts in float32; InputError if a known one is not above 0, as a quantity needs it."""
    if is_known(counts):
        known = np.asarray(counts)
        (wrong,) = np.nonzero(~((known > 0) & (known < np.inf)))
        if len(wrong):
            named = ", ".join(f"class {c}: {known[c]}" for c in wrong[:3])
            raise InputError(
                f"{len(wrong)} of {len(known)} class counts are not above 0 ({named}), as "
                f"{quantity} needs: pass the counts of a training set that has every class."
            )
    return jnp.asarray(counts, jnp.float32)

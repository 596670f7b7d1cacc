"""What a long-tailed method is to the training step: a head, a loss, and logits for testing."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from spa_jax.longtail.losses import Logits, Targets


class LossContext(NamedTuple):
    """What a loss may depend on besides the head's outputs and the targets.

    Attributes:
      labels: `(B,)` integers, before any mixing; this device's part of the batch, or of one
        micro-batch where gradients are accumulated.
      class_counts: `(C,)` float32, training images of each class.
      epoch: int32 scalar, epochs completed before this step; traced.
      epochs: of the whole run.
      axis_name: the mapped axis in the per-device view; None in the global view.
      batch_labels: as `labels`, of all micro-batches of the step.
      batch_targets: the targets of all micro-batches of the step.
    """

    labels: Int[Array, " B"]
    class_counts: Float[Array, " C"]
    epoch: Int[Array, ""]
    epochs: int
    axis_name: str | None
    batch_labels: Int[Array, " N"]
    batch_targets: Targets


@dataclasses.dataclass(frozen=True)
class Views:
    """What a method is shown of a batch.

    Attributes:
      mix: "none"; "mixup" or "cutmix" of the batch with a permutation of itself; or "glmc", two
        views of each image, mixup of the first and cutmix of the second with one coefficient.
      sampler_power: k, where the images that are mixed in are drawn anew, with replacement and
        weights :math:`n_c^{-k}`; None: they are the batch's own.
      clean_means: whether class means are made of the unmixed images, in a forward of their own.
      second: whether there is a second view of each image, augmented anew; without mixing.
    """

    mix: str = "none"
    sampler_power: float | None = None
    clean_means: bool = False
    second: bool = False

    @property
    def two(self) -> bool:
        """Whether the loss is given the head's outputs for two views of each image."""
        return self.second or self.mix == "glmc"


@dataclasses.dataclass(frozen=True)
class Method:
    """A long-tailed method.

    Attributes:
      head: a name in `spa_jax.models.networks.HEADS`, such as "linear".
      loss: `(outputs, targets, context)` -> scalar. The outputs are what the head gives: logits,
        or a tuple that holds them; a pair of that if `views.two`. Targets are labels `(B,)`, or
        shares `(B, C)` where images are mixed. In the per-device view the loss is this
        device's share: the mean over devices, and of its gradient, is the value for the batch.
      test_logits: `(logits, class_counts)` -> the logits that are predicted from.
      head_options: keyword arguments of that head.
      views: what it is shown; the default leaves the choice to the config's group `augment`.
      logits: the head's outputs -> the logits of the classifier that is used at test.
      kernels: paths of the head's class weights.
      tested: which of them classify at test, by the mean of their logits.
      aligned: which of them SpA acts on unless the config says otherwise.
      unit_weights: whether class weights classify as unit vectors, whatever their lengths.
      fixed_kernel: whether the class weights are not trained, so that SpA has nothing to act on.
      check: of the epochs of a run; raises InputError where the method needs more of them.
      needs_end: whether the loss depends on how many epochs the run has.
      splits: whether the loss of a batch is the mean of that of its micro-batches, each of which
        knows the labels and targets of the whole; not where it compares examples.
    """

    head: str
    loss: Callable[[Any, Targets, LossContext], Float[Array, ""]]
    test_logits: Callable[[Logits, Float[Array, " C"]], Logits] = lambda logits, _: logits
    head_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    views: Views = Views()
    logits: Callable[[Any], Logits] = lambda outputs: outputs
    kernels: tuple[str, ...] = ("head/kernel",)
    tested: tuple[str, ...] = ("head/kernel",)
    aligned: tuple[str, ...] = ("head/kernel",)
    unit_weights: bool = False
    fixed_kernel: bool = False
    check: Callable[[int], None] = lambda epochs: None
    needs_end: bool = False
    splits: bool = True

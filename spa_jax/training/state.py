"""Everything that the next training step needs."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from spa_jax.training.devices import OWN, SHARED

COLLECTIONS = ("params", "batch_stats", "constants")
"""Of a network's variables, each a part of the state; one that a network lacks is empty there."""


def replaced(tree: PyTree, part: PyTree) -> Any:
    """Nested dictionaries with the leaves that a part of them has in place of their own.

    Example:
      >>> replaced({"head": {"kernel": 1, "bias": 2}}, {"head": {"bias": 3}})
      {'head': {'kernel': 1, 'bias': 3}}
    """
    whole = flatten_dict(tree, keep_empty_nodes=True)
    return unflatten_dict(whole | flatten_dict(part))


def _part_of(tree: PyTree, like: PyTree) -> Any:
    """Of nested dictionaries what others have."""
    whole = flatten_dict(tree, keep_empty_nodes=True)
    return unflatten_dict({path: whole[path] for path in flatten_dict(like, keep_empty_nodes=True)})


class TrainState(flax.struct.PyTreeNode):
    """The whole state of a run; it can be donated, vmapped, replicated and checkpointed.

    Attributes:
      step: int32 scalar, optimiser steps completed.
      params: the model's parameters.
      batch_stats: running statistics of its normalisation layers.
      constants: of the model that are no parameters: the frame of a fixed classifier.
      opt_state: of the optimiser chain.
      class_means: those that SpA steers by, a moving average or of the whole training set.
      rng: typed PRNG key of the run's seed; never advanced, folded with the step.
      hyperparams: float32 scalars, traced, so that one program trains many settings.
      average: of `params` that are trained and of `batch_stats` that move, by collection, where
        averages are evaluated; else None.
      guard: what decides which steps are skipped; None where none is.
    """

    # Any, because prefix trees of it hold other things than arrays.
    step: Any
    params: Any
    batch_stats: Any
    constants: Any
    opt_state: Any
    class_means: Any
    rng: Any
    hyperparams: Any
    average: Any = None
    guard: Any = None

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model is applied to."""
        return {name: getattr(self, name) for name in COLLECTIONS}

    @property
    def evaluated(self) -> dict[str, PyTree]:
        """What the model is evaluated with: averages, where there are."""
        if self.average is None:
            return self.variables
        return replaced(self.variables, self.average)

    def apply_gradients(
        self, tx: optax.GradientTransformation, grads: Mapping[str, PyTree], **extra_args: Any
    ) -> "TrainState":
        """One optimiser step; what has no gradient stays as it is.

        Args:
          tx: whose state was made of those parameters that have a gradient.
          grads: of all parameters or of some, in nested dictionaries as those.
          extra_args: such as `class_means`, go on to `tx.update`.
        """
        tx = optax.with_extra_args_support(tx)
        trained = _part_of(self.params, grads)
        updates, opt_state = tx.update(grads, self.opt_state, trained, **extra_args)
        params = replaced(self.params, optax.apply_updates(trained, updates))
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state)

    def averaged(self, decay: float) -> "TrainState":
        r"""With the average moved towards what a step has left; call it once a step.

        .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t) \, \theta, \quad
           d_t = \min\bigl(d, \tfrac{1 + t}{10 + t}\bigr)

        after t steps: early averages are short, so that they forget where the run started.

        Args:
          decay: d, in [0, 1).
        """
        share = 1.0 - jnp.minimum(decay, (1.0 + self.step) / (10.0 + self.step))
        now = _part_of(self.variables, self.average)
        return self.replace(average=optax.incremental_update(now, self.average, share))


STATE_PLACES: Any = TrainState(SHARED, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN)
"""Of the states that a program trains: all runs are at one step, everything else is a run's own."""

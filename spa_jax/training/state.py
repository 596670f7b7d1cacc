"""Everything that the next training step needs."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from spa_jax.training.devices import OWN, SHARED


def replaced(tree: PyTree, part: PyTree) -> Any:
    """Nested dictionaries with the leaves that a part of them has in place of their own.

    Example:
      >>> replaced({"head": {"kernel": 1, "bias": 2}}, {"head": {"bias": 3}})
      {'head': {'kernel': 1, 'bias': 3}}
    """
    whole = flatten_dict(tree, keep_empty_nodes=True)
    return unflatten_dict(whole | flatten_dict(part))


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

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model is applied to."""
        return {
            "params": self.params,
            "batch_stats": self.batch_stats,
            "constants": self.constants,
        }

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
        params = flatten_dict(self.params)
        trained = unflatten_dict({path: params[path] for path in flatten_dict(grads)})
        updates, opt_state = tx.update(grads, self.opt_state, trained, **extra_args)
        params = replaced(self.params, optax.apply_updates(trained, updates))
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state)


STATE_PLACES: Any = TrainState(SHARED, OWN, OWN, OWN, OWN, OWN, OWN, OWN)
"""Of the states that a program trains: all runs are at one step, everything else is a run's own."""

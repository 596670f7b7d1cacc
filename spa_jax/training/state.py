"""Everything that the next training step needs."""

from typing import Any

import flax.struct
import optax
from jaxtyping import PyTree

from spa_jax.training.devices import OWN, SHARED


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
        self, tx: optax.GradientTransformation, grads: PyTree, **extra_args: Any
    ) -> "TrainState":
        """One optimiser step; extra arguments, such as `class_means`, go on to `tx.update`."""
        tx = optax.with_extra_args_support(tx)
        updates, opt_state = tx.update(grads, self.opt_state, self.params, **extra_args)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state)


STATE_PLACES: Any = TrainState(SHARED, OWN, OWN, OWN, OWN, OWN, OWN, OWN)
"""Of the states that a program trains: all runs are at one step, everything else is a run's own."""

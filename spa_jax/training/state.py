"""Everything that the next training step needs."""

from typing import Any

import flax.struct
import numpy as np
import optax
from jaxtyping import PyTree

from spa_jax.alignment import ClassMeans
from spa_jax.training.config import Config, field_value

HYPERPARAMETERS = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "gamma": "spa.gamma",
    "weight": "spa.weight",
    "alpha_max": "spa.alpha_max",
    "threshold": "spa.threshold",
}
"""Names in `TrainState.hyperparams`, and the config fields that fill them."""


class TrainState(flax.struct.PyTreeNode):
    """The whole state of a run; it can be donated, vmapped, replicated and checkpointed.

    Attributes:
      step: int32 scalar, optimiser steps completed.
      params: the model's parameters.
      batch_stats: running statistics of its normalisation layers.
      constants: of the model that are no parameters: the frame of a fixed classifier.
      opt_state: of the optimiser chain.
      class_means: the EMA class means that SpA steers by.
      rng: typed PRNG key of the run's seed; never advanced, folded with the step.
      hyperparams: float32 scalars, traced, so that one program trains many settings.
    """

    step: Any
    params: PyTree
    batch_stats: PyTree
    constants: PyTree
    opt_state: PyTree
    class_means: ClassMeans
    rng: Any
    hyperparams: dict[str, Any]

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


def hyperparams_from(config: Config) -> dict[str, np.ndarray]:
    """The traced scalars of a config, float32, on the host."""
    return {
        name: np.asarray(field_value(config, field), np.float32)
        for name, field in HYPERPARAMETERS.items()
    }

"""Batch normalisation as every network here has it."""

from typing import Any

import flax.linen as nn


def batch_norm(train: bool, axis_name: str | None, **settings: Any) -> nn.BatchNorm:
    """Batch normalisation with PyTorch's momentum, 0.9 in Flax's terms, and epsilon, 1e-5.

    A running variance averages the biased variance of the batches, as Flax does, and PyTorch's the
    unbiased one, which is n / (n - 1) times as large (n values a channel).

    Args:
      train: whether to normalise by the batch, and to let it move the running statistics.
      axis_name: mapped axis over which to take the statistics, under `jax.pmap` and `jax.shard_map`
        (with `check_vma=False`). None takes them over the batch that the module sees: the global
        batch under `jax.jit`, each device's own part under the other two.
      settings: further arguments of `flax.linen.BatchNorm`.
    """
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name, **settings
    )

"""A run small enough for a test: the real digits, a narrow network, two epochs."""

from typing import Any

from spa_jax.training.config import Config, default_config


def small_config(**changes: Any) -> Config:
    """Two epochs of five steps; `changes` has dotted fields, with `__` for the dot."""
    config = default_config()
    config.epochs = 2
    config.batch_size = 64
    config.eval_batch_size = 256
    config.augment.crop_padding = 1
    config.augment.flip = True
    config.model.widths = (8,)
    config.logging.every_steps = 0
    config.logging.tensorboard = False
    config.logging.plots = False
    for field, value in changes.items():
        *groups, key = field.split("__")
        target = config
        for group in groups:
            target = target[group]
        target[key] = value
    return config

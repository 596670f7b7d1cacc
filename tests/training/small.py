"""A run small enough for a test: the real digits, a narrow network, two epochs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spa_jax.alignment.kernels import path_names
from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.data.features import checked_features
from spa_jax.longtail.registry import METHODS
from spa_jax.options import defaults_of
from spa_jax.training.config import Config, default_config, resolve
from spa_jax.training.devices import Layout
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import serializable
from spa_jax.training.state import TrainState


def small_config(**changes: Any) -> Config:
    """Two epochs of five steps; `changes` has dotted fields, with `__` for each dot."""
    config = default_config()
    config.epochs = 2
    config.batch_size = 64
    config.eval_batch_size = 256
    config.augment.crop_padding = 1
    config.augment.flip = True
    if changes.get("model__name", "small") == "small":
        config.model.small.widths = (8,)
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


def deferral(method: str, epoch: int) -> dict[str, int]:
    """The epoch from which a method weighs classes, for `small_config`, if it has that option."""
    has_one = "epoch" in defaults_of(METHODS[method].options)
    return {f"method__{method}__epoch": epoch} if has_one else {}


def small_program(
    config: Config, num_devices: int = 1, data: LongTailedDataset | None = None
) -> Program:
    """A program on the first so many devices, which share a batch as the configuration says."""
    devices, mesh = jax.devices()[:num_devices], resolve(config).mesh
    return Program(config, data, Layout(config.parallel, devices, options=mesh))


@functools.cache
def noisy_features(num_classes: int = 256, dim: int = 12) -> LongTailedDataset:
    """A bank of noise, two examples of each class."""
    noise = np.random.default_rng(0).normal(size=(2 * num_classes, dim)).astype(np.float32)
    labels = np.arange(len(noise), dtype=np.int32) % num_classes
    examples = LabelledImages(checked_features(noise, "noise"), labels)
    split = {"class_counts": [2] * num_classes, "checksum": "none"}
    names = tuple(map(str, range(num_classes)))
    return LongTailedDataset("noise", examples, examples, names, split)


def noisy_program(num_devices: int, **changes: Any) -> Program:
    """A program on those features with an adapter, so that there is a network to train."""
    of_features = {"model__name": "adapter", "augment__crop_padding": 0, "augment__flip": False}
    config = small_config(**of_features, batch_size=16, eval_batch_size=16, **changes)
    return small_program(config, num_devices, noisy_features())


def take_steps(
    program: Program,
    state: TrainState,
    steps: int,
    at: int | None = None,
    measured: bool = False,
) -> tuple[list[TrainState], list[dict[str, Any]]]:
    """Copies of the state before, between and after steps, and what each step measured.

    Args:
      program: of one run.
      state: before them; its buffers are given up.
      steps: how many.
      at: the number of every one of them, so that all have one batch; None: they count on.
      measured: whether alignment is, too.
    """
    inputs = next(program.batches(state, seed=0, epoch=0))
    states, metrics = [_copy(state)], []
    for _ in range(steps):
        if at is not None:
            state = state.replace(step=program.layout.replicate(np.int32(at)))
        state, totals = program.train_step(state, program.zero_totals, inputs)
        states.append(_copy(state))
        totals = program.measure(state, totals) if measured else totals
        metrics.append(fetch(totals).last)
    return states, metrics


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    """Two trees of arrays, each array to a share of its largest number, or of 1 if that is more."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        scale = max(1.0, np.abs(a).max())
        np.testing.assert_allclose(
            b, a, rtol=0, atol=tolerance * scale, err_msg=path_names(path)[0]
        )


def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.asarray, fetch(serializable(state)))

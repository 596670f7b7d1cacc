"""CIFAR-10-LT and CIFAR-100-LT on frozen features: every method is tuned, then every variant.

Rate, weight decay and epochs are chosen for each method without SpA, and then the strengths of each
variant, at each imbalance factor, by the mean validation accuracy of three seeds; the ranges were
set by looks at validation accuracy at imbalance factor 100. A seed is that of
the initialisation, of the order and of the split. The features are those of
`python -m studies.feature_bank`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from spa_jax.reproduction.cells import (
    Cell,
    Records,
    Settings,
    settings_name,
    validation_accuracy,
    with_settings,
)
from spa_jax.training.config import Config
from spa_jax.training.recipes import features

BASE: Sequence[Settings] = [
    (("epochs", epochs), ("optimizer.learning_rate", rate), ("optimizer.weight_decay", decay))
    for epochs, rate, decay in itertools.product(
        (10, 30), (0.003, 0.01, 0.03, 0.1), (1e-4, 1e-3, 5e-3, 2e-2)
    )
]
"""What tuning tries for a method without SpA: six to eight times as much as for a variant."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "cross_entropy": {},
    "balanced_softmax": {"method.name": "balanced_softmax"},
    "ldam_drw": {"method.name": "ldam_drw"},
    # On features that stay as they are the second stage is all there is.
    "crt": {"data.sampler": "class_aware"},
    "arb": {"method.name": "arb"},
}
"""The methods of the table, and in what they differ."""

HEADS: Mapping[str, Mapping[str, Any]] = {
    "normalised": {"model.head": "normalised"},
    "cosine": {"model.head": "cosine"},
}
"""Controls that are tuned as methods are: cross-entropy without the lengths of weights."""

DECAYS = (1e-3, 5e-3, 2e-2, 5e-2)
"""Controls of cross-entropy, all else as it was tuned: decay aligns too."""

IMBALANCE_FACTORS = (100.0, 10.0, 200.0, 50.0)
"""In the order of their worth."""

VARIANTS = ("reg", "slerp", "proj")
TUNING_SEEDS, SEEDS = range(3), range(20)


class FeatureCells:
    """Makes the cells of a method at an imbalance factor, from what the records have chosen.

    Attributes:
      strengths: of each variant, what tuning tries.
    """

    def __init__(
        self,
        records: Mapping[str, Any],
        method: str,
        imbalance_factor: float,
        strengths: Mapping[str, Sequence[Settings]],
    ) -> None:
        """Reads what was chosen, by the cells' names."""
        self._records, self._place, self.strengths = records, (method, imbalance_factor), strengths
        self._base = self._chosen("none", BASE)

    def tuning(self, spa_method: str) -> list[Cell]:
        """The runs that choose rate, decay and epochs ("none"), or the strengths of a variant."""
        if spa_method == "none":
            tried = [(settings, settings) for settings in BASE]
        else:
            choices = self.strengths[spa_method]
            tried = [(settings, _both(self._base, settings)) for settings in choices]
        runs = [self._tuning(spa_method, *settings) for settings in tried]
        # One split after another, as each is loaded anew.
        return [cell for of_seed in zip(*runs, strict=True) for cell in of_seed]

    def final(self, spa_method: str) -> list[Cell]:
        """The runs of the table, of all seeds, without SpA ("none") or with a variant."""
        settings = self._base
        if spa_method != "none":
            settings = _both(settings, self._chosen(spa_method, self.strengths[spa_method]))
        return [self._cell("final", spa_method, seed, "tuned", settings) for seed in SEEDS]

    def controls(self) -> list[Cell]:
        """Decays, and SLERP's angles in random directions, of all seeds."""
        found = {
            f"decay={decay}": ("none", _both(self._base, (("optimizer.weight_decay", decay),)))
            for decay in DECAYS
        }
        strengths = _both(self._base, self._chosen("slerp", self.strengths["slerp"]))
        random = (("spa.slerp.direction", "random"),)
        found["random-directions"] = ("slerp", _both(strengths, random))
        return [
            self._cell("control", spa_method, seed, variant, settings)
            for variant, (spa_method, settings) in found.items()
            for seed in SEEDS
        ]

    def _tuning(self, spa_method: str, tried: Settings, settings: Settings | None) -> list[Cell]:
        settings, name = _both(settings, (("data.validation", True),)), settings_name(tried)
        return [self._cell("tune", spa_method, seed, name, settings) for seed in TUNING_SEEDS]

    def _cell(
        self, stage: str, spa_method: str, seed: int, variant: str, settings: Settings | None
    ) -> Cell:
        method, factor = self._place
        return Cell(stage, method, spa_method, factor, seed, "label", variant, settings)

    def _chosen(self, spa_method: str, choices: Sequence[Settings]) -> Settings | None:
        """What has the highest mean validation accuracy, the first of equal ones; None: not yet."""
        accuracy = []
        for tried in choices:
            cells = self._tuning(spa_method, tried, None)
            runs = [self._records.get(cell.name) for cell in cells]
            if None in runs:
                return None
            accuracy.append(sum(map(validation_accuracy, runs)))
        return choices[accuracy.index(max(accuracy))]


def _both(first: Settings | None, second: Settings | None) -> Settings | None:
    return None if first is None or second is None else (*first, *second)


def feature_cells(strengths: Mapping[str, Sequence[Settings]], records: Records) -> list[Cell]:
    """The cells of a table: one imbalance factor after another, and there method by method."""
    by_name = {record["cell"]: record for record in records}
    cells: list[Cell] = []
    for factor in IMBALANCE_FACTORS:
        make = functools.partial(
            FeatureCells, by_name, imbalance_factor=factor, strengths=strengths
        )
        for method in (*METHODS, *HEADS):
            of_method = make(method=method)
            for variant in ("none", *VARIANTS) if method in METHODS else ("none",):
                cells += [*of_method.tuning(variant), *of_method.final(variant)]
            cells += of_method.controls() if method == "cross_entropy" else []
    return cells


def feature_config(cell: Cell) -> Config:
    """SGD with momentum and a cosine, on class means of the whole training set."""
    config = features(cell.imbalance_factor)
    config.batch_size, config.optimizer.name = 128, "sgd"
    config.optimizer.warmup_epochs, config.logging.every_steps = 1.0, 0
    config.logging.tensorboard = config.logging.plots = False
    config.checkpoint.every_epochs, config.checkpoint.keep = 0, 1  # an epoch takes 0.2 seconds
    config.data.split_seed = cell.seed
    with_settings(config, dataclasses.replace(cell, method="cross_entropy"))
    config.spa.means_from = "dataset"
    config.update_from_flattened_dict(dict({**METHODS, **HEADS}[cell.method]))
    config.evaluate_every = config.epochs
    if cell.method == "ldam_drw":  # as published: 160 of 200
        config.method.ldam_drw.epoch = config.epochs * 4 // 5
    return config


def waits_for(cell: Cell, tuning: Cell) -> bool:
    """Whether a cell's settings come from a tuning run."""
    same_place = (cell.method, cell.imbalance_factor) == (tuning.method, tuning.imbalance_factor)
    return same_place and tuning.spa_method in ("none", cell.spa_method)

"""CIFAR-10-LT and CIFAR-100-LT on frozen features: every method is tuned, then every variant.

Rate, weight decay and epochs are chosen for each method without SpA, and then the strengths of each
variant, at each imbalance factor, by the mean validation accuracy of three seeds; the ranges were
set by looks at validation accuracy at imbalance factor 100. A seed is that of
the initialisation, of the order and of the split. The features are those of
`python -m studies.feature_bank`.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from spa_jax.reproduction.cells import (
    Cell,
    Records,
    Settings,
    best_settings,
    settings_name,
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


def feature_cells(strengths: Mapping[str, Sequence[Settings]], records: Records) -> list[Cell]:
    """The cells of a table: one imbalance factor after another, and there method by method.

    Args:
      strengths: of each variant, what tuning tries.
      records: so far, which say what tuning has chosen.
    """
    by_name = {record["cell"]: record for record in records}
    return [
        cell
        for factor in IMBALANCE_FACTORS
        for method in (*METHODS, *HEADS)
        for cell in _cells_of_method(by_name, method, factor, strengths)
    ]


def _cells_of_method(
    records: Mapping[str, Any],
    method: str,
    factor: float,
    strengths: Mapping[str, Sequence[Settings]],
) -> list[Cell]:
    """Tuning, and then the runs of the table, without SpA and with each variant; controls."""

    def cells(
        stage: str, spa_method: str, variant: str, settings: Settings | None, seeds: Sequence[int]
    ) -> list[Cell]:
        place = (stage, method, spa_method, factor)
        return [Cell(*place, seed, "label", variant, settings) for seed in seeds]

    def tuned(spa_method: str, choices: Sequence[Settings], base: Settings | None) -> Any:
        """The settings that tuning has chosen, None while it has not, and all runs of them."""
        runs = []
        for tried in choices:
            settings = _both(_both(base, tried), (("data.validation", True),))
            runs.append(cells("tune", spa_method, settings_name(tried), settings, TUNING_SEEDS))
        chosen = _both(base, best_settings(records, choices, runs))
        # One split after another, as each is loaded anew.
        tuning = [cell for of_seed in zip(*runs, strict=True) for cell in of_seed]
        return chosen, tuning + cells("final", spa_method, "tuned", chosen, SEEDS)

    base, found = tuned("none", BASE, ())
    chosen = {}
    for variant in VARIANTS if method in METHODS else ():
        chosen[variant], of_variant = tuned(variant, strengths[variant], base)
        found += of_variant
    if method == "cross_entropy":
        for decay in DECAYS:
            settings = _both(base, (("optimizer.weight_decay", decay),))
            found += cells("control", "none", f"decay={decay}", settings, SEEDS)
        random = _both(chosen["slerp"], (("spa.slerp.direction", "random"),))
        found += cells("control", "slerp", "random-directions", random, SEEDS)
    return found


def _both(first: Settings | None, second: Settings | None) -> Settings | None:
    return None if first is None or second is None else (*first, *second)


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

"""The tables: their configurations, and which runs they are made of."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reproduction.cells import (
    ABLATION,
    GAMMAS,
    IMBALANCE_FACTORS,
    RELEASED,
    TABLE_METHODS,
    VARIANTS,
    Cell,
    Settings,
    chosen_settings,
    tuning_cells,
    with_settings,
)
from spa_jax.training.config import Config

Records = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """A table of the reproduction.

    Attributes:
      config: `(cell)` -> the configuration of its run.
      cells: `(records so far)` -> all runs in the order of their worth.
    """

    config: Callable[[Cell], Config]
    cells: Callable[[Records], list[Cell]]


# Of 30 epochs; published is epoch 160 of 200.
_FASHION_METHOD_SETTINGS: Mapping[str, Settings] = {
    "ldam_drw": (("method.drw_epoch", 24),),
    "etf": (("augment.mix", "mixup"),),
}


def _fashion_config(cell: Cell) -> Config:
    argument = f"class_order={cell.class_order},imbalance_factor={cell.imbalance_factor:g}"
    config = _config_file("fashion_mnist_lt", argument)
    method = dataclasses.replace(cell, settings=_FASHION_METHOD_SETTINGS.get(cell.method, ()))
    return with_settings(with_settings(config, method), cell)


def _fashion_cells(records: Records) -> list[Cell]:
    order, base = "reversed", 100.0
    chosen = {
        method: chosen_settings(records, method, order, base)
        for method in ("cross_entropy", "glmc")
    }

    def tuned(method: str, spa_method: str, seed: int, **changes: Any) -> Cell:
        """A cell of the table; methods that are not tuned take what cross-entropy's tuning gave."""
        cell = Cell("final", method, spa_method, base, seed, order)
        if spa_method != "none":
            settings = chosen["glmc" if method == "glmc" else "cross_entropy"][spa_method]
            cell = dataclasses.replace(cell, variant="tuned", settings=settings)
        return dataclasses.replace(cell, **changes)

    first, many = range(3), range(8)
    cells = [tuned(method, "none", seed) for method in TABLE_METHODS for seed in first]
    others = ("post_hoc_logit_adjustment", "mixup", "etf")
    cells += [tuned(method, "none", seed) for method in others for seed in first]
    for method in chosen:
        cells += tuning_cells(method, order, base)
    cells += [
        tuned(method, spa_method, seed)
        for method in TABLE_METHODS
        for spa_method in VARIANTS[1:]
        for seed in first
    ]
    cells += [
        Cell("final", "glmc", spa_method, base, seed, order, "released", settings)
        for spa_method, settings in RELEASED.items()
        for seed in first
    ]
    cells += [
        tuned(method, spa_method, seed)
        for method in chosen
        for spa_method in VARIANTS
        for seed in many
    ]
    cells += [
        tuned(method, spa_method, seed, imbalance_factor=200.0)
        for method in chosen
        for spa_method in VARIANTS
        for seed in first
    ]
    cells += _ablations(tuned, first)
    cells += [
        tuned("cross_entropy", spa_method, seed, class_order="label")
        for spa_method in VARIANTS
        for seed in first
    ]
    return list(dict.fromkeys(cells))


def _ablations(tuned: Callable[..., Cell], seeds: Sequence[int]) -> list[Cell]:
    """What paper and released code differ in, and the studies of gamma and of imbalance."""
    cells = []
    for variant, settings in ABLATION.items():
        for seed in seeds:
            cell = tuned("glmc", "proj", seed, stage="ablation", variant=variant)
            both = None if cell.settings is None else (*cell.settings, *settings)
            cells.append(dataclasses.replace(cell, settings=both))
    cells += [
        tuned(
            "glmc",
            "none",
            seed,
            stage="ablation",
            variant="means-of-mixed",
            settings=ABLATION["means-of-mixed"],
        )
        for seed in seeds
    ]
    cells += [
        tuned(
            "glmc",
            "proj",
            seed,
            stage="ablation",
            variant=f"gamma={gamma}",
            settings=(("spa.gamma", gamma),),
        )
        for gamma in GAMMAS
        for seed in seeds
    ]
    cells += [
        tuned("glmc", spa_method, seed, imbalance_factor=factor)
        for factor in IMBALANCE_FACTORS
        for spa_method in ("none", "proj")
        for seed in seeds
    ]
    return cells


def _config_file(name: str, argument: str) -> Config:
    try:
        module = importlib.import_module(f"configs.{name}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"configs/{name}.py cannot be found ({error}): run this from the repository's root."
        ) from error
    return module.get_config(argument)


TABLES: Mapping[str, TablePlan] = MappingProxyType(
    {"fashion_mnist": TablePlan(_fashion_config, _fashion_cells)}
)
"""The tables by name."""

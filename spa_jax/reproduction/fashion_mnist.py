"""The table that a CPU can train: Fashion-MNIST-LT with its classes in reversed order."""

import dataclasses
from collections.abc import Mapping

from spa_jax.reproduction.cells import (
    ABLATION,
    GAMMAS,
    IMBALANCE_FACTORS,
    PLAIN_ABLATION,
    TABLE_METHODS,
    Cell,
    Settings,
    tuning_cells,
    with_settings,
)
from spa_jax.reproduction.plan import Records, TablePlan, TunedCells
from spa_jax.training.config import Config
from spa_jax.training.recipes import fashion_mnist_lt

_ORDER, _FACTOR = "reversed", 100.0
_FEW, _MANY = range(3), range(8)

# Of 30 epochs; published is epoch 160 of 200.
_METHOD_SETTINGS: Mapping[str, Settings] = {
    "ldam_drw": (("method.ldam_drw.epoch", 24),),
    "etf": (("augment.mix", "mixup"),),
}


def _config(cell: Cell) -> Config:
    config = fashion_mnist_lt(cell.imbalance_factor, cell.class_order)
    config.update_from_flattened_dict(dict(_METHOD_SETTINGS.get(cell.method, ())))
    return with_settings(config, cell)


def _cells(records: Records) -> list[Cell]:
    """Accuracy at imbalance factor 100 first, then what surrounds it."""
    tuned = TunedCells(records, _FACTOR, _ORDER)
    others = ("post_hoc_logit_adjustment", "mixup", "etf")
    cells = tuned.plain((*TABLE_METHODS, *others), _FEW)
    for method in tuned.tuned_on:
        cells += tuning_cells(method, _ORDER, _FACTOR)
    cells += tuned.variants(_FEW)
    cells += tuned.released(_FEW)
    cells += tuned.variants(_MANY, tuned.tuned_on)
    cells += tuned.variants(_FEW, tuned.tuned_on, imbalance_factor=200.0)
    cells += _ablations(tuned)
    for factor in IMBALANCE_FACTORS:
        cells += tuned.variants(_FEW, ("glmc",), ("none", "proj"), imbalance_factor=factor)
    cells += tuned.variants(_FEW, ("cross_entropy",), class_order="label")
    return list(dict.fromkeys(cells))


def _ablations(tuned: TunedCells) -> list[Cell]:
    """What paper and released code differ in, for GLMC with Proj, and the study of gamma."""
    cells = []
    for variant, settings in ABLATION.items():
        for cell in tuned.variants(_FEW, ("glmc",), ("proj",), stage="ablation", variant=variant):
            both = None if cell.settings is None else (*cell.settings, *settings)
            cells.append(dataclasses.replace(cell, settings=both))
    alone = [("none", name, ABLATION[name]) for name in PLAIN_ABLATION]
    alone += [("proj", f"gamma={gamma}", (("spa.proj.gamma", gamma),)) for gamma in GAMMAS]
    for spa_method, variant, settings in alone:
        changes = {"stage": "ablation", "variant": variant, "settings": settings}
        cells += tuned.variants(_FEW, ("glmc",), (spa_method,), **changes)
    return cells


FASHION_MNIST = TablePlan(_config, _cells)
"""Fashion-MNIST-LT."""

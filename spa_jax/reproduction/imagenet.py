"""The table of ImageNet-LT: the published recipes, with and without SpA."""

import dataclasses
from collections.abc import Mapping

from spa_jax.reproduction.cells import CLEAN_FORWARD, RELEASED, Cell, Settings, with_settings
from spa_jax.reproduction.plan import Published, Records, TablePlan
from spa_jax.training.config import Config
from spa_jax.training.recipes import imagenet_lt

_SEEDS = range(3)
_METHODS = ("glmc", "cross_entropy", "arb", "balanced_softmax", "ldam_drw")
# 1280 images in the largest class, 5 in the smallest.
_FACTOR = 256.0

# Reg's published weight is unknown: it has this code's default.
_STRENGTHS: Mapping[str, tuple[str, Settings]] = {
    "none": ("", ()),
    "proj": ("released", RELEASED["proj"]),
    "slerp": ("released", RELEASED["slerp"]),
    "reg": ("default", ()),
}

_PUBLISHED = {
    "final-glmc-none-if256-label": Published(
        56.3, "GLMC's code: ResNeXt-50, 135 epochs, best epoch"
    ),
    "final-cross_entropy-none-if256-label": Published(
        44.4, "Kang et al.: ResNeXt-50, 90 epochs, their own recipe"
    ),
}


def _config(cell: Cell) -> Config:
    config = imagenet_lt(135 if cell.method == "glmc" else 90)
    if cell.method == "ldam_drw":
        config.method.ldam_drw.epoch = 70
    if cell.network:
        config.model.name = cell.network
    return with_settings(config, cell)


def _cells(records: Records) -> list[Cell]:
    """Every method on ResNeXt-50, then ARB and GLMC on ResNet-50."""
    del records
    rows = [(method, "") for method in _METHODS]
    rows += [(method, "resnet50") for method in ("arb", "glmc")]
    cells = []
    for seed in _SEEDS:
        for method, network in rows:
            base = Cell("final", method, "none", _FACTOR, seed, "label", network=network)
            if method == "glmc":
                cells.append(dataclasses.replace(base, **CLEAN_FORWARD))
            for spa_method, (variant, settings) in _STRENGTHS.items():
                changes = {"spa_method": spa_method, "variant": variant, "settings": settings}
                cells.append(dataclasses.replace(base, **changes))
    return cells


IMAGENET = TablePlan(_config, _cells, _PUBLISHED)
"""ImageNet-LT."""

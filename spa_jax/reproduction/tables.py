"""The tables by name, and the runs of each in the order of their worth.

Fashion-MNIST-LT with its classes in reversed order is what a CPU can train; CIFAR-10-LT and
CIFAR-100-LT are 200 epochs of ResNet-32 and ImageNet-LT the published recipes, for accelerators.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reproduction import feature_tables
from spa_jax.reproduction.cells import (
    Cell,
    Records,
    Settings,
    TablePlan,
    best_settings,
    settings_name,
    with_settings,
)
from spa_jax.training.config import Config, default_config
from spa_jax.training.recipes import cifar10_lt, cifar100_lt, fashion_mnist_lt, imagenet_lt

TUNING: Mapping[str, Sequence[Settings]] = {
    "reg": [(("spa.reg.weight", weight),) for weight in (0.03, 0.1, 0.3, 1.0)],
    "slerp": [
        (("spa.slerp.alpha_max", alpha_max), ("spa.slerp.threshold", threshold))
        for alpha_max, threshold in ((0.002, 0.95), (0.02, 0.95), (0.2, 0.9), (0.2, 0.85))
    ],
    "proj": [(("spa.proj.gamma", gamma),) for gamma in (0.0, 0.3, 0.6, 0.9)],
}
"""Strengths that tuning tries for each variant, at most four."""

_FEATURE_TUNING = {**TUNING, "reg": [*TUNING["reg"], (("spa.reg.weight", 3.0),)]}

RELEASED: Mapping[str, Settings] = {
    "slerp": (("spa.slerp.alpha_max", 0.002), ("spa.slerp.threshold", 0.95), ("spa.center", False)),
    "proj": (("spa.proj.gamma", 0.6), ("spa.proj.radial", "scale")),
}
"""The settings of the released code, as far as they are known: none for Reg."""

ABLATION: Mapping[str, Settings] = {
    "radial-scale": (("spa.proj.radial", "scale"),),
    "head-fc_cb": (("spa.classifier", "fc_cb/kernel"),),
    "head-both": (("spa.classifier", "fc/kernel,fc_cb/kernel"),),
    "uncentred": (("spa.center", False),),
    "means-of-mixed": (("spa.means_from", "training"),),
    "released-schedule": (
        ("optimizer.schedule", "spa_released"),
        ("optimizer.warmup_epochs", 0.0),
    ),
}
"""In what the paper's text and the released code differ, one at a time, for GLMC with Proj."""

PLAIN_ABLATION = ("means-of-mixed", "released-schedule")
"""Those that change GLMC without SpA as well."""

CLEAN_FORWARD: Mapping[str, Any] = {
    "variant": "clean-forward",
    "settings": (("spa.means_from", "auto"),),
}
"""GLMC with the forward of unmixed images that SpA's class means need: what its variants add to."""

GAMMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
IMBALANCE_FACTORS = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
TABLE_VARIANTS = ("none", "reg", "slerp", "proj")
TABLE_METHODS = ("cross_entropy", "glmc", "arb", "ldam_drw", "balanced_softmax")

_SEEDS, _MANY_SEEDS = range(3), range(8)

# Of Fashion-MNIST-LT's 30 epochs; published is epoch 160 of 200.
_METHOD_SETTINGS: Mapping[str, Settings] = {
    "ldam_drw": (("method.ldam_drw.epoch", 24),),
    "etf": (("augment.mix", "mixup"),),
}

# Reg's published weight is unknown: it has this code's default.
_IMAGENET_STRENGTHS: Mapping[str, tuple[str, Settings]] = {
    "none": ("", ()),
    "proj": ("released", RELEASED["proj"]),
    "slerp": ("released", RELEASED["slerp"]),
    "reg": ("default", ()),
}

# GLMC published its settings for these; what it did elsewhere is known from SpA's code alone.
_GLMC_FACTORS = (10.0, 50.0, 100.0)


def tuning_cells(method: str, class_order: str, imbalance_factor: float) -> Iterator[Cell]:
    """The tuning runs of a method: one seed, a part of the training set held out."""
    for spa_method, choices in TUNING.items():
        for settings in choices:
            name, all_settings = settings_name(settings), (*settings, ("data.validation", True))
            place = (method, spa_method, imbalance_factor, 0, class_order)
            yield Cell("tune", *place, name, all_settings)


def chosen_settings(
    records: Records, method: str, class_order: str, imbalance_factor: float
) -> dict[str, Settings | None]:
    """For each variant the strengths of highest validation accuracy; None while a run is missing.

    See :func:`spa_jax.reproduction.cells.best_settings`.
    """
    by_name = {record["cell"]: record for record in records}
    cells = [*tuning_cells(method, class_order, imbalance_factor)]
    return {
        variant: best_settings(
            by_name, choices, ([cell] for cell in cells if cell.spa_method == variant)
        )
        for variant, choices in TUNING.items()
    }


def tuned_as(method: str) -> str:
    """The method whose tuning a method's strengths come from."""
    return "glmc" if method == "glmc" else "cross_entropy"


def _waits_for(cell: Cell, tuning: Cell) -> bool:
    return (tuned_as(cell.method), cell.spa_method) == (tuning.method, tuning.spa_method)


class TunedCells:
    """Makes cells whose strengths are those that tuning chose, on cross-entropy and on GLMC.

    Attributes:
      tuned_on: the methods that are tuned; the others take what cross-entropy's tuning chose.
    """

    tuned_on = ("cross_entropy", "glmc")

    def __init__(self, records: Records, imbalance_factor: float, class_order: str) -> None:
        """Reads from the records what was chosen at this imbalance factor and class order."""
        self._factor, self._order = imbalance_factor, class_order
        self._chosen = {
            method: chosen_settings(records, method, class_order, imbalance_factor)
            for method in self.tuned_on
        }

    def variants(
        self,
        seeds: Sequence[int],
        methods: Sequence[str] = TABLE_METHODS,
        spa_methods: Sequence[str] = TABLE_VARIANTS,
        **changes: Any,
    ) -> list[Cell]:
        """Final runs of methods without SpA and with each variant; changes are of other fields."""
        cells = []
        for method, spa_method, seed in itertools.product(methods, spa_methods, seeds):
            cell = Cell("final", method, spa_method, self._factor, seed, self._order)
            if spa_method != "none":
                settings = self._chosen[tuned_as(method)][spa_method]
                cell = dataclasses.replace(cell, variant="tuned", settings=settings)
            cells.append(dataclasses.replace(cell, **changes))
        return cells

    def tuning(self) -> list[Cell]:
        """The runs that choose the strengths."""
        runs = (tuning_cells(method, self._order, self._factor) for method in self.tuned_on)
        return [*itertools.chain.from_iterable(runs)]

    def plain(self, methods: Sequence[str], seeds: Sequence[int], **changes: Any) -> list[Cell]:
        """Methods without SpA."""
        return self.variants(seeds, methods, ("none",), **changes)

    def released(self, seeds: Sequence[int], **changes: Any) -> list[Cell]:
        """GLMC with the settings of SpA's released code."""
        cells = []
        for variant, settings in RELEASED.items():
            own = {"variant": "released", "settings": settings, **changes}
            cells += self.variants(seeds, ("glmc",), (variant,), **own)
        return cells


def _fashion_mnist_config(cell: Cell) -> Config:
    config = fashion_mnist_lt(cell.imbalance_factor, cell.class_order)
    config.update_from_flattened_dict(dict(_METHOD_SETTINGS.get(cell.method, ())))
    return with_settings(config, cell)


def _fashion_mnist_cells(records: Records) -> list[Cell]:
    """Accuracy at imbalance factor 100 first, then what surrounds it."""
    tuned = TunedCells(records, 100.0, "reversed")
    others = ("post_hoc_logit_adjustment", "mixup", "etf")
    cells = tuned.plain((*TABLE_METHODS, *others), _SEEDS)
    cells += tuned.tuning()
    cells += tuned.variants(_SEEDS)
    cells += tuned.released(_SEEDS)
    cells += tuned.variants(_MANY_SEEDS, tuned.tuned_on)
    cells += tuned.variants(_SEEDS, tuned.tuned_on, imbalance_factor=200.0)
    cells += _ablations(tuned)
    for factor in IMBALANCE_FACTORS:
        cells += tuned.variants(_SEEDS, ("glmc",), ("none", "proj"), imbalance_factor=factor)
    cells += tuned.variants(_SEEDS, ("cross_entropy",), class_order="label")
    return list(dict.fromkeys(cells))


def _ablations(tuned: TunedCells) -> list[Cell]:
    """What paper and released code differ in, for GLMC with Proj, and the study of gamma."""
    cells = []
    for variant, settings in ABLATION.items():
        for cell in tuned.variants(_SEEDS, ("glmc",), ("proj",), stage="ablation", variant=variant):
            both = None if cell.settings is None else (*cell.settings, *settings)
            cells.append(dataclasses.replace(cell, settings=both))
    alone = [("none", name, ABLATION[name]) for name in PLAIN_ABLATION]
    alone += [("proj", f"gamma={gamma}", (("spa.proj.gamma", gamma),)) for gamma in GAMMAS]
    for spa_method, variant, settings in alone:
        changes = {"stage": "ablation", "variant": variant, "settings": settings}
        cells += tuned.variants(_SEEDS, ("glmc",), (spa_method,), **changes)
    return cells


def _cifar_config(make_config: Callable[[float, str], Config], cell: Cell) -> Config:
    """GLMC trains with its own recipe where it published one, else with SpA's, the rest alike."""
    recipe = "standard"
    if cell.method == "glmc":
        recipe = "glmc" if cell.imbalance_factor in _GLMC_FACTORS else "spa"
    config = make_config(cell.imbalance_factor, recipe)
    # SpA's recipe brings the strengths of its code, which only the cells "released" train with.
    config.spa.proj.update(default_config().spa.proj)
    return with_settings(config, cell)


def _cifar_cells(
    method: str, spa_method: str, variant: str, settings: Settings, records: Records
) -> list[Cell]:
    """The paper's own pair, the figures that check the code against the field's, then the rest."""
    tuned = TunedCells(records, 100.0, "label")
    at_200: dict[str, Any] = {"imbalance_factor": 200.0}
    pair = {"variant": variant, "settings": settings, **at_200}
    cells = tuned.plain((method,), _SEEDS, **at_200)
    cells += tuned.variants(_SEEDS, (method,), (spa_method,), **pair)
    cells.sort(key=lambda cell: cell.seed)
    cells += tuned.plain(("cross_entropy", "balanced_softmax", "ldam_drw", "glmc", "arb"), _SEEDS)
    cells += tuned.tuning()
    cells += tuned.plain(("glmc",), _SEEDS, **CLEAN_FORWARD)
    cells += tuned.variants(_SEEDS)
    cells += tuned.released(_SEEDS)
    cells += tuned.variants(_SEEDS, tuned.tuned_on, **at_200)
    cells += tuned.released(_SEEDS, **at_200)
    for factor in (50.0, 10.0):
        cells += tuned.plain(TABLE_METHODS, _SEEDS, imbalance_factor=factor)
        cells += tuned.plain(("glmc",), _SEEDS, imbalance_factor=factor, **CLEAN_FORWARD)
        cells += tuned.variants(_SEEDS, tuned.tuned_on, imbalance_factor=factor)
    for factor in (200.0, 50.0, 10.0):
        cells += tuned.variants(_SEEDS, imbalance_factor=factor)
    return list(dict.fromkeys(cells))


def _imagenet_config(cell: Cell) -> Config:
    config = imagenet_lt(135 if cell.method == "glmc" else 90)
    if cell.method == "ldam_drw":
        config.method.ldam_drw.epoch = 70
    if cell.network:
        config.model.name = cell.network
    return with_settings(config, cell)


def _imagenet_cells(records: Records) -> list[Cell]:
    """Every method on ResNeXt-50, then ARB and GLMC on ResNet-50."""
    del records
    methods = ("glmc", "cross_entropy", "arb", "balanced_softmax", "ldam_drw")
    rows = [(method, "") for method in methods]
    rows += [(method, "resnet50") for method in ("arb", "glmc")]
    cells = []
    for seed in _SEEDS:
        for method, network in rows:
            # 1280 images in the largest class, 5 in the smallest.
            base = Cell("final", method, "none", 256.0, seed, "label", network=network)
            if method == "glmc":
                cells.append(dataclasses.replace(base, **CLEAN_FORWARD))
            for spa_method, (variant, settings) in _IMAGENET_STRENGTHS.items():
                changes = {"spa_method": spa_method, "variant": variant, "settings": settings}
                cells.append(dataclasses.replace(base, **changes))
    return cells


TABLES = {
    "fashion_mnist": TablePlan(_fashion_mnist_config, _fashion_mnist_cells, _waits_for),
    "cifar10": TablePlan(
        functools.partial(_cifar_config, cifar10_lt),
        # First comes the pair of the paper's table.
        functools.partial(_cifar_cells, "glmc", "proj", "released", RELEASED["proj"]),
        _waits_for,
    ),
    "cifar100": TablePlan(
        functools.partial(_cifar_config, cifar100_lt),
        # First comes the pair of the paper's figure 4; Reg's published weight is unknown.
        functools.partial(_cifar_cells, "cross_entropy", "reg", "default", ()),
        _waits_for,
    ),
    "imagenet": TablePlan(_imagenet_config, _imagenet_cells, _waits_for),
    # One by name for each bank, as each has records of its own.
    **{
        name: TablePlan(
            feature_tables.feature_config,
            functools.partial(feature_tables.feature_cells, _FEATURE_TUNING),
            feature_tables.waits_for,
            brief=True,
        )
        for name in ("features_cifar100", "features_cifar10")
    },
}
"""What `python -m spa_jax.reproduce` takes."""


def find_table(table: str) -> TablePlan:
    """The plan of a table by name; InputError if there is none."""
    if table not in TABLES:
        raise InputError(f"There is no table {table!r}; there are {', '.join(TABLES)}.")
    return TABLES[table]

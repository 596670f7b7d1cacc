"""What a table is: its runs, each named by what sets it apart, and what tuning chose for them."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spa_jax.training.config import Config

Settings = tuple[tuple[str, Any], ...]
Records = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
      stage: "tune" (on a validation part), "final" or "ablation".
      method: value of `config.method.name`.
      spa_method: value of `config.spa.method`.
      imbalance_factor: of the training set.
      seed: of the run.
      class_order: value of `config.data.class_order`.
      variant: what sets it apart besides, "" for the table's own settings, "tuned" where strengths
        are those that tuning chose, "released" for those of the released code.
      settings: fields and values that differ from the table's configuration; None: they wait for
        tuning.
      network: "" for the table's own.
    """

    stage: str
    method: str
    spa_method: str
    imbalance_factor: float
    seed: int
    class_order: str
    variant: str = ""
    settings: Settings | None = ()
    network: str = ""

    @property
    def name(self) -> str:
        """Names the run's folder and its record."""
        return f"{self.group_name}-seed{self.seed}"

    @property
    def group_name(self) -> str:
        """Names the runs that differ from it in nothing but the seed."""
        parts = [
            self.stage,
            self.method,
            self.spa_method,
            self.variant,
            f"if{self.imbalance_factor:g}",
            self.class_order,
            self.network,
        ]
        return "-".join(part for part in parts if part)

    @property
    def group(self) -> "Cell":
        """The cell without its seed: runs that are averaged."""
        return dataclasses.replace(self, seed=-1)


TUNING: Mapping[str, Sequence[Settings]] = {
    "reg": [(("spa.reg.weight", weight),) for weight in (0.03, 0.1, 0.3, 1.0)],
    "slerp": [
        (("spa.slerp.alpha_max", alpha_max), ("spa.slerp.threshold", threshold))
        for alpha_max, threshold in ((0.002, 0.95), (0.02, 0.95), (0.2, 0.9), (0.2, 0.85))
    ],
    "proj": [(("spa.proj.gamma", gamma),) for gamma in (0.0, 0.3, 0.6, 0.9)],
}
"""Strengths that tuning tries for each variant, at most four."""

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


def settings_name(settings: Settings) -> str:
    """Settings as a part of a file name: `weight=0.1`."""
    return ",".join(f"{field.rpartition('.')[2]}={value}" for field, value in settings)


def tuning_cells(method: str, class_order: str, imbalance_factor: float) -> Iterator[Cell]:
    """The tuning runs of a method: one seed, a part of the training set held out."""
    for spa_method, choices in TUNING.items():
        for settings in choices:
            yield Cell(
                "tune",
                method,
                spa_method,
                imbalance_factor,
                0,
                class_order,
                settings_name(settings),
                (*settings, ("data.validation", True)),
            )


def chosen_settings(
    records: Records, method: str, class_order: str, imbalance_factor: float
) -> dict[str, Settings | None]:
    """For each variant the strengths of highest validation accuracy; None while a run is missing.

    The accuracy is that of the last epoch, the mean over classes. Of equal ones the first is taken.
    """
    by_name = {record["cell"]: record for record in records}
    found: dict[str, list[Mapping[str, Any] | None]] = {variant: [] for variant in TUNING}
    for cell in tuning_cells(method, class_order, imbalance_factor):
        found[cell.spa_method].append(by_name.get(cell.name))
    return {
        variant: None if None in runs else TUNING[variant][_best(runs)]
        for variant, runs in found.items()
    }


def _best(runs: Sequence[Any]) -> int:
    """The place of the first with the highest validation accuracy; one that diverged is lowest."""
    summaries = [record["summary"] for record in runs]
    last = [s["validation_accuracy"]["last"] if s else float("-inf") for s in summaries]
    return last.index(max(last))


def with_settings(config: Config, cell: Cell) -> Config:
    """The table's configuration, changed to that of a cell."""
    fields = {
        "method.name": cell.method,
        "spa.method": cell.spa_method,
        "seed": cell.seed,
        # Recipes without a forward of unmixed images get it where SpA reads its class means.
        **({} if cell.spa_method == "none" else {"spa.means_from": "auto"}),
        **dict(cell.settings or ()),
    }
    config.update_from_flattened_dict(fields)
    return config


class Published(NamedTuple):
    """A published accuracy.

    Attributes:
      accuracy: in percent.
      protocol: whose run it is, on which split, network and epoch.
    """

    accuracy: float
    protocol: str


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """A table of the reproduction.

    Attributes:
      config: `(cell)` -> the configuration of its run.
      cells: `(records so far)` -> all runs in the order of their worth.
      published: by the name of a group of cells.
    """

    config: Callable[[Cell], Config]
    cells: Callable[[Records], list[Cell]]
    published: Mapping[str, Published] = dataclasses.field(default_factory=dict)


def tuned_as(method: str) -> str:
    """The method whose tuning a method's strengths come from."""
    return "glmc" if method == "glmc" else "cross_entropy"


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

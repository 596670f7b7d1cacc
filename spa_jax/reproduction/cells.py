"""The runs of a table, in the order of their worth; each is named by what sets it apart."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spa_jax.training.config import Config

Settings = tuple[tuple[str, Any], ...]


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
    records: Sequence[Mapping[str, Any]], method: str, class_order: str, imbalance_factor: float
) -> dict[str, Settings | None]:
    """For each variant the strengths of highest validation accuracy; None while a run is missing.

    The accuracy is that of the last epoch, the mean over classes. Of equal ones the first is taken.
    """
    by_name = {record["cell"]: record for record in records}
    cells = list(tuning_cells(method, class_order, imbalance_factor))
    chosen: dict[str, Settings | None] = {}
    for spa_method, choices in TUNING.items():
        found = [by_name.get(cell.name) for cell in cells if cell.spa_method == spa_method]
        accuracies = [_validation_accuracy(record) for record in found if record]
        complete = len(accuracies) == len(choices)
        chosen[spa_method] = choices[accuracies.index(max(accuracies))] if complete else None
    return chosen


def _validation_accuracy(record: Mapping[str, Any]) -> float:
    """Of the last epoch; that of a run that diverged is lower than any."""
    summary = record["summary"]
    return summary["validation_accuracy"]["last"] if summary else float("-inf")


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

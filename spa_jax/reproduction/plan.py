"""What a table is: its configurations, its runs, and published figures to hold them against."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spa_jax.reproduction.cells import (
    RELEASED,
    TABLE_METHODS,
    TABLE_VARIANTS,
    Cell,
    chosen_settings,
)
from spa_jax.training.config import Config

Records = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Published:
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

    def cell(self, method: str, spa_method: str, seed: int, **changes: Any) -> Cell:
        """A final run of a method with a variant; changes are those of other fields."""
        cell = Cell("final", method, spa_method, self._factor, seed, self._order)
        if spa_method != "none":
            settings = self._chosen[tuned_as(method)][spa_method]
            cell = dataclasses.replace(cell, variant="tuned", settings=settings)
        return dataclasses.replace(cell, **changes)

    def plain(self, methods: Sequence[str], seeds: Sequence[int], **changes: Any) -> list[Cell]:
        """Methods without SpA."""
        return self.variants(seeds, methods, ("none",), **changes)

    def variants(
        self,
        seeds: Sequence[int],
        methods: Sequence[str] = TABLE_METHODS,
        spa_methods: Sequence[str] = TABLE_VARIANTS,
        **changes: Any,
    ) -> list[Cell]:
        """Methods without SpA and with each of its variants."""
        return [
            self.cell(method, spa_method, seed, **changes)
            for method in methods
            for spa_method in spa_methods
            for seed in seeds
        ]

    def released(self, seeds: Sequence[int], **changes: Any) -> list[Cell]:
        """GLMC with the settings of SpA's released code."""
        return [
            self.cell("glmc", spa_method, seed, variant="released", settings=settings, **changes)
            for spa_method, settings in RELEASED.items()
            for seed in seeds
        ]

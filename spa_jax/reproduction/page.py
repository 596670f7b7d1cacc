"""The sections of the reproduction's page, each made from the records of one table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.claim import claim_sentences
from spa_jax.reproduction.plan import Records
from spa_jax.reproduction.results_tables import (
    dry_run_table,
    methods_table,
    origin,
    published_table,
    results_table,
    tuning_table,
)

Section = Callable[[Records], str]


def _of(
    stage: str, factors: tuple[float, ...], order: str, *methods: str
) -> Callable[[Cell], bool]:
    """Cells of a stage, imbalance factors, class order, and methods (none: any)."""

    def wanted(cell: Cell) -> bool:
        place = cell.stage == stage and cell.imbalance_factor in factors
        return place and cell.class_order == order and (not methods or cell.method in methods)

    return wanted


def _results(table: str, wanted: Callable[[Cell], bool]) -> Section:
    return lambda records: results_table(table, records, wanted)


def _tuning(table: str, order: str) -> Section:
    return lambda records: tuning_table(table, records, order, 100.0)


def _published(table: str) -> Section:
    return lambda records: published_table(table, records)


def _cifar(table: str) -> dict[str, Section]:
    return {
        f"{table}/origin": origin,
        f"{table}/published": _published(table),
        f"{table}/tuning": _tuning(table, "label"),
        f"{table}/if100": _results(table, _of("final", (100.0,), "label")),
        f"{table}/if200": _results(table, _of("final", (200.0,), "label")),
        f"{table}/others": _results(table, _of("final", (50.0, 10.0), "label")),
    }


_FASHION = "fashion_mnist"
_OTHERS = (10.0, 20.0, 50.0, 500.0)

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        f"{_FASHION}/origin": origin,
        f"{_FASHION}/methods": methods_table,
        f"{_FASHION}/claim": lambda records: claim_sentences(_FASHION, records, "reversed", 100.0),
        f"{_FASHION}/tuning": _tuning(_FASHION, "reversed"),
        f"{_FASHION}/if100": _results(_FASHION, _of("final", (100.0,), "reversed")),
        f"{_FASHION}/if200": _results(_FASHION, _of("final", (200.0,), "reversed")),
        f"{_FASHION}/ablation": _results(_FASHION, _of("ablation", (100.0,), "reversed")),
        f"{_FASHION}/imbalance": _results(_FASHION, _of("final", _OTHERS, "reversed", "glmc")),
        f"{_FASHION}/label": _results(_FASHION, _of("final", (100.0,), "label")),
        **_cifar("cifar10"),
        **_cifar("cifar100"),
        "imagenet/origin": origin,
        "imagenet/published": _published("imagenet"),
        "imagenet/results": _results("imagenet", _of("final", (256.0,), "label")),
        "imagenet_dry_run/cells": dry_run_table,
    }
)
"""By the file of records in `results/` and the section's name."""

"""The sections of the reproduction's page, each made from the records of one table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.plan import Records
from studies.reproduction.claim import ablation_sentences, changes_sentences, claim_sentences
from studies.reproduction.pairing import minus_tuned
from studies.reproduction.reproduction_figures import FIGURE_4, drawn_groups
from studies.reproduction.results_tables import (
    MINUS_NONE,
    dry_run_table,
    methods_table,
    origin,
    published_table,
    results_table,
    tuning_table,
)
from studies.reproduction.row_names import pair_name, variant_name

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


def _changes(table: str, wanted: Callable[[Cell], bool], name: Callable[[Cell], str]) -> Section:
    return lambda records: changes_sentences(table, records, wanted, name)


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


def _ablation(records: Records) -> str:
    compared = {**MINUS_NONE, "last, minus tuned": minus_tuned}
    return results_table(_FASHION, records, _of_ablation, compared)


def _figure_4(records: Records) -> str:
    """The figure where it can be drawn, else the command that trains what it shows."""
    if drawn_groups("cifar100", FIGURE_4, records) is not None:
        return "![Accuracy and held-out cosine over epochs](reproduction/figure_4.png)"
    names = " ".join(f"--only={name}" for name in FIGURE_4)
    return f"Not run: `python -m spa_jax.reproduce cifar100 {names}`"


def _factor_name(cell: Cell) -> str:
    return f"imbalance factor {cell.imbalance_factor:g}"


def _of_gamma(cell: Cell) -> bool:
    return cell.stage == "ablation" and cell.variant.startswith("gamma=")


def _of_ablation(cell: Cell) -> bool:
    return cell.stage == "ablation" and not _of_gamma(cell)


def _of_imbalance(cell: Cell) -> bool:
    """GLMC without SpA and with tuned Proj, at every imbalance factor."""
    own = cell.method == "glmc" and cell.stage == "final" and cell.class_order == "reversed"
    return own and (cell.spa_method, cell.variant) in (("none", ""), ("proj", "tuned"))


_FASHION = "fashion_mnist"
_IF200 = _of("final", (200.0,), "reversed")
_LABEL = _of("final", (100.0,), "label")

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        f"{_FASHION}/origin": origin,
        f"{_FASHION}/methods": methods_table,
        f"{_FASHION}/claim": lambda records: claim_sentences(_FASHION, records, "reversed", 100.0),
        f"{_FASHION}/tuning": _tuning(_FASHION, "reversed"),
        f"{_FASHION}/if100": _results(_FASHION, _of("final", (100.0,), "reversed")),
        f"{_FASHION}/if200": _results(_FASHION, _IF200),
        f"{_FASHION}/if200_changes": _changes(_FASHION, _IF200, pair_name),
        f"{_FASHION}/imbalance": _results(_FASHION, _of_imbalance),
        f"{_FASHION}/imbalance_changes": _changes(_FASHION, _of_imbalance, _factor_name),
        f"{_FASHION}/ablation": _ablation,
        f"{_FASHION}/ablation_changes": lambda records: ablation_sentences(
            _FASHION, records, _of_ablation, variant_name
        ),
        f"{_FASHION}/gamma": _results(_FASHION, _of_gamma),
        f"{_FASHION}/gamma_changes": _changes(_FASHION, _of_gamma, variant_name),
        f"{_FASHION}/label": _results(_FASHION, _LABEL),
        f"{_FASHION}/label_changes": _changes(_FASHION, _LABEL, pair_name),
        **_cifar("cifar10"),
        **_cifar("cifar100"),
        "cifar100/figure_4": _figure_4,
        "imagenet/origin": origin,
        "imagenet/published": _published("imagenet"),
        "imagenet/results": _results("imagenet", _of("final", (256.0,), "label")),
        "imagenet_dry_run/cells": dry_run_table,
    }
)
"""By the file of records in `results/` and the section's name."""

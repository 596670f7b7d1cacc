"""The sections of the reproduction's page, each made from the records of one table."""

from collections.abc import Callable, Mapping
from functools import partial

from spa_jax.reproduction.cells import Cell
from studies.reproduction import claim
from studies.reproduction import results_tables as tables
from studies.reproduction.feature_sections import feature_sections
from studies.reproduction.pairing import (
    TableRuns,
    Wanted,
    having,
    minus_tuned,
    pair_name,
    variant_name,
)
from studies.reproduction.reproduction_figures import FIGURE_4, drawn_groups

Section = Callable[[TableRuns], str]

_FASHION = "fashion_mnist"


def _final(order: str, *factors: float) -> Wanted:
    """Final runs of a class order and of imbalance factors."""
    return having(stage="final", class_order=order, imbalance_factor=factors)


def _cifar(table: str) -> dict[str, Section]:
    factors = {"if100": (100.0,), "if200": (200.0,), "others": (50.0, 10.0)}
    return {
        f"{table}/origin": tables.origin,
        f"{table}/published": tables.published_table,
        f"{table}/tuning": partial(tables.tuning_table, "label", 100.0),
        **{
            f"{table}/{name}": partial(tables.results_table, _final("label", *some))
            for name, some in factors.items()
        },
    }


def _fashion(name: str, wanted: Wanted, row_name: Callable[[Cell], str]) -> dict[str, Section]:
    """A table, and sentences on what SpA changes in its rows, by the name of a row."""
    return {
        f"{_FASHION}/{name}": partial(tables.results_table, wanted),
        f"{_FASHION}/{name}_changes": partial(claim.changes_sentences, wanted, row_name),
    }


def _ablation(runs: TableRuns) -> str:
    compared = {**tables.MINUS_NONE, "last, minus tuned": minus_tuned}
    return tables.results_table(_of_ablation, runs, compared)


def _figure_4(runs: TableRuns) -> str:
    """The figure where it can be drawn, else the command that trains what it shows."""
    if drawn_groups(FIGURE_4, runs) is not None:
        return "![Accuracy and held-out cosine over epochs](reproduction/figure_4.png)"
    names = " ".join(f"--only={name}" for name in FIGURE_4)
    return f"Not run: `python -m spa_jax.reproduce cifar100 {names}`"


def _factor_name(cell: Cell) -> str:
    return f"imbalance factor {cell.imbalance_factor:g}"


def of_gamma(cell: Cell) -> bool:
    """GLMC with Proj over gamma."""
    return cell.stage == "ablation" and cell.variant.startswith("gamma=")


def _of_ablation(cell: Cell) -> bool:
    return cell.stage == "ablation" and not of_gamma(cell)


def of_imbalance(cell: Cell) -> bool:
    """GLMC without SpA and with tuned Proj, at every imbalance factor."""
    own = (cell.method, cell.stage, cell.class_order) == ("glmc", "final", "reversed")
    return own and (cell.spa_method, cell.variant) in (("none", ""), ("proj", "tuned"))


SECTIONS: Mapping[str, Section] = {
    f"{_FASHION}/origin": tables.origin,
    f"{_FASHION}/methods": tables.methods_table,
    f"{_FASHION}/claim": partial(claim.claim_sentences, "reversed", 100.0),
    f"{_FASHION}/tuning": partial(tables.tuning_table, "reversed", 100.0),
    f"{_FASHION}/if100": partial(tables.results_table, _final("reversed", 100.0)),
    **_fashion("if200", _final("reversed", 200.0), pair_name),
    **_fashion("imbalance", of_imbalance, _factor_name),
    f"{_FASHION}/ablation": _ablation,
    f"{_FASHION}/ablation_changes": partial(claim.ablation_sentences, _of_ablation, variant_name),
    **_fashion("gamma", of_gamma, variant_name),
    **_fashion("label", _final("label", 100.0), pair_name),
    **_cifar("cifar10"),
    **_cifar("cifar100"),
    "cifar100/figure_4": _figure_4,
    **{
        f"{table}/{name}": make
        for table in ("features_cifar10", "features_cifar100")
        for name, make in {"origin": tables.origin, **feature_sections()}.items()
    },
    "imagenet/origin": tables.origin,
    "imagenet/published": tables.published_table,
    "imagenet/results": partial(tables.results_table, _final("label", 256.0)),
    "imagenet_dry_run/cells": lambda runs: tables.dry_run_table(runs.records),
}
"""By the file of records in `results/` and the section's name."""

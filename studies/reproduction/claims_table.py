"""What of the paper holds here: claims, where each was tested, and what the records say."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spa_jax.reporting.table_text import markdown_rows, number_text
from spa_jax.reproduction.feature_tables import IMBALANCE_FACTORS
from spa_jax.reproduction.feature_tables import METHODS as ON_FEATURES
from spa_jax.reproduction.tables import TABLE_METHODS
from studies.reproduction import pairing
from studies.reproduction.pairing import TableRuns, Wanted, having
from studies.reproduction.sections import of_gamma, of_imbalance

_POINTS = 0.005  # the paper claims 0.5 to 2.6 points


@dataclasses.dataclass(frozen=True)
class Place:
    """Pairs of a method with and without SpA that a claim can be tested on.

    Attributes:
      name: for a reader.
      table: of the reproduction.
      wanted: which of its rows with SpA.
    """

    name: str
    table: str
    wanted: Wanted


_TUNED: Any = {"stage": "final", "variant": "tuned"}
PLACES = (
    Place(
        "Fashion-MNIST-LT, IF 100: five methods, three variants",
        "fashion_mnist",
        having(**_TUNED, method=TABLE_METHODS, imbalance_factor=100.0, class_order="reversed"),
    ),
    *(
        Place(
            f"frozen features of {name}, IF 10 to 200: five methods, three variants",
            table,
            having(**_TUNED, method=(*ON_FEATURES,), imbalance_factor=IMBALANCE_FACTORS),
        )
        for table, name in (
            ("features_cifar10", "CIFAR-10-LT"),
            ("features_cifar100", "CIFAR-100-LT"),
        )
    ),
)
_OWN = (
    Place(
        "CIFAR-10-LT, IF 200, GLMC with Proj, as published (83.4 to 84.2)",
        "cifar10",
        having(group_name="final-glmc-proj-released-if200-label"),
    ),
    Place(
        "CIFAR-100-LT, IF 200, cross-entropy with Reg, as in Figure 4",
        "cifar100",
        having(group_name="final-cross_entropy-reg-default-if200-label"),
    ),
    Place(
        "ImageNet-LT, all methods and variants",
        "imagenet",
        lambda cell: cell.stage == "final" and cell.spa_method != "none",
    ),
)
CLAIMS: Sequence[tuple[str, str, float, Sequence[Place]]] = (
    ("SpA raises the alignment of weights and held-out class means", pairing.COSINE, 0.0, PLACES),
    ("SpA adds 0.5 points of accuracy or more", "last", _POINTS, (*PLACES, *_OWN)),
    ("SpA raises few-shot accuracy", "few", 0.0, PLACES),
    (
        "Proj helps GLMC whatever gamma is, from 0.1 to 0.9",
        "last",
        0.0,
        (Place("Fashion-MNIST-LT, IF 100", "fashion_mnist", of_gamma),),
    ),
    (
        "Proj helps GLMC at imbalance factors from 10 to 500",
        "last",
        0.0,
        (Place("Fashion-MNIST-LT", "fashion_mnist", of_imbalance),),
    ),
)
"""A claim, the column that it is about, what it claims at least, and where it can be tested."""


def claims_table(runs_of: Callable[[str], TableRuns]) -> str:
    """A row for each claim and place.

    A pair of a method with a variant holds where the 95% interval of its paired change lies wholly
    at or above what is claimed (above zero where no size is claimed), does not where it lies wholly
    below that, and is not told apart otherwise.

    Args:
      runs_of: name of a table -> its runs.
    """
    verdicts = ("holds", "does not", "not told apart")
    rows = [["claim", "tested on", "pairs", "seeds", "change", *verdicts]]
    for claim, column, least, places in CLAIMS:
        for place in places:
            rows.append([claim, place.name, *_tested(runs_of(place.table), place, column, least)])
    return markdown_rows(rows, text=(0, 1))


def _tested(runs: TableRuns, place: Place, column: str, least: float) -> list[str]:
    groups = runs.where(lambda cell: cell.spa_method != "none" and place.wanted(cell))
    found = [*runs.changes(lambda cell: cell in groups).values()]
    if not found:
        return [f"0 of {len(groups)}", *[""] * 2, *["not run"] * 3]
    mean, half = pairing.intervals(found, column)
    seeds = sorted({change.pairs for change in found})
    holds = (mean - half >= least) & (mean - half > 0)
    fails = (mean + half < least) | (mean + half <= 0)
    in_percent = column != pairing.COSINE
    ends = [number_text(end, in_percent, sign="+") for end in (mean.min(), mean.max())]
    counts = [int(np.sum(part)) for part in (holds, fails, ~holds & ~fails)]
    return [
        f"{len(found)} of {len(groups)}",
        " to ".join(dict.fromkeys(map(str, (seeds[0], seeds[-1])))),
        " to ".join(dict.fromkeys(ends)),
        *map(str, counts),
    ]

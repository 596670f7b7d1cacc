"""What methods, variants and networks are called in the tables, figures and sentences."""

from types import MappingProxyType

from spa_jax.reproduction.cells import Cell

NAMES = MappingProxyType(
    {
        "cross_entropy": "cross-entropy",
        "glmc": "GLMC",
        "arb": "ARB",
        "ldam_drw": "LDAM-DRW",
        "balanced_softmax": "balanced softmax",
        "post_hoc_logit_adjustment": "post-hoc logit adjustment",
        "mixup": "mixup",
        "etf": "fixed ETF",
        "none": "none",
        "reg": "Reg",
        "slerp": "SLERP",
        "proj": "Proj",
    }
)
"""By the value of `config.method.name` or `config.spa.method`."""

_NETWORKS = MappingProxyType({"resnet50": "ResNet-50"})


def method_name(cell: Cell) -> str:
    """Of a cell's method, with its network where that is not the table's own."""
    name = NAMES[cell.method]
    return f"{name}, {_NETWORKS[cell.network]}" if cell.network else name


def spa_name(cell: Cell) -> str:
    """Of a cell's SpA method, without the variant."""
    return NAMES[cell.spa_method]


def variant_name(cell: Cell) -> str:
    """Of a cell's SpA method with the variant: `Proj (tuned)`."""
    return spa_name(cell) + (f" ({cell.variant})" if cell.variant else "")


def pair_name(cell: Cell) -> str:
    """Of a cell's method with its SpA method."""
    return f"{method_name(cell)} with {spa_name(cell)}"

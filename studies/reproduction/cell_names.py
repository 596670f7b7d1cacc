"""What runs are called in the tables, figures and sentences of the reproduction."""

from spa_jax.reproduction.cells import Cell
from studies.names import name_of


def method_name(cell: Cell) -> str:
    """Of a cell's method, with its network where that is not the table's own."""
    return ", ".join(name_of(part) for part in (cell.method, cell.network) if part)


def variant_name(cell: Cell) -> str:
    """Of a cell's SpA method with the variant: `Proj (tuned)`."""
    return name_of(cell.spa_method) + (f" ({cell.variant})" if cell.variant else "")


def pair_name(cell: Cell) -> str:
    """Of a cell's method with its SpA method."""
    return f"{method_name(cell)} with {name_of(cell.spa_method)}"

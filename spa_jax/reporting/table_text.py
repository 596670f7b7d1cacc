"""Cells and Markdown tables as text, the same wherever the package prints or writes a table.

Accuracies are in percent with one decimal, cosines and the like as they are with three.
"""

from collections.abc import Callable, Container, Mapping, Sequence

from spa_jax.reporting.statistics import IN_PERCENT

Value = Mapping[str, float | None]
"""A column of :mod:`spa_jax.reporting.statistics`: `mean`, with `std` or `half_width`."""


def number_text(
    number: float, in_percent: bool = False, digits: int | None = None, sign: str = ""
) -> str:
    """A number as in a cell.

    Args:
      number: a share if it is to be in percent.
      in_percent: multiply by 100.
      digits: decimals; None: one in percent, else three.
      sign: "+" writes it before numbers above 0 too.

    Example:
      >>> number_text(0.1234, in_percent=True), number_text(0.1234, sign="+")
      ('12.3', '+0.123')
    """
    if digits is None:
        digits = 1 if in_percent else 3
    scale = 100 if in_percent else 1
    return f"{scale * number:{sign}.{digits}f}"


def spread_text(value: Value, in_percent: bool = False, digits: int | None = None) -> str:
    """`mean ± std`, or `mean ± half_width`, signed, of a difference.

    A dash where there is no mean; the mean alone where there is no deviation or interval.

    Example:
      >>> spread_text({"mean": 0.5, "std": 0.25}, in_percent=True)
      '50.0 ± 25.0'
      >>> spread_text({"mean": 0.5, "std": None}), spread_text({"mean": None, "std": None})
      ('0.500', '-')
      >>> spread_text({"mean": 0.5, "half_width": 0.25}, digits=1)
      '+0.5 ± 0.2'
    """
    mean, spread = value["mean"], value.get("std", value.get("half_width"))
    if mean is None:
        return "-"
    text = number_text(mean, in_percent, digits, sign="+" if "half_width" in value else "")
    return text if spread is None else f"{text} ± {number_text(spread, in_percent, digits)}"


def interval_text(value: Value, in_percent: bool = False) -> str:
    """`mean [low, high]`, of a :func:`spa_jax.reporting.statistics.paired_differences`, signed.

    A dash where there is no mean; the mean alone where there is no interval.

    Example:
      >>> interval_text({"mean": 0.5, "half_width": 0.75})
      '+0.500 [-0.250, +1.250]'
    """
    mean, half_width = value["mean"], value["half_width"]
    if mean is None or half_width is None:
        return spread_text(value, in_percent)
    ends = (mean, mean - half_width, mean + half_width)
    return "{} [{}, {}]".format(*(number_text(end, in_percent, sign="+") for end in ends))


def cells_of(
    columns: Mapping[str, Value],
    text: Callable[[Value, bool], str] = spread_text,
    in_percent: Container[str] = IN_PERCENT,
) -> dict[str, str]:
    """The columns of :mod:`spa_jax.reporting.statistics` as cells.

    Args:
      columns: what it gives.
      text: how a cell is written.
      in_percent: the columns that are in percent.

    Example:
      >>> cells_of({"lowest cosine": {"mean": 0.5, "std": None}})
      {'lowest cosine': '0.500'}
    """
    return {name: text(value, name in in_percent) for name, value in columns.items()}


def markdown_rows(rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """Cells as a Markdown table without a newline at its end.

    Args:
      rows: of cells, the header first.
      text: the columns that hold words, by index, and stand to the left; numbers to the right.

    Example:
      >>> print(markdown_rows([["method", "accuracy"], ["none", "50.0"]]))
      | method | accuracy |
      | --- | ---: |
      | none | 50.0 |
    """
    header, *body = rows
    rule = ["---" if column in text else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))

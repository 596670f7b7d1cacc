"""What the figures share: styles that stay apart in black and white, panels, saving as PNG and SVG.

A figure of a report is 7 inches wide, the text width of a page, with one size of type.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from spa_jax.reporting.statistics import mean_and_spread

Item = TypeVar("Item")

WIDTH = 7.0
"""Inches."""

COLOURS = colormaps["cividis"].with_extremes(bad="white")
"""Of the cells of a matrix."""

# One colour (Okabe and Ito, safe for colour-blind readers) and one dash pattern a curve.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")

_LOOK: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
LOOSE_RC: Any = _LOOK | {"font.size": 9}
"""For figures of a width of their own, which stand in no report."""

RC: Any = _LOOK | {
    "font.size": 8,
    "axes.titlesize": "medium",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.5,
    # The same figure is the same file, whenever and wherever it is drawn.
    "svg.hashsalt": "spa_jax",
    "svg.fonttype": "path",
}
"""For the figures of a report."""


@dataclass(frozen=True)
class Drawing:
    """A figure of a report; its words are in `words.html.j2`.

    Attributes:
      name: of its files, without an ending.
      figure: the figure.
      facts: what its title, its caption or its alternative text states, by name.
    """

    name: str
    figure: Figure
    facts: Mapping[str, Any]


def line_style(index: int) -> dict[str, Any]:
    """Colour and dash pattern of the curve with this index; they repeat after six."""
    return {"color": _COLOURS[index % 6], "linestyle": _DASHES[index % 6]}


def marker_of(index: int) -> str:
    """Its marker; colour, dashes and marker together repeat after 36."""
    return _MARKERS[(index + index // 6) % 6]


def curve_style(index: int, **look: Any) -> dict[str, Any]:
    """Line and marker of the curve with this index; `look` is of `Axes.plot` and comes on top."""
    return {**line_style(index), "linewidth": 1.1, "marker": marker_of(index), **look}


def plain_text(text: str) -> str:
    """Text that matplotlib shows as it is; a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """A panel's title in lines that fit over it."""
    return plain_text("\n".join(textwrap.wrap(text, width)) or text)


def file_name(*parts: str) -> str:
    """A file's name from parts that may hold any characters."""
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_")


def in_parts(name: str, items: Sequence[Item], most: int) -> Iterator[tuple[str, Sequence[Item]]]:
    """What one figure can hold at a time, and the names of the figures: `name`, `name_2`, ..."""
    for number, start in enumerate(range(0, len(items), most), start=1):
        yield name if number == 1 else f"{name}_{number}", items[start : start + most]


def panels(
    rows: int, columns: int, height: float, width: float | None = None, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of panels.

    Args:
      rows: of the grid.
      columns: of the grid.
      height: of a panel in inches.
      width: of the figure in inches; None: that of a page, or half of it for one column.
      options: of `Figure.subplots`.
    """
    size = (width or WIDTH / (2 if columns == 1 else 1), rows * height)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def grid(
    titles: Sequence[str], x_label: str, y_label: str, height: float | None = None
) -> tuple[Figure, list[Axes]]:
    """A panel with shared axes for each title, four or fewer in a row.

    Args:
      titles: of the panels.
      x_label: of those with nothing below them.
      y_label: of those with nothing to their left.
      height: of a panel in inches; None: it is square.

    Returns:
      The figure, and its panels in the order of their titles.
    """
    count = len(titles)
    columns = min(count, 4 if count == 4 or count > 6 else 3)
    texts = [wrapped(title, 30 if columns < 4 else 24) for title in titles]
    # Long titles get room of their own, or they would take it from the panels.
    room = 0.14 * max(text.count("\n") for text in texts)
    rows, inches = math.ceil(count / columns), height or WIDTH / max(columns, 2) + 0.7
    figure, axes = panels(rows, columns, inches + room, sharex=True, sharey=True)
    for unused in axes.flat[count:]:
        unused.remove()
    for place, (text, panel) in enumerate(zip(texts, axes.flat, strict=False)):
        panel.set_title(text, loc="left")
        panel.set_box_aspect(None if height else 1)
        if place + columns >= count:
            panel.tick_params(labelbottom=True)  # the panel below it may be one of those removed
            panel.set_xlabel(x_label)
        if place % columns == 0:
            panel.set_ylabel(y_label)
    return figure, figure.axes


def draw_band_curve(
    axes: Axes,
    x: Sequence[float],
    values: Iterable[Float[np.ndarray, " R"]],
    style: Mapping[str, Any],
    label: str = "",
    logarithmic: bool = False,
) -> None:
    """Draws the mean over runs, and shades one sample standard deviation to each side.

    Args:
      axes: where.
      x: `(T,)`.
      values: of the runs at each x, such as the columns of an array with a row a run; NaN leaves a
        gap.
      style: of the line, `color` among it.
      label: for the legend.
      logarithmic: take mean and deviation of the logarithm.
    """
    if logarithmic:
        values = (np.log(np.where(at > 0, at, np.nan)) for at in values)
    mean, spread = np.transpose([mean_and_spread(at) for at in values])
    curves = np.stack([mean, mean - spread, mean + spread])
    if logarithmic:
        curves = np.exp(curves)
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, (1.0, 2.0, 5.0), 12)
    axes.plot(x, curves[0], label=plain_text(label), **style)
    if not np.isnan(curves[1]).all():
        axes.fill_between(x, *curves[1:], color=style["color"], alpha=0.12, linewidth=0)


def draw_matrix(axes: Axes, cells: Float[np.ndarray, "B B"], norm: Normalize, size: int) -> None:
    """Draws a matrix of classes, white where there is no value; cells may stand for several.

    Args:
      axes: where.
      cells: the matrix.
      norm: of the values, for the colours of :data:`COLOURS`.
      size: number of classes.
    """
    ends = (0.5, size + 0.5)
    extent: Any = (*ends, *ends[::-1])
    axes.imshow(cells, COLOURS, norm, extent=extent, interpolation="nearest")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=2))


def colour_bar(figure: Figure, axes: Any, norm: Normalize, label: str, **look: Any) -> Axes:
    """A bar that says what the colours of matrices mean; returns its panel.

    Args:
      figure: gets it.
      axes: the panels with the matrices.
      norm: of their values.
      label: what they are.
      look: of `Figure.colorbar`.
    """
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, label=label, aspect=40, **look)
    bar.outline.set_linewidth(0.6)  # type: ignore[operator]
    return bar.ax


def plain_ticks(axis: Axis, subs: Sequence[float], most: int | None = None) -> None:
    """Plain numbers on a logarithmic axis, at these multiples of the powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs, numticks=most))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def epoch_axis(axes: Axes, most: int = 5) -> None:
    """Whole epochs on the horizontal axis, with so many steps at most."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=most, steps=[1, 2, 5, 10]))


def legend_below(figure: Figure, handle_length: float = 3) -> None:
    """One legend of what any panel shows, each label once, outside the data.

    Args:
      figure: gets it, with areas after lines and points, in as many columns as fit.
      handle_length: of a sample in letters, 3 for lines, 1 for points.
    """
    shown: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    labels = sorted(shown, key=lambda label: isinstance(shown[label], Patch))
    # A letter of 8 points is about 0.065 inches wide; line and gap take about half an inch.
    columns = int(figure.get_figwidth() / (0.065 * max(map(len, labels)) + 0.55))
    figure.legend(
        [shown[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=max(1, min(columns, len(labels))),
        handlelength=handle_length,
    )


def save(drawing: Drawing, folder: Path) -> tuple[Path, Path]:
    """Writes a figure as PNG (300 dots an inch) and as SVG.

    Args:
      drawing: what to write.
      folder: gets `<name>.png` and `<name>.svg`; it exists.

    Returns:
      Their paths.
    """
    figure = drawing.figure
    png, svg = folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"
    with matplotlib.rc_context(RC):
        figure.set_dpi(300)
        # Laid out once for both; `savefig` would lay out, and draw, twice for each.
        ConstrainedLayoutEngine().execute(figure)
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure).print_png(png)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png, svg

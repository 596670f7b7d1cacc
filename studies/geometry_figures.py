"""The figures of docs/explanation/: what variants of SpA do to a weight, drawn by themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import spa_jax
from spa_jax.reporting.figures.style import LOOSE_RC

_BLACK, _BLUE, _ORANGE, _GREEN, _GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "0.6"
_MEAN = 70.0
"""Degrees of the class mean; the weight lies at 0."""


def _at(degrees: float, length: float = 1.0) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return length * np.array([np.cos(angle), np.sin(angle)])


def _with_row(row: np.ndarray) -> tuple[Mapping[str, Any], jnp.ndarray]:
    """Params whose first class has this weight, and class means that are not centred."""
    kernel = jnp.asarray(np.stack([row, [0.0, -1.0]]).T, jnp.float32)
    return {"head": {"kernel": kernel}}, jnp.asarray(np.stack([_at(_MEAN), [0.0, -1.0]]))


def step_without_harm(row: np.ndarray, gradient: np.ndarray, gamma: float) -> np.ndarray:
    """The descent step of one weight behind SpA-Proj."""
    params, means = _with_row(row)
    tx = optax.chain(spa_jax.spa_proj(gamma, center=False), optax.scale(-1.0))
    grads, _ = _with_row(gradient)
    updates: Any = tx.update(grads, tx.init(params), params, class_means=means)[0]
    return np.asarray(updates["head"]["kernel"][:, 0])


def turned_weight(row: np.ndarray, alpha: float) -> np.ndarray:
    """One weight behind SpA-SLERP."""
    params, means = _with_row(row)
    turned = spa_jax.spa_slerp(params, means, alpha, center=False)
    return np.asarray(turned["head"]["kernel"][:, 0])


def draw_variants() -> Figure:
    """A panel a variant: the term of Reg, the arc of SLERP, the step of Proj."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    reg, slerp, proj = figure.subplots(1, 3)
    _draw_reg(reg)
    _draw_slerp(slerp)
    _draw_proj(proj)
    return figure


def draw_centring() -> Figure:
    """Means with a common part before and after it is taken off."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    rng = np.random.default_rng(1)
    raw = np.stack([_at(angle, 0.8) for angle in (90, 210, 330)]) + np.array([2.2, 1.6])
    means = spa_jax.ClassMeans.create(num_classes=3, dim=2).update(
        np.repeat(raw, 40, 0).astype(np.float32)
        + 0.25 * rng.normal(size=(120, 2)).astype(np.float32),
        np.repeat(np.arange(3), 40),
    )
    for axes, center in zip(figure.subplots(1, 2), (False, True), strict=True):
        rows = np.asarray(means.directions(center=center))
        _plane(axes, "centred" if center else "as they are")
        for row, colour in zip(rows, (_BLUE, _ORANGE, _GREEN), strict=True):
            _arrow(axes, row, colour)
        cosines = rows @ rows.T
        low = cosines[np.triu_indices(3, 1)]
        axes.text(0, -1.4, f"cosines {low.min():.2f} to {low.max():.2f}", ha="center", fontsize=8)
    return figure


def _draw_reg(axes: Axes) -> None:
    degrees = np.linspace(0, 180, 181)
    params = [_with_row(_at(_MEAN + angle)) for angle in degrees]
    terms = [
        1 - float(spa_jax.class_cosines(tree, means, center=False)[0]) for tree, means in params
    ]
    axes.plot(degrees, terms, color=_BLUE)
    axes.set_title("SpA-Reg: a term of the loss", loc="left", fontsize=9)
    axes.set_xlabel("angle of weight and class mean, degrees")
    axes.set_ylabel("1 - cosine")
    axes.set_xticks([0, 60, 120, 180])


def _draw_slerp(axes: Axes) -> None:
    _plane(axes, "SpA-SLERP: a turn, the length stays")
    for alpha, colour in ((0.0, _BLACK), (0.3, _BLUE), (0.6, _BLUE)):
        row = turned_weight(_at(0.0), alpha)
        _arrow(axes, row, colour, "w" if alpha == 0 else rf"$\alpha={alpha}$")
    _arrow(axes, _at(_MEAN), _ORANGE, r"$\hat\mu$")


def _draw_proj(axes: Axes) -> None:
    _plane(axes, "SpA-Proj: the step without its harm")
    gradient = np.array([-0.35, 0.7])
    _arrow(axes, _at(0.0), _BLACK)
    axes.text(0.5, 0.06, "w", fontsize=8)
    _arrow(axes, _at(_MEAN), _ORANGE, r"$\hat\mu$")
    for gamma, colour in ((1.0, _GREY), (0.6, _BLUE), (0.0, _GREEN)):
        step = step_without_harm(_at(0.0), gradient, gamma)
        _arrow(axes, step, colour, rf"$\gamma={gamma:g}$", start=_at(0.0))


def _plane(axes: Axes, title: str) -> None:
    circle = np.stack([_at(angle) for angle in np.linspace(0, 360, 361)])
    axes.plot(*circle.T, color="0.85", linewidth=0.8)
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_aspect("equal")
    axes.set_xlim(-1.25, 1.75)
    axes.set_ylim(-1.5, 1.3)
    axes.axis("off")


def _arrow(
    axes: Axes, vector: np.ndarray, colour: str, label: str = "", start: np.ndarray | None = None
) -> None:
    origin: Any = np.zeros(2) if start is None else start
    end: Any = origin + vector
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, origin, arrowprops=style)
    away: Any = vector / max(np.linalg.norm(vector), 1e-9)
    axes.annotate(label, end, 7 * away, textcoords="offset points", color=colour, fontsize=8,
                  ha="left" if away[0] > -0.3 else "right", va="center")  # fmt: skip


FIGURES = {"variants": draw_variants, "means": draw_centring}
"""The figure of each page."""


def save_geometry_figure(folder: Path, name: str) -> None:
    """Draws a figure of :data:`FIGURES` as `folder/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(LOOSE_RC):
        # Without the version of matplotlib, so that the same drawing is the same file.
        FIGURES[name]().savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})

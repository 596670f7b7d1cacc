"""Figures of alignment: over epochs, and by class size. Readable in black and white."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from spa_jax.reporting.figures import style
from spa_jax.reporting.figures.epochs import Lines, draw_curves

_PANELS = {
    "mean_cosine": "mean cosine, EMA class means",
    "test_mean_cosine": "mean cosine, held-out class means",
    "test_accuracy": "test accuracy",
}


def plot_alignment_over_epochs(runs: Mapping[str, Lines], path: Path) -> None:
    """Draws alignment and accuracy over epochs, one curve a name; a band shows several seeds.

    Args:
      runs: name -> runs -> lines of `metrics.jsonl`. The curve is the mean over the runs, the
        band one standard deviation to each side. One name alone gets no legend.
      path: the PNG to write.
    """
    with matplotlib.rc_context(style.LOOSE_RC | {"axes.titlesize": 9}):
        figure, ((cosine, held_out, accuracy),) = style.panels(1, 3, 3.2, width=10)
        held_out.sharey(cosine)  # the two cosines are there to be compared
        for axes, (field, title) in zip((cosine, held_out, accuracy), _PANELS.items(), strict=True):
            draw_curves(axes, runs, (field,), title)
        if len(runs) > 1:
            style.legend_below(figure)
        figure.savefig(path, dpi=160)


def plot_cosine_by_class_size(
    class_counts: Sequence[int],
    cosines: np.ndarray,
    test_cosines: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draws each class's cosine against its number of training images.

    Args:
      class_counts: training images of each class.
      cosines: `(C,)` against the EMA class means.
      test_cosines: `(C,)` against the class means of held-out features.
      class_names: one name a class; written next to the points for up to 20 classes.
      path: the PNG to write.
    """
    counts = np.asarray(class_counts)
    with matplotlib.rc_context(style.LOOSE_RC):
        figure, ((axes,),) = style.panels(1, 1, 3.6, width=5.2)
        axes.plot(counts, cosines, "o", color="#000000", label="EMA class means")
        axes.plot(
            counts, test_cosines, "^", color="#D55E00", fillstyle="none", label="held-out means"
        )
        if len(counts) <= 20:
            for x, y, name in zip(counts, np.fmin(cosines, test_cosines), class_names, strict=True):
                axes.annotate(
                    name, (x, y), (0, -11), textcoords="offset points", ha="center", fontsize=7
                )
        axes.set_xscale("log")
        style.plain_ticks(axes.xaxis, (1.0, 2.0, 5.0))
        axes.set(xlabel="training images of the class", ylabel="cosine of weight and class mean")
        axes.margins(x=0.12, y=0.15)
        axes.legend()
        figure.savefig(path, dpi=160)

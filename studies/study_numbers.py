"""What the studies in docs/studies/ measure; their pages say beforehand what would count as what.

Differences are paired by seed, and their intervals are Student's at 95%.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.stats import t as student_t

from spa_jax.errors import InputError
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import paired
from spa_jax.reporting.statistics import paired_differences, statistics
from studies.study_runs import BASELINE, Experiment, clean_training_cosines, curve

Values = Mapping[str, float | None]
Found = TypeVar("Found")

MEASURES = {
    "nc2_etf_means": "class means, to ETF",
    "nc2_equiangular_means": "class means, angles",
    "nc2_etf_weights": "weights, to ETF",
    "nc2_equiangular_weights": "weights, angles",
}
"""The measures of study `nc2_convergence` and what tables call them, the primary one first."""

# Weights start nearly orthogonal, with angles nearer to those of an ETF than they end with, so that
# the first epoch at which they are as near says nothing.
REACHED = ("nc2_etf_means", "nc2_equiangular_means")
"""Those of them that start high, for which the first epoch below a value says something."""

COLLAPSE = {
    "nc1_over_c": "NC1, tr(Σ_W Σ_B⁺)/C",
    "nc2_etf_means": "NC2, class means to ETF",
    "nc2_equiangular_means": "NC2, angles of class means",
    "nc3": "NC3, weights to class means",
    "not_nc4": "NC4, share of disagreement",
}
"""Those of `neural_collapse`; `not_nc4` is the share without agreement, 1 - NC4."""

GEOMETRY = ("nc1_over_c", "nc2_etf_means", "nc3")
"""Those of `architectures`, next to accuracy and the held-out cosine."""


def alignment_and_accuracy(experiment: Experiment) -> dict[str, Any]:
    """Final cosines and accuracies, and whether they go together over epochs and over seeds."""
    runs = _of_each_run(experiment, _final_values)
    columns = [name for name in runs[BASELINE][0] if not name.startswith("r_")]
    over_seeds = {
        method: _over_seeds(values, runs[BASELINE])
        for method, values in runs.items()
        if method != BASELINE
    }
    return _with_statistics(runs, _differences(runs, columns)) | {"over_seeds": over_seeds}


def nc2_convergence(experiment: Experiment) -> dict[str, Any]:
    """NC2 on training features against the baseline: where it ends, how it gets there, how soon."""
    runs = {
        method: [_nc2_values(*pair) for pair in paired(group.runs, experiment.baseline.runs)]
        for method, group in experiment.groups.items()
    }
    differences = _differences(runs)
    verdicts = {
        method: {name: verdict(**interval) for name, interval in columns.items()}
        for method, columns in differences.items()
    }
    return _with_statistics(runs, differences) | {"verdicts": verdicts}


def train_and_held_out(experiment: Experiment) -> dict[str, Any]:
    """Cosines against three kinds of class means, and the gap between them by class size."""
    if len(set(experiment.baseline.class_counts)) == 1:
        raise InputError(
            f"All classes in {experiment.folder} have {experiment.baseline.class_counts[0]} "
            "training images: this study needs rare classes, give runs on a long-tailed set."
        )
    runs = _of_each_run(experiment, _gap_values)
    gaps = [name for name in runs[BASELINE][0] if not name.startswith("cosine_")]
    nothing = dict.fromkeys(gaps, 0.0)
    intervals = {
        method: paired_differences([(run, nothing) for run in values], _columns(gaps))
        for method, values in runs.items()
    }
    classes = _of_each_run(experiment, _class_cosines)
    return {"classes": classes, **_with_statistics(runs, intervals, "intervals")}


def neural_collapse(experiment: Experiment) -> dict[str, Any]:
    """NC1 to NC4 after the first epoch, when training error first is zero, and at the end."""
    found = [_collapse_values(run) for run in experiment.baseline.runs]
    names = [f"{part}_{name}" for part in ("train", "test") for name in COLLAPSE]

    def at(moment: str, run: Values) -> Values:
        return {name: run[f"{moment}_{name}"] for name in names}

    pairs = [(at("last", run), at("zero", run)) for run in found]
    differences = paired_differences(pairs, _columns(names))
    return _with_statistics({BASELINE: found}, differences)


def architectures(experiment: Experiment) -> dict[str, Any]:
    """Accuracies, the cosine on held-out features, and NC1 to NC3 on training features, at the end.

    Baseline and SpA methods share a network; one folder of runs is one network on one data set.
    """
    runs = _of_each_run(experiment, _final_geometry)
    return {"network": experiment.network, **_with_statistics(runs, _differences(runs))}


def verdict(mean: float | None, half_width: float | None) -> str:
    """What a paired difference of a measure says that falls as the geometry converges.

    Example:
      >>> verdict(-0.3, 0.1), verdict(0.3, 0.1), verdict(-0.1, 0.3), verdict(None, None)
      ('helps', 'hinders', 'no difference shown', 'not measured')
    """
    if mean is None or half_width is None:
        return "not measured"
    if abs(mean) <= half_width:
        return "no difference shown"
    return "helps" if mean < 0 else "hinders"


def correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float | None:
    """Pearson's correlation; None below three points, with a NaN, or where one side is constant.

    Example:
      >>> correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), correlation([1.0, 1.0, 1.0], [1, 2, 3])
      (1.0, None)
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0 or np.isnan(x + y).any():
        return None
    return round(float(np.corrcoef(x, y)[0, 1]), 12)


def needed_correlation(n: int) -> float | None:
    r"""The correlation of n pairs that differs from 0 at the 5% level; None below three pairs.

    .. math:: r = t / \sqrt{n - 2 + t^2}, \quad t = t_{0.975, n - 2}

    Example:
      >>> round(needed_correlation(5), 3)
      0.878
    """
    if n < 3:
        return None
    t = float(student_t.ppf(0.975, n - 2))
    return t / (n - 2 + t * t) ** 0.5


def _final_values(run: Run) -> dict[str, float | None]:
    summary = run.summary
    cosine, accuracy = curve(run, "test_mean_cosine"), curve(run, "test_accuracy")
    return {
        "accuracy": summary["test_accuracy"]["last"],
        "few_shot_accuracy": summary["shot_groups"]["few"],
        "ema_cosine": summary["mean_cosine"],
        "held_out_cosine": summary["test_mean_cosine"],
        "r_epochs": correlation(cosine, accuracy),
        "r_changes": correlation(np.diff(cosine), np.diff(accuracy)),
    }


def _final_geometry(run: Run) -> dict[str, float | None]:
    final = _final_values(run)
    values = {name: final[name] for name in ("accuracy", "few_shot_accuracy", "held_out_cosine")}
    geometry = {name: _number(curve(run, f"collapse.train.{name}")[-1]) for name in GEOMETRY}
    return values | geometry


def _over_seeds(runs: Sequence[Values], baseline: Sequence[Values]) -> dict[str, Any]:
    """Whether seeds that gain more cosine gain more accuracy."""
    cosines, accuracies = (
        np.subtract(*(np.array([run[name] for run in part], float) for part in (runs, baseline)))
        for name in ("held_out_cosine", "accuracy")
    )
    r = correlation(cosines, accuracies)
    return {"n": len(runs), "r": r, "needed": needed_correlation(len(runs))}


def _nc2_values(run: Run, baseline: Run) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for name in MEASURES:
        found, target = (curve(one, f"collapse.train.{name}") for one in (run, baseline))
        values[f"{name}_last"] = _number(found[-1])
        values[f"{name}_mean"] = _number(found.mean())
        if name in REACHED:
            values[f"{name}_reached"] = _first_epoch(run, found <= target[-1])
    return values


def _class_cosines(run: Run) -> dict[str, list[float | None]]:
    """Of each class by what its weight is compared with; None where it has no direction."""
    return {
        "ema": run.summary["per_class_cosine"],
        "training": [_number(cosine) for cosine in clean_training_cosines(run)],
        "held_out": run.summary["per_class_test_cosine"],
    }


def _gap_values(run: Run) -> dict[str, float | None]:
    sides = {side: np.array(values, dtype=float) for side, values in _class_cosines(run).items()}
    values = {f"cosine_{side}": _number(cosines.mean()) for side, cosines in sides.items()}
    counts, shots = np.array(run.summary["class_counts"]), run.summary["shot_groups"]["classes"]
    for side in ("ema", "training"):
        gap = sides[side] - sides["held_out"]
        many, few = (gap[shots[name]].mean() if shots[name] else np.nan for name in ("many", "few"))
        slope = np.polyfit(np.log10(counts), gap, 1)[0] if np.isfinite(gap).all() else np.nan
        values |= {
            f"{side}_gap_many": _number(many),
            f"{side}_gap_few": _number(few),
            f"{side}_gap_few_minus_many": _number(few - many),
            f"{side}_gap_slope": _number(slope),
        }
    return values


def _collapse_values(run: Run) -> dict[str, float | None]:
    """At the first epoch, at the first of zero training error, and at the last."""
    zero = curve(run, "train_accuracy") == 1
    places = {"first": 0, "zero": int(zero.argmax()) if zero.any() else None, "last": -1}
    values = {
        "zero_epoch": _first_epoch(run, zero),
        "last_training_error": 1 - run.lines[-1]["train_accuracy"],
        "last_test_accuracy": run.lines[-1]["test_accuracy"],
    }
    for part in ("train", "test"):
        for name in COLLAPSE:
            found = curve(run, f"collapse.{part}.{name}")
            for moment, place in places.items():
                value = None if place is None else _number(found[place])
                values[f"{moment}_{part}_{name}"] = value
    return values


def _first_epoch(run: Run, holds: np.ndarray) -> float | None:
    """The first epoch at which something holds, `(T,)` bool; None if it never does."""
    return float(run.lines[int(holds.argmax())]["epoch"]) if holds.any() else None


def _of_each_run(experiment: Experiment, measure: Callable[[Run], Found]) -> dict[str, list[Found]]:
    return {
        method: [measure(run) for run in group.runs] for method, group in experiment.groups.items()
    }


def _with_statistics(
    runs: Mapping[str, Sequence[Values]], differences: Mapping[str, Any], name: str = "differences"
) -> dict[str, Any]:
    """Values of each run by method, their statistics, and what they are compared with."""
    found = {method: statistics(values, _columns(values[0])) for method, values in runs.items()}
    return {"runs": runs, "statistics": found, name: differences}


def _differences(
    runs: Mapping[str, Sequence[Values]], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Of each method to the baseline, whose seeds are the same in the same order."""
    return {
        method: paired_differences(
            list(zip(values, runs[BASELINE], strict=True)), _columns(names or values[0])
        )
        for method, values in runs.items()
        if method != BASELINE
    }


def _columns(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None

"""What the studies in docs/studies/ measure; their pages say beforehand what would count as what.

Differences are paired by seed, and their intervals are Student's at 95%.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from spa_jax.errors import InputError
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.statistics import paired_differences, statistics
from studies.study_runs import BASELINE, Experiment, clean_training_cosines, curve, pairs

Values = Mapping[str, float | None]
Interval = Mapping[str, float | None]

MEASURES = (
    "nc2_etf_means",
    "nc2_equiangular_means",
    "nc2_etf_weights",
    "nc2_equiangular_weights",
)
"""The measures of study `nc2_convergence`, the primary one first."""

# Weights start nearly orthogonal, with angles nearer to those of an ETF than they end with, so that
# the first epoch at which they are as near says nothing.
REACHED = MEASURES[:2]
"""Those of them that start high, for which the first epoch below a value says something."""

COLLAPSE = ("nc1_over_c", "nc2_etf_means", "nc2_equiangular_means", "nc3", "not_nc4")
"""The measures of study `neural_collapse`; `not_nc4` is the share without agreement, 1 - NC4."""

GEOMETRY = ("nc1_over_c", "nc2_etf_means", "nc3")
"""The measures of study `architectures`, next to accuracy and the held-out cosine."""

SIDES = ("ema", "training", "held_out")
"""Class means that weights are compared with in study `train_and_held_out`."""


def alignment_and_accuracy(experiment: Experiment) -> dict[str, Any]:
    """Final cosines and accuracies, and whether they go together over epochs and over seeds."""
    by_method = {
        method: [_final_values(run) for run in group.runs]
        for method, group in experiment.groups.items()
    }
    columns = [name for name in by_method[BASELINE][0] if not name.startswith("r_")]
    return {
        "runs": by_method,
        "statistics": {method: _statistics(values) for method, values in by_method.items()},
        "differences": _differences(by_method, columns),
        "over_seeds": {
            method: _over_seeds(values, by_method[BASELINE])
            for method, values in by_method.items()
            if method != BASELINE
        },
    }


def nc2_convergence(experiment: Experiment) -> dict[str, Any]:
    """NC2 on training features against the baseline: where it ends, how it gets there, how soon."""
    result: dict[str, Any] = {"runs": {}, "statistics": {}, "differences": {}}
    for method in experiment.groups:
        found = [_nc2_values(run, base) for run, base in pairs(experiment, method)]
        result["runs"][method] = found
        result["statistics"][method] = _statistics(found)
    result["differences"] = _differences(result["runs"], list(result["runs"][BASELINE][0]))
    result["verdicts"] = {
        method: {name: verdict(**interval) for name, interval in columns.items()}
        for method, columns in result["differences"].items()
    }
    return result


def train_and_held_out(experiment: Experiment) -> dict[str, Any]:
    """Cosines against three kinds of class means, and the gap between them by class size."""
    if len(set(experiment.baseline.class_counts)) == 1:
        raise InputError(
            f"All classes in {experiment.folder} have {experiment.baseline.class_counts[0]} "
            "training images: this study needs rare classes, give runs on a long-tailed set."
        )
    result: dict[str, Any] = {"classes": {}, "runs": {}, "statistics": {}, "intervals": {}}
    for method, group in experiment.groups.items():
        cosines = [_class_cosines(run) for run in group.runs]
        found = [_gap_values(run, sides) for run, sides in zip(group.runs, cosines, strict=True)]
        result["classes"][method] = [
            {side: _numbers(values) for side, values in sides.items()} for sides in cosines
        ]
        result["runs"][method] = found
        result["statistics"][method] = _statistics(found)
        nothing = [dict.fromkeys(values, 0.0) for values in found]
        gaps = [name for name in found[0] if not name.startswith("cosine_")]
        result["intervals"][method] = paired_differences(found, nothing, _columns(gaps))
    return result


def neural_collapse(experiment: Experiment) -> dict[str, Any]:
    """NC1 to NC4 after the first epoch, when training error first is zero, and at the end."""
    found = [_collapse_values(run) for run in experiment.baseline.runs]
    names = [f"{part}_{name}" for part in ("train", "test") for name in COLLAPSE]
    later = [{name: values[f"last_{name}"] for name in names} for values in found]
    earlier = [{name: values[f"zero_{name}"] for name in names} for values in found]
    return {
        "runs": {BASELINE: found},
        "statistics": {BASELINE: _statistics(found)},
        "differences": paired_differences(later, earlier, _columns(names)),
    }


def architectures(experiment: Experiment) -> dict[str, Any]:
    """Accuracies, the cosine on held-out features, and NC1 to NC3 on training features, at the end.

    Baseline and SpA methods share a network; one folder of runs is one network on one data set.
    """
    by_method = {
        method: [_final_geometry(run) for run in group.runs]
        for method, group in experiment.groups.items()
    }
    return {
        "network": experiment.network,
        "runs": by_method,
        "statistics": {method: _statistics(values) for method, values in by_method.items()},
        "differences": _differences(by_method, list(by_method[BASELINE][0])),
    }


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
    cosine, accuracy = curve(run, ("test_mean_cosine",)), curve(run, ("test_accuracy",))
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
    geometry = {name: _number(collapse_curve(run, "train", name)[-1]) for name in GEOMETRY}
    return values | geometry


def _over_seeds(runs: Sequence[Values], baseline: Sequence[Values]) -> dict[str, Any]:
    """Whether seeds that gain more cosine gain more accuracy."""
    cosines, accuracies = (
        [np.array([values[name] for values in part], dtype=float) for part in (runs, baseline)]
        for name in ("held_out_cosine", "accuracy")
    )
    r = correlation(cosines[0] - cosines[1], accuracies[0] - accuracies[1])
    return {"n": len(runs), "r": r, "needed": needed_correlation(len(runs))}


def _nc2_values(run: Run, baseline: Run) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for name in MEASURES:
        path = ("collapse", "train", name)
        found, target = curve(run, path), curve(baseline, path)[-1]
        values[f"{name}_last"] = _number(found[-1])
        values[f"{name}_mean"] = _number(found.mean())
        if name in REACHED:
            there = np.flatnonzero(found <= target)
            values[f"{name}_reached"] = float(run.lines[there[0]]["epoch"]) if there.size else None
    return values


def _class_cosines(run: Run) -> dict[str, np.ndarray]:
    recorded = (run.summary["per_class_cosine"], run.summary["per_class_test_cosine"])
    ema, held_out = (np.array(values, dtype=float) for values in recorded)
    return {"ema": ema, "training": clean_training_cosines(run), "held_out": held_out}


def _gap_values(run: Run, sides: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    values = {f"cosine_{side}": _number(sides[side].mean()) for side in SIDES}
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
    zero = np.flatnonzero(curve(run, ("train_accuracy",)) == 1)
    places = {"first": 0, "zero": int(zero[0]) if zero.size else None, "last": len(run.lines) - 1}
    values: dict[str, float | None] = {
        "zero_epoch": float(run.lines[zero[0]]["epoch"]) if zero.size else None,
        "last_training_error": 1 - run.lines[-1]["train_accuracy"],
        "last_test_accuracy": run.lines[-1]["test_accuracy"],
    }
    for part in ("train", "test"):
        for name in COLLAPSE:
            found = collapse_curve(run, part, name)
            for moment, place in places.items():
                value = None if place is None else _number(found[place])
                values[f"{moment}_{part}_{name}"] = value
    return values


def collapse_curve(run: Run, part: str, name: str) -> np.ndarray:
    """A measure of :data:`COLLAPSE` over epochs, on `train` or `test` features."""
    if name == "not_nc4":
        return 1 - curve(run, ("collapse", part, "nc4"))
    return curve(run, ("collapse", part, name))


def _statistics(runs: Sequence[Values]) -> dict[str, Interval]:
    return dict(statistics(runs, _columns(runs[0])))


def _differences(by_method: Mapping[str, Sequence[Values]], names: Sequence[str]) -> dict[str, Any]:
    """Of each method to the baseline, whose seeds are the same in the same order."""
    return {
        method: paired_differences(values, by_method[BASELINE], _columns(names))
        for method, values in by_method.items()
        if method != BASELINE
    }


def _columns(names: Any) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]

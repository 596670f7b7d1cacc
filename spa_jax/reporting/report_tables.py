"""The tables of a report: accuracy, alignment, paired differences, classes and runs, as text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import Group, baseline_of, paired, why_not_paired
from spa_jax.reporting.statistics import IN_PERCENT, Columns, paired_differences, statistics
from spa_jax.reporting.table_text import Value, mean_text, number_text

_ACCURACY: Columns = {
    "last": ("test_accuracy", "last"),
    "best": ("test_accuracy", "best"),
    "many-shot": ("shot_groups", "many"),
    "medium-shot": ("shot_groups", "medium"),
    "few-shot": ("shot_groups", "few"),
}
_ALIGNMENT: Columns = {
    "mean, EMA means": ("mean_cosine",),
    "lowest, EMA means": ("min_cosine",),
    "mean, held-out means": ("test_mean_cosine",),
    "lowest, held-out means": ("test_min_cosine",),
}
_DIFFERENCES: Columns = {
    "test accuracy": ("test_accuracy", "last"),
    "few-shot accuracy": ("shot_groups", "few"),
    "mean cosine": ("mean_cosine",),
    "held-out cosine": ("test_mean_cosine",),
}
_IN_PERCENT = IN_PERCENT | _ACCURACY.keys()
_MOST_CLASSES = 20
NOT_RECORDED = "command not recorded"
_MINUS = "\u2212"
_DASH = "\u2013"
_FIXED = "\u00a0"  # a space that does not end a line
_SECONDS = f"{_FIXED}s"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      title: the heading on the page.
      caption: what the cells are.
      header: of each column.
      rows: of cells, as many as the header has; the first names the row.
      as_code: the columns that hold what one types, by index.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    as_code: tuple[int, ...] = ()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether a column holds numbers, which stand to the right."""
        columns = zip(*self.rows, strict=True)
        return tuple(all(map(_is_numeric, column)) for column in columns)


def accuracy_table(groups: Sequence[Group]) -> Table:
    """Test accuracy of each group, over all classes and by shot group: mean ± std over seeds."""
    summaries = [summary for group in groups for summary in group.summaries]
    rules = {summary.get("shot_groups", {}).get("rule") for summary in summaries} - {None}
    shots = f" Many-, medium- and few-shot classes: {'; '.join(sorted(rules))}." if rules else ""
    return _statistics_table(
        "Test accuracy",
        "Percent, mean ± sample standard deviation over seeds. "
        f"Best: the epoch was chosen on the test images, so it flatters.{shots}",
        groups,
        _ACCURACY,
    )


def alignment_table(groups: Sequence[Group]) -> Table:
    """Cosines of weights and class means of each group."""
    return _statistics_table(
        "Alignment",
        "Cosine of classifier weights and class means after the last epoch, mean ± sample standard "
        "deviation over seeds. The methods steer by the moving averages (EMA) of training "
        "features; only the held-out means are evidence.",
        groups,
        _ALIGNMENT,
    )


def differences_table(groups: Sequence[Group]) -> Table | None:
    """Differences to the baseline over shared seeds; None if there is one group only."""
    rows = []
    for group in groups:
        baseline = baseline_of(group, groups)
        if baseline is None:
            continue
        pairs = paired(group.summaries, baseline.summaries)
        found = paired_differences(
            [run for run, _ in pairs], [base for _, base in pairs], _DIFFERENCES
        )
        cells = [_interval(column, **values) for column, values in found.items()]
        why = why_not_paired(group, baseline)
        count = f"{len(pairs)} ({why})" if why else f"{len(pairs)}"
        rows.append((group.label, baseline.label, count, *cells))
    if not rows:
        return None
    return Table(
        "Paired differences",
        "Mean over pairs of runs with the same seed on the same split, with its 95% confidence "
        "interval (Student's t) in brackets; one that holds 0 shows no difference. Accuracies in "
        "percentage points. The intervals are not corrected for their number.",
        ("configuration", "minus", "pairs", *_DIFFERENCES),
        tuple(rows),
    )


def classes_table(groups: Sequence[Group]) -> Table | None:
    """Training images and accuracy of each class; None if there are too many to list."""
    summaries = [summary for group in groups for summary in group.summaries]
    names, counts = summaries[0]["class_names"], summaries[0]["class_counts"]
    same = all((s["class_names"], s["class_counts"]) == (names, counts) for s in summaries)
    if len(counts) > _MOST_CLASSES or not same:
        return None
    columns = [_class_accuracies(group) for group in groups]
    order = np.argsort(-np.asarray(counts), kind="stable")
    rows = tuple(
        (str(names[c]), str(counts[c]), *(column[c] for column in columns)) for c in order.tolist()
    )
    return Table(
        "Classes",
        "Test accuracy of each class in percent, mean over seeds; the class with most training "
        "images first.",
        ("class", "training images", *(group.label for group in groups)),
        rows,
    )


def runs_table(groups: Sequence[Group]) -> Table:
    """Every run: its folder, its command, what it reached."""

    def row(run: Run, label: str) -> tuple[str, ...]:
        summary, seconds = run.summary, run.summary.get("wall_time_seconds")
        return (
            str(run.folder),
            label,
            str(summary["seed"]),
            _percent(summary["test_accuracy"].get("last")),
            summary["split_checksum"][:8],
            _DASH if seconds is None else f"{seconds:,.0f}{_SECONDS}",
            str(summary.get("command") or NOT_RECORDED),
        )

    return Table(
        "Runs",
        "Every run of this report; test accuracy after the last epoch in percent, the start of "
        "the checksum of the training split, training time.",
        ("folder", "configuration", "seed", "accuracy", "split", "time", "command"),
        tuple(row(run, group.label) for group in groups for run in group.runs),
        as_code=(0, 4, 6),
    )


TABLES = (accuracy_table, alignment_table, differences_table, classes_table, runs_table)
"""In their order on the page; each takes all groups, and may be None."""


def mark_of(group: Group, groups: Sequence[Group]) -> str:
    """A dagger for a group that was trained on another split than the first group."""
    splits, first = (
        {summary["split_checksum"] for summary in part.summaries} for part in (group, groups[0])
    )
    return "" if splits <= first else " †"


def _statistics_table(title: str, caption: str, groups: Sequence[Group], columns: Columns) -> Table:
    rows = []
    for group in groups:
        found = statistics(group.summaries, columns)
        cells = (_mean_and_std(column, value) for column, value in found.items())
        rows.append((group.label + mark_of(group, groups), str(len(group.runs)), *cells))
    return Table(title, caption, ("configuration", "seeds", *columns), tuple(rows))


def _mean_and_std(column: str, value: Value) -> str:
    if value["mean"] is None:
        return _DASH
    return _typeset(mean_text(value, column in _IN_PERCENT)).replace(" ", _FIXED)


def _interval(column: str, mean: float | None, half_width: float | None) -> str:
    if mean is None:
        return _DASH
    values = [mean] if half_width is None else [mean, mean - half_width, mean + half_width]
    texts = [_typeset(number_text(value, column in _IN_PERCENT, sign="+")) for value in values]
    return texts[0] if half_width is None else f"{texts[0]} [{texts[1]},{_FIXED}{texts[2]}]"


def _is_numeric(text: str) -> bool:
    return not any(character.isalpha() for character in text) or text.endswith(_SECONDS)


def _typeset(text: str) -> str:
    return text.replace("-", _MINUS)


def _percent(value: float | None) -> str:
    return _DASH if value is None else number_text(value, in_percent=True)


def _class_accuracies(group: Group) -> list[str]:
    recorded = [summary.get("per_class_accuracy") for summary in group.summaries]
    if not all(recorded):
        return [_DASH] * group.runs[0].num_classes
    means = np.array(recorded, dtype=float).mean(axis=0)
    return [_DASH if np.isnan(mean) else _percent(mean) for mean in means.tolist()]

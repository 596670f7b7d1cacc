"""The tables of a report: accuracy, alignment, paired differences, classes and runs, as text."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spa_jax.reporting import grouping
from spa_jax.reporting.grouping import Group
from spa_jax.reporting.statistics import COLUMNS, IN_PERCENT, Columns, statistics
from spa_jax.reporting.table_text import cells_of, interval_text, mean_text, number_text

_ACCURACY: Columns = {
    "last": ("test_accuracy", "last"),
    "best": ("test_accuracy", "best"),
    "many-shot": ("shot_groups", "many"),
    "medium-shot": ("shot_groups", "medium"),
    "few-shot": ("shot_groups", "few"),
}
_COSINES: Columns = {
    "mean, EMA means": ("mean_cosine",),
    "lowest, EMA means": ("min_cosine",),
    "mean, held-out means": ("test_mean_cosine",),
    "lowest, held-out means": ("test_min_cosine",),
}
_DIFFERENCES = {name: path for name, path in COLUMNS.items() if name != "lowest cosine"}
_MOST_CLASSES = 20
_SECONDS = "\u00a0s"  # after a space that does not end a line


@dataclass(frozen=True)
class Table:
    """A table of text; its words are in `words.html.j2`.

    Attributes:
      rows: one or more, a cell by the header of its column; the first names the row.
      facts: what its caption states, by name.
      as_code: the columns that hold what one types.
    """

    rows: Sequence[Mapping[str, str]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    as_code: tuple[str, ...] = ()

    @property
    def numeric(self) -> list[str]:
        """The columns that hold numbers, which stand to the right."""
        return [name for name in self.rows[0] if all(_is_numeric(row[name]) for row in self.rows)]


def accuracy_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Test accuracy of each group, over all classes and by shot group: mean ± std over seeds."""
    summaries = [summary for group in groups for summary in group.summaries]
    rules = {summary.get("shot_groups", {}).get("rule") for summary in summaries} - {None}
    yield Table(_rows_of_means(groups, _ACCURACY, _ACCURACY), {"rules": sorted(rules)})


def cosines_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Cosines of weights and class means of each group."""
    yield Table(_rows_of_means(groups, _COSINES, IN_PERCENT))


def differences_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Differences to the baseline over shared seeds; none if there is one group only."""
    rows = []
    for group in groups:
        baseline = grouping.baseline_of(group, groups)
        if baseline is None:
            continue
        count = len(grouping.paired_runs(group, baseline))
        why = grouping.why_not_paired(group, baseline)
        pairs = {"pairs": f"{count} ({why})" if why else f"{count}"}
        sides = (group.summaries, baseline.summaries)
        found = grouping.differences_by_seed(*sides, _DIFFERENCES)
        names = {"configuration": group.label, "minus": baseline.label}
        rows.append(names | pairs | cells_of(found, interval_text))
    if rows:
        yield Table(rows)


def classes_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Training images and accuracy of each class; none if there are too many to list."""
    summaries = [summary for group in groups for summary in group.summaries]
    names, counts = summaries[0]["class_names"], summaries[0]["class_counts"]
    same = all((s["class_names"], s["class_counts"]) == (names, counts) for s in summaries)
    if len(counts) > _MOST_CLASSES or not same:
        return
    missing = [None] * len(counts)
    recorded = {
        group.label: [summary.get("per_class_accuracy") or missing for summary in group.summaries]
        for group in groups
    }
    means = {label: np.array(rows, dtype=float).mean(axis=0) for label, rows in recorded.items()}
    rows = []
    for c in np.argsort(-np.asarray(counts), kind="stable").tolist():
        accuracies = {label: _percent(values[c]) for label, values in means.items()}
        rows.append({"class": str(names[c]), "training images": str(counts[c]), **accuracies})
    yield Table(rows)


def runs_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Every run: its folder, its command, what it reached."""
    rows = []
    for label, run in ((group.label, run) for group in groups for run in group.runs):
        summary, seconds = run.summary, run.summary.get("wall_time_seconds")
        rows.append(
            {
                "folder": str(run.folder),
                "configuration": label,
                "seed": str(summary["seed"]),
                "accuracy": _percent(summary["test_accuracy"].get("last")),
                "split": summary["split_checksum"][:8],
                "time": "-" if seconds is None else f"{seconds:,.0f}{_SECONDS}",
                "command": str(summary.get("command") or "command not recorded"),
            }
        )
    yield Table(rows, as_code=("folder", "split", "command"))


def mark_of(group: Group, groups: Sequence[Group]) -> str:
    """A dagger for a group that was trained on another split than the first group."""
    splits, first = (
        {summary["split_checksum"] for summary in part.summaries} for part in (group, groups[0])
    )
    return "" if splits <= first else " †"


def _rows_of_means(
    groups: Sequence[Group], columns: Columns, in_percent: Container[str]
) -> list[dict[str, str]]:
    rows = []
    for group in groups:
        names = {"configuration": group.label + mark_of(group, groups)}
        found = statistics(group.summaries, columns)
        cells = cells_of(found, mean_text, in_percent)
        rows.append(names | {"seeds": str(len(group.runs))} | cells)
    return rows


def _is_numeric(text: str) -> bool:
    return not any(character.isalpha() for character in text) or text.endswith(_SECONDS)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else number_text(value, in_percent=True)

"""The tables of a report: accuracy, alignment, paired differences, classes and runs, as text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spa_jax.reporting import grouping
from spa_jax.reporting import statistics as numbers
from spa_jax.reporting.grouping import Group, seed_and_split
from spa_jax.reporting.statistics import COLUMNS, Columns, columns_for
from spa_jax.reporting.table_text import cells_of, interval_text, number_text

_ACCURACY: Columns = {
    "last": ("test_accuracy", "last"),
    "best": ("test_accuracy", "best"),
    "many-shot": ("shot_groups", "many"),
    "medium-shot": ("shot_groups", "medium"),
    "few-shot": ("shot_groups", "few"),
}
_OVER_CLASSES: Columns = {
    f"{name}, over classes": (f"balanced_{group.removeprefix('test_')}", key)
    for name, (group, key) in _ACCURACY.items()
}
_IN_PERCENT = {*_ACCURACY, *_OVER_CLASSES}
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
    columns = columns_for(summaries, _ACCURACY, _OVER_CLASSES)
    facts = {"rules": sorted(rules), "unbalanced": numbers.note_on(columns)}
    yield Table(_rows_of_means(groups, columns), facts)


def cosines_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Cosines of weights and class means of each group."""
    yield Table(_rows_of_means(groups, _COSINES))


def differences_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Differences to the baseline over shared seeds; none if there is one group only."""
    rows, summaries = [], [summary for group in groups for summary in group.summaries]
    for group in groups:
        baseline = grouping.baseline_of(group, groups)
        if baseline is None:
            continue
        pairs = grouping.paired(group.summaries, baseline.summaries)
        why = grouping.why_not_paired(group, baseline)
        row = {"configuration": group.label, "minus": baseline.label}
        row["pairs"] = f"{len(pairs)} ({why})" if why else f"{len(pairs)}"
        found = numbers.paired_differences(pairs, columns_for(summaries, _DIFFERENCES))
        rows.append(row | cells_of(found, interval_text))
    if rows:
        yield Table(rows)


def classes_table(groups: Sequence[Group]) -> Iterator[Table]:
    """Training images and accuracy of each class; none if there are too many to list."""
    summaries = [summary for group in groups for summary in group.summaries]
    names, counts = summaries[0]["class_names"], summaries[0]["class_counts"]
    same = all((s["class_names"], s["class_counts"]) == (names, counts) for s in summaries)
    if len(counts) > _MOST_CLASSES or not same:
        return
    tested = summaries[0].get("test_class_counts") if columns_for(summaries) != COLUMNS else None
    rows = []
    for c in np.argsort(-np.asarray(counts), kind="stable").tolist():
        row = {"class": str(names[c]), "training images": str(counts[c])}
        if tested:
            row["test images"] = str(tested[c])
        for group in groups:
            recorded = [summary.get("per_class_accuracy") for summary in group.summaries]
            values = np.array([of_run and of_run[c] for of_run in recorded], dtype=float)
            row[group.label] = _percent(values.mean())
        rows.append(row)
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
    """A dagger for a group that has another split, or other data, than the first group."""
    first = {seed_and_split(summary)[1:] for summary in groups[0].summaries}
    same = all(seed_and_split(summary)[1:] in first for summary in group.summaries)
    return "" if same else " †"


def _rows_of_means(groups: Sequence[Group], columns: Columns) -> list[dict[str, str]]:
    rows = []
    for group in groups:
        row = {"configuration": group.label + mark_of(group, groups)}
        cells = cells_of(numbers.statistics(group.summaries, columns), in_percent=_IN_PERCENT)
        rows.append(row | {"seeds": str(len(group.runs))} | cells)
    return rows


def _is_numeric(text: str) -> bool:
    return not any(character.isalpha() for character in text) or text.endswith(_SECONDS)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else number_text(value, in_percent=True)

"""Runs that differ in nothing but the seed, what they are called and what they compare with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spa_jax.errors import InputError
from spa_jax.reporting.finished_runs import Run

# Groups of fields that do not change what is computed, and the field that is averaged over.
_NO_DIFFERENCE = ("seed", "checkpoint", "loader", "logging")

# A field that one SpA method alone reads says nothing about the runs of another.
_READ_BY = {
    "spa.gamma": "proj",
    "spa.radial": "proj",
    "spa.acts_on": "proj",
    "spa.weight": "reg",
    "spa.alpha_max": "slerp",
    "spa.threshold": "slerp",
}

# A field that a run's configuration does not have, or that its method does not read.
_ABSENT = None


@dataclass(frozen=True)
class Group:
    """Runs with the same configuration, one a seed.

    Attributes:
      label: the fields in which the groups of a report differ, `spa.method=reg`.
      fields: the same fields and their values.
      runs: ordered by seed.
    """

    label: str
    fields: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """The SpA method."""
        return self.runs[0].config.get("spa.method", "none")

    @property
    def class_counts(self) -> list[int]:
        """Training images of each class."""
        return self.runs[0].summary["class_counts"]


@dataclass(frozen=True)
class Sweep:
    """Groups that differ in one numeric field.

    Attributes:
      field: its dotted name.
      fixed: the other fields, in words; "" if there are none.
      groups: three or more, by ascending value.
      baseline: what they are all compared with, where that is outside the sweep.
    """

    field: str
    fixed: str
    groups: tuple[Group, ...]
    baseline: Group | None

    @property
    def values(self) -> list[float]:
        """The value of the field in each group."""
        return [float(group.fields[self.field]) for group in self.groups]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Puts runs together that differ in the seed alone.

    Fields of `checkpoint`, `loader` and `logging` do not count, nor does a strength of another SpA
    method than the run's.

    Args:
      runs: one or more.

    Returns:
      The groups, in the order of their first runs.

    Raises:
      InputError: two runs with the same configuration and the same seed.
    """
    differing = _differing_fields(runs)
    members: dict[str, list[Run]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for run in runs:
        values = {field: _read_value(run, field) for field in differing}
        label = label_of(values) or label_of({"spa.method": run.config.get("spa.method", "none")})
        members.setdefault(label, []).append(run)
        fields[label] = values
    for label, group in members.items():
        _check_seeds(group, label)
    return [
        Group(label, fields[label], tuple(sorted(group, key=lambda run: run.summary["seed"])))
        for label, group in members.items()
    ]


def label_of(fields: dict[str, Any]) -> str:
    """Fields and their values as a label; absent ones are left out.

    Example:
      >>> label_of({"spa.method": "proj", "spa.gamma": 0.2, "spa.weight": None})
      'spa.method=proj, spa.gamma=0.2'
    """
    return ", ".join(
        f"{field}={_in_words(value)}" for field, value in fields.items() if value is not _ABSENT
    )


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """What a group is compared with.

    Args:
      group: one of `groups`.
      groups: all groups of the report.

    Returns:
      The group without SpA that is otherwise the same; where there is none, the first group; None
      for the first group itself.
    """
    rest = _without_spa(group)
    same = [
        other
        for other in groups
        if other is not group and other.method == "none" and _without_spa(other) == rest
    ]
    if group.method != "none" and same:
        return same[0]
    return None if group is groups[0] else groups[0]


def paired_runs(group: Group, baseline: Group) -> list[tuple[Run, Run]]:
    """Runs of a group and of its baseline with the same seed on the same split."""
    partners = {_pairing_key(run): run for run in baseline.runs}
    return [
        (run, partners[_pairing_key(run)]) for run in group.runs if _pairing_key(run) in partners
    ]


def why_not_paired(group: Group, baseline: Group) -> str:
    """Why some runs of a group have no partner in the baseline; "" if all have one."""
    paired = len(paired_runs(group, baseline))
    if paired == len(group.runs):
        return ""
    seeds = {run.summary["seed"] for run in baseline.runs}
    other_split = sum(run.summary["seed"] in seeds for run in group.runs) - paired
    other_seed = len(group.runs) - paired - other_split
    reasons = [
        f"{count} with {what}"
        for count, what in ((other_split, "another split"), (other_seed, "another seed"))
        if count
    ]
    return f"not paired: {' and '.join(reasons)}"


def find_sweeps(groups: Sequence[Group]) -> list[Sweep]:
    """Every numeric field that takes three values or more while the others stay as they are.

    Args:
      groups: all groups of the report.

    Returns:
      The sweeps; several of one field stand next to each other.
    """
    sweeps = []
    for field in groups[0].fields:
        series: dict[str, list[Group]] = {}
        for group in groups:
            if _is_number(group.fields[field]):
                others = {key: value for key, value in group.fields.items() if key != field}
                series.setdefault(label_of(others), []).append(group)
        for fixed, swept in series.items():
            if len(swept) >= 3:
                swept = sorted(swept, key=lambda group: group.fields[field])
                sweeps.append(Sweep(field, fixed, tuple(swept), _shared_baseline(swept, groups)))
    return sweeps


def _shared_baseline(swept: Sequence[Group], groups: Sequence[Group]) -> Group | None:
    baselines = [baseline_of(group, groups) for group in swept]
    shared = baselines[0]
    if shared is None or any(shared is group for group in swept):
        return None
    same = all(baseline is shared for baseline in baselines)
    return shared if same and shared.method == "none" else None


def _differing_fields(runs: Sequence[Run]) -> list[str]:
    # `spa.method` first: its name is what a reader looks for.
    known = dict.fromkeys(["spa.method", *(field for run in runs for field in run.config)])
    return [
        field
        for field in known
        if field.split(".")[0] not in _NO_DIFFERENCE
        and len({_in_words(run.config.get(field)) for run in runs if _reads(run, field)}) > 1
    ]


def _reads(run: Run, field: str) -> bool:
    method = run.config.get("spa.method")
    return _READ_BY.get(field, method) == method


def _read_value(run: Run, field: str) -> Any:
    """The value of a field, or None where the run does not have it or does not read it."""
    return run.config.get(field, _ABSENT) if _reads(run, field) else _ABSENT


def _without_spa(group: Group) -> dict[str, Any]:
    return {field: value for field, value in group.fields.items() if not field.startswith("spa.")}


def _pairing_key(run: Run) -> tuple[int, str]:
    return run.summary["seed"], run.summary["split_checksum"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_words(value: Any) -> str:
    """A value as text; two numbers read the same only if they are."""
    if _is_number(value):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list):
        return ",".join(map(_in_words, value))
    return "''" if value == "" else str(value)


def _check_seeds(runs: Sequence[Run], label: str) -> None:
    by_seed: dict[int, Run] = {}
    for run in runs:
        seed = run.summary["seed"]
        if seed in by_seed:
            raise InputError(
                f"{by_seed[seed].folder} and {run.folder} are the same configuration ({label}) "
                f"with the same seed {seed}: they are no two samples, give one of them."
            )
        by_seed[seed] = run

"""Runs that differ in nothing but the seed, what they are called and what they compare with.

:func:`group_by` and :func:`paired` work on records of any kind; the rest on the finished runs of a
report.
"""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from spa_jax.errors import InputError
from spa_jax.options import is_read
from spa_jax.reporting.finished_runs import Run

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

# The field that is averaged over, and fields and groups that do not change what is computed.
_NO_DIFFERENCE = (
    "seed",
    "eval_batch_size",
    "parallel",
    "checkpoint",
    "loader",
    "logging",
)


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Puts items with an equal key together, in the order of their first.

    Example:
      >>> group_by(["reg", "none", "proj", "ridge"], key=len)
      {3: ['reg'], 4: ['none', 'proj'], 5: ['ridge']}
    """
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def tells_apart(field: str, config: Mapping[str, Any]) -> bool:
    """Whether a field changes what a run computes; the seed does not count.

    How a batch is laid out over the devices (`parallel`) changes it only where each device has
    batch statistics of its own.

    Args:
      field: its dotted name.
      config: the run's configuration by dotted names.
    """
    if field == "parallel" and config.get("model.batch_norm") == "per_device":
        return True
    return field.split(".")[0] not in _NO_DIFFERENCE and is_read(field, config)


def seed_and_split(run: Run | Mapping[str, Any]) -> tuple[int, str, str | None]:
    """What two runs share if they are to be compared: the seed, the training split and the data.

    Args:
      run: a finished run, or a summary.
    """
    summary = run.summary if isinstance(run, Run) else run
    return summary["seed"], summary["split_checksum"], summary.get("content_checksum")


def same_start(one: Any, other: Any) -> bool:
    """Whether two finished runs, or summaries, that name one first run began from one state of it.

    Where they name two, or one of them none, that is a difference of their configurations.
    """
    first, second = (_init_of(run.summary if isinstance(run, Run) else run) for run in (one, other))
    same = first.get("params_checksum") == second.get("params_checksum")
    return same or first.get("run") != second.get("run")


def paired(
    runs: Iterable[Item],
    baseline: Iterable[Item],
    key: Callable[[Item], Hashable] | None = None,
) -> list[tuple[Item, Item]]:
    """Each run with its partner in the baseline; runs without one are left out.

    Args:
      runs: what is compared.
      baseline: what it is compared with.
      key: what partners share; None: what :func:`seed_and_split` and :func:`same_start` say.

    Example:
      >>> paired([("reg", 1), ("reg", 2)], [("none", 0), ("none", 1)], key=lambda run: run[1])
      [(('reg', 1), ('none', 1))]
    """

    def shared(run: Any) -> Hashable:
        return key(run) if key else seed_and_split(run)

    partners = {shared(run): run for run in baseline}
    pairs = [(run, partners[shared(run)]) for run in runs if shared(run) in partners]
    return pairs if key else [pair for pair in pairs if same_start(*pair)]


# Compared by identity, since the arrays in their runs have no single truth value.
@dataclass(frozen=True, eq=False)
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

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """What `summary.json` of each run holds."""
        return [run.summary for run in self.runs]


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

    Fields that change nothing do not count (:func:`tells_apart`). Where runs of one configuration
    were trained or tested on other data, the checksum of the data tells them apart; where they
    started from other states of one run, that of its parameters.

    Args:
      runs: one or more.

    Returns:
      The groups, in the order of their first runs.

    Raises:
      InputError: two runs with the same configuration and the same seed.
    """
    differing = _differing_fields([run.config for run in runs])

    def fields_of(run: Run) -> dict[str, Any]:
        values = run.config | {
            field: str(checksum)[:12] for field, checksum in _checksums(run).items()
        }
        return {
            field: values.get(field) if tells_apart(field, run.config) else None
            for field in differing
        }

    alike = group_by(runs, lambda run: label_of(fields_of(run))).values()
    differing += [
        field
        for field in ("data.content", "init.state")
        if any(len({_checksums(run)[field] for run in members} - {None}) > 1 for members in alike)
    ]
    groups = []
    for label, members in group_by(runs, lambda run: label_of(fields_of(run))).items():
        name = label or label_of({"spa.method": members[0].config.get("spa.method", "none")})
        by_seed = sorted(members, key=lambda run: run.summary["seed"])
        for one, other in itertools.pairwise(by_seed):
            if one.summary["seed"] == other.summary["seed"]:
                raise InputError(
                    f"{one.folder} and {other.folder} are the same configuration ({name}) with the "
                    f"same seed {one.summary['seed']}, not two samples: give one of them."
                )
        groups.append(Group(name, fields_of(members[0]), tuple(by_seed)))
    return groups


def evaluations_of(groups: Sequence[Group]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What `python -m spa_jax.evaluate` found of runs.

    Args:
      groups: all groups of the report.

    Returns:
      By what was evaluated on, such as "test", and by the label of the group the evaluations of its
      runs; groups of which some run has none, or one on other examples, are left out. Where other
      data sets have one name, the checksum of their examples tells them apart.
    """
    found: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]] = {}
    for group in groups:
        for what in group.runs[0].evaluations:
            own = [run.evaluations[what] for run in group.runs if what in run.evaluations]
            examples = {one.get("examples_checksum") for one in own}
            if len(own) == len(group.runs) and len(examples) == 1:
                # Of a run's own data its label says which they are.
                other = examples.pop() if own[0].get("data_folder") else None
                found.setdefault((what, other), {})[group.label] = own
    names = [what for what, _ in found]
    return {
        what if other is None or names.count(what) == 1 else f"{what} {other[:12]}": shown
        for (what, other), shown in found.items()
    }


def label_of(fields: dict[str, Any]) -> str:
    """Fields and their values as a label; without those that are None, which a run does not read.

    Example:
      >>> label_of({"spa.method": "proj", "spa.proj.gamma": 0.2, "spa.reg.weight": None})
      'spa.method=proj, spa.proj.gamma=0.2'
    """
    return ", ".join(
        f"{field}={_in_words(value)}" for field, value in fields.items() if value is not None
    )


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """What a group is compared with.

    Args:
      group: one of `groups`.
      groups: all groups of the report.

    Returns:
      The group without SpA that is otherwise the same, and of several the one with the most of
      SpA's fields in common, such as `spa.means_from`, which asks for a forward that moves batch
      statistics; where there is none, the first group; None for the first group itself.
    """
    if group.method != "none":
        same = [
            other
            for other in groups
            if other.method == "none" and _without_spa(other) == _without_spa(group)
        ]
        if same:
            return max(same, key=functools.partial(_equal_fields, group))
    return None if group is groups[0] else groups[0]


def why_not_paired(group: Group, baseline: Group) -> str:
    """Why some runs of a group have no partner in the baseline; "" if all have one."""
    same_seed, same_data = (
        len(paired(group.runs, baseline.runs, key=key))
        for key in (lambda run: run.summary["seed"], seed_and_split)
    )
    missing = {
        "another split or other data": same_seed - same_data,
        "another state of its first run": same_data - len(paired(group.runs, baseline.runs)),
        "another seed": len(group.runs) - same_seed,
    }
    reasons = [f"{count} with {what}" for what, count in missing.items() if count]
    return f"not paired: {' and '.join(reasons)}" if reasons else ""


def find_sweeps(groups: Sequence[Group]) -> list[Sweep]:
    """Every numeric field that takes three values or more while the others stay as they are.

    Args:
      groups: all groups of the report.

    Returns:
      The sweeps; several of one field stand next to each other.
    """
    sweeps = []
    for field in groups[0].fields:

        def others(group: Group, field: str = field) -> str:
            return label_of({key: value for key, value in group.fields.items() if key != field})

        numeric = [group for group in groups if _is_number(group.fields[field])]
        for fixed, series in group_by(numeric, others).items():
            if len(series) >= 3:
                series.sort(key=lambda group: group.fields[field])
                sweeps.append(Sweep(field, fixed, tuple(series), _shared_baseline(series, groups)))
    return sweeps


def _shared_baseline(swept: Sequence[Group], groups: Sequence[Group]) -> Group | None:
    """What all groups of a sweep are compared with, if it is one group outside and without SpA."""
    shared, *others = (baseline_of(group, groups) for group in swept)
    outside = shared is not None and shared.method == "none" and shared not in swept
    return shared if outside and all(other is shared for other in others) else None


def _differing_fields(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    # `spa.method` first: its name is what a reader looks for.
    known = dict.fromkeys(["spa.method", *(field for config in configs for field in config)])
    values = {
        field: {_in_words(config.get(field)) for config in configs if tells_apart(field, config)}
        for field in known
    }
    return [field for field, found in values.items() if len(found) > 1]


def _checksums(run: Run) -> dict[str, str | None]:
    """What a configuration names and does not hold: the data, and the state of its first run."""
    summary = run.summary
    return {
        "data.content": summary.get("content_checksum"),
        "init.state": _init_of(summary).get("params_checksum"),
    }


def _init_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of the run that a run started from; empty if from its seed alone."""
    return summary.get("init") or {}


def _equal_fields(group: Group, other: Group) -> int:
    return sum(value == other.fields[field] for field, value in group.fields.items())


def _without_spa(group: Group) -> dict[str, Any]:
    return {field: value for field, value in group.fields.items() if not field.startswith("spa.")}


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

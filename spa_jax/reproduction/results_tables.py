"""Tables of runs as Markdown; what was not run says so, with the command that would run it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spa_jax.dynamics.statistics import paired_differences, statistics
from spa_jax.dynamics.table_text import difference_text, markdown_rows, mean_text, number_text
from spa_jax.reproduction.cells import TUNING, Cell, settings_name, tuning_cells
from spa_jax.reproduction.plan import Records, TunedCells
from spa_jax.reproduction.tables import find_table

_ACCURACIES = {
    "last": ("test_accuracy", "last"),
    "best epoch": ("test_accuracy", "best"),
    "many": ("shot_groups", "many"),
    "medium": ("shot_groups", "medium"),
    "few": ("shot_groups", "few"),
}
_COSINES = {"EMA cosine": ("mean_cosine",), "held-out cosine": ("test_mean_cosine",)}
_COLUMNS = _ACCURACIES | _COSINES

_NAMES = MappingProxyType(
    {
        "cross_entropy": "cross-entropy",
        "glmc": "GLMC",
        "arb": "ARB",
        "ldam_drw": "LDAM-DRW",
        "balanced_softmax": "balanced softmax",
        "post_hoc_logit_adjustment": "post-hoc logit adjustment",
        "mixup": "mixup",
        "etf": "fixed ETF",
        "none": "none",
        "reg": "Reg",
        "slerp": "SLERP",
        "proj": "Proj",
    }
)
_NETWORKS = MappingProxyType({"resnet50": "ResNet-50"})


def results_table(table: str, records: Records, wanted: Callable[[Cell], bool]) -> str:
    """A row for each group of runs that differ in the seed, next to its difference to no SpA.

    Rows come in the order of their imbalance factor and worth.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
      wanted: which cells the table is of.

    Returns:
      A Markdown table: accuracies in percent, mean ± sample standard deviation; the difference to
      the same method without SpA, paired by seed, ± half its 95% interval; where runs are missing,
      how many there are, and if there are none the command that trains them.
    """
    groups = groups_of(table, records, wanted)
    header = ["method", "SpA", "IF", "seeds", *_COLUMNS, "last, minus none"]
    rows = [header]
    by_factor = sorted(groups.items(), key=lambda item: item[0].imbalance_factor)
    for group, (found, diverged, planned) in by_factor:
        row = [method_name(group), variant_name(group), f"{group.imbalance_factor:g}"]
        if not found:
            row += [f"0 of {planned}", _why_not(table, group, diverged)]
        else:
            columns = statistics([record["summary"] for record in found], _COLUMNS)
            row.append(f"{len(found)}" if len(found) == planned else f"{len(found)} of {planned}")
            row += [mean_text(columns[name], name in _ACCURACIES) for name in _COLUMNS]
            difference = difference_to_none(found, records)
            row.append("" if difference is None else difference_text(difference["last"], True))
        rows.append([*row, *[""] * (len(header) - len(row))])
    return markdown_rows(rows, text=(0, 1))


def groups_of(
    table: str, records: Records, wanted: Callable[[Cell], bool]
) -> dict[Cell, tuple[list[Any], int, int]]:
    """The wanted runs grouped by what they share but for the seed.

    Returns:
      For each group the records of its finished runs, how many diverged, and how many there are to
      be. The settings of a group may still wait for tuning.
    """
    by_name = {record["cell"]: record for record in records}
    cells: dict[Cell, list[Cell]] = {}
    for cell in find_table(table).cells(records):
        if wanted(cell):
            cells.setdefault(cell.group, []).append(cell)
    groups = {}
    for group, planned in cells.items():
        made = [by_name[cell.name] for cell in planned if cell.name in by_name]
        found = [record for record in made if record["summary"]]
        groups[group] = found, len(made) - len(found), len(planned)
    return groups


def published_table(table: str, records: Records) -> str:
    """What is published for a cell, under which protocol, and what came out here."""
    published = find_table(table).published
    groups = groups_of(table, records, lambda cell: cell.group_name in published)
    header = ["method", "SpA", "IF", "published", "protocol", "seeds", "last", "best epoch"]
    rows = [header]
    for group, (found, diverged, planned) in groups.items():
        known = published[group.group_name]
        row = [method_name(group), variant_name(group), f"{group.imbalance_factor:g}"]
        row += [f"{known.accuracy:g}", known.protocol, f"{len(found)} of {planned}"]
        if found:
            columns = statistics([record["summary"] for record in found], _COLUMNS)
            row += [mean_text(columns[name], True) for name in ("last", "best epoch")]
        else:
            row += [_why_not(table, group, diverged), ""]
        rows.append(row)
    return markdown_rows(rows, text=(0, 1))


def methods_table(records: Records) -> str:
    """What each method without SpA reaches on Fashion-MNIST-LT, next to cross-entropy."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        place = (record["imbalance_factor"], record["class_order"])
        wanted = place == (100, "reversed") and record["seed"] < 3
        if _is_plain(record) and wanted and record["summary"]:
            runs.setdefault(record["method"], []).append(record)
    columns = {name: _ACCURACIES[name] for name in ("last", "many", "medium", "few")}
    rows = [["method", "seeds", *columns, "last, minus cross-entropy", "few, minus cross-entropy"]]
    baseline = {record["seed"]: record["summary"] for record in runs.get("cross_entropy", [])}
    for method, found in runs.items():
        of_method = statistics([record["summary"] for record in found], columns)
        row = [_NAMES[method], str(len(found))]
        row += [mean_text(value, True) for value in of_method.values()]
        shared = [record for record in found if record["seed"] in baseline]
        if method != "cross_entropy" and shared:
            pairs = [baseline[record["seed"]] for record in shared]
            difference = paired_differences([r["summary"] for r in shared], pairs, columns)
            row += [difference_text(difference[name], True) for name in ("last", "few")]
        rows.append([*row, *[""] * (len(rows[0]) - len(row))])
    return markdown_rows(rows, text=(0, 1))


def tuning_table(table: str, records: Records, class_order: str, imbalance_factor: float) -> str:
    """The validation accuracy of every strength that was tried, one row for each."""
    by_name = {record["cell"]: record for record in records}
    columns = [
        list(tuning_cells(method, class_order, imbalance_factor)) for method in TunedCells.tuned_on
    ]
    rows = [["SpA", "strength", *(_NAMES[method] for method in TunedCells.tuned_on)]]
    strengths = [
        (spa_method, settings_name(settings))
        for spa_method, choices in TUNING.items()
        for settings in choices
    ]
    for (spa_method, strength), *cells in zip(strengths, *columns, strict=True):
        accuracies = [_validation(by_name.get(cell.name)) for cell in cells]
        rows.append([_NAMES[spa_method], f"`{strength}`", *accuracies])
    return markdown_rows(rows, text=(0, 1))


def dry_run_table(records: Records) -> str:
    """The cells that were trained on a handful of files, and what their loss did."""
    if not records:
        return "Not run."
    rows = [["method", "SpA", "network", "parameters", "train loss", "minutes"]]
    for record in records:
        summary = record["summary"]
        row = [_NAMES[record["method"]], _with_variant(record["spa_method"], record["variant"])]
        row.append(record["config"]["model"]["name"])
        if summary is None:
            row += ["", "diverged", ""]
        else:
            losses = record["curves"]["train_loss"]
            row.append(f"{summary['parameters'] / 1e6:.1f} M")
            row.append(f"{losses[0]:.2f} to {losses[-1]:.2f}")
            row.append(f"{summary['wall_time_seconds'] / 60:.1f}")
        rows.append(row)
    return markdown_rows(rows, text=(0, 1))


def _why_not(table: str, group: Cell, diverged: int) -> str:
    """Why a group has no finished run; if it was not run, with the command that does."""
    if diverged:
        return "diverged"
    return f"not run: `python -m spa_jax.reproduce {table} --only={group.group_name}`"


def method_name(cell: Cell) -> str:
    """For a reader."""
    name = _NAMES[cell.method]
    return f"{name}, {_NETWORKS[cell.network]}" if cell.network else name


def spa_name(cell: Cell) -> str:
    """For a reader, without the variant."""
    return _NAMES[cell.spa_method]


def variant_name(cell: Cell) -> str:
    """For a reader."""
    return _with_variant(cell.spa_method, cell.variant)


def _with_variant(spa_method: str, variant: str) -> str:
    return _NAMES[spa_method] + (f" ({variant})" if variant else "")


def origin(records: Records) -> str:
    """Where the records come from: split, versions, hardware and dates."""
    if not records:
        return "No run has been made yet."
    summaries = [record["summary"] for record in records if record["summary"]]
    splits = sorted({f"`{summary['split_checksum'][:16]}`" for summary in summaries})
    jax = ", ".join(sorted({summary["versions"]["jax"] for summary in summaries}))
    machines = {
        f"{summary['hardware']['cpu_count']} CPU cores, {summary['hardware']['platform']}"
        for summary in summaries
    }
    dates = sorted({record["date"] for record in records})
    hours = sum(summary["wall_time_seconds"] for summary in summaries) / 3600
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{len(records)} runs, {hours:.1f} hours; splits {', '.join(splits)}; jax {jax}; "
        f"{'; '.join(sorted(machines))}; {span}."
    )


def difference_to_none(
    runs: Sequence[Mapping[str, Any]], records: Records
) -> Mapping[str, Mapping[str, float | None]] | None:
    """Last accuracy and cosines minus those of the same method without SpA, seed by seed.

    Without SpA, but with the same schedule and class means of the same images: GLMC's forward of
    unmixed ones changes a run by itself. Cosines are left out where SpA acts on other weights than
    those whose cosines the baseline has. None if the runs are without SpA, or share no seed with
    such runs.
    """
    first = runs[0]
    if first["spa_method"] == "none":
        return None
    baseline = {
        record["seed"]: record["summary"]
        for record in records
        if _is_baseline(record) and record["summary"] and _place(record) == _place(first)
    }
    shared = [run for run in runs if run["seed"] in baseline]
    if not shared:
        return None
    pairs = [baseline[run["seed"]] for run in shared]
    columns = _COLUMNS if first["config"]["spa"]["classifier"] == "auto" else _ACCURACIES
    return paired_differences([run["summary"] for run in shared], pairs, columns)


def _is_plain(record: Mapping[str, Any]) -> bool:
    """Whether it is a final run of a method as it is, without SpA."""
    plain = record["spa_method"] == "none" and not record["variant"]
    return plain and record["stage"] == "final"


def _is_baseline(record: Mapping[str, Any]) -> bool:
    return record["spa_method"] == "none" and record["stage"] != "tune"


def _place(record: Mapping[str, Any]) -> tuple[Any, ...]:
    fields = ("class_order", "method", "imbalance_factor")
    network = record.get("network", "")  # a record of a table with one network does not name it
    config = record["config"]
    trained = config["optimizer"]["schedule"], config["spa"]["means_from"]
    return *(record[field] for field in fields), network, *trained


def _validation(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not run"
    summary = record["summary"]
    return number_text(summary["validation_accuracy"]["last"], True) if summary else "diverged"

"""Tables of runs as Markdown; what was not run says so, with the command that would run it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from spa_jax.reporting.statistics import statistics
from spa_jax.reporting.table_text import difference_text, markdown_rows, mean_text, number_text
from spa_jax.reproduction.cells import TUNING, Cell, chosen_settings, settings_name, tuning_cells
from spa_jax.reproduction.dry_run import dry_cells
from spa_jax.reproduction.plan import Records, TunedCells
from spa_jax.reproduction.tables import find_table
from studies.reproduction.pairing import (
    ACCURACIES,
    COLUMNS,
    Compare,
    Group,
    Record,
    groups_of,
    minus_none,
    paired,
)
from studies.reproduction.row_names import NAMES, method_name, variant_name

MINUS_NONE: Mapping[str, Compare] = MappingProxyType({"last, minus none": minus_none})
"""The column that every table of results has: the change of the last accuracy by SpA."""


def results_table(
    table: str,
    records: Records,
    wanted: Callable[[Cell], bool],
    compared: Mapping[str, Compare] = MINUS_NONE,
) -> str:
    """A row for each group of runs that differ in the seed, next to its difference to others.

    Rows come in the order of their imbalance factor and worth.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
      wanted: which cells the table is of.
      compared: columns for the change of the last accuracy, and what each is the change to.

    Returns:
      A Markdown table: accuracies in percent, mean ± sample standard deviation; differences, paired
      by seed, ± half their 95% interval; where runs are missing or diverged, how many there are,
      and if there are none the command that trains them.
    """
    groups = groups_of(table, records, wanted)
    header = ["method", "SpA", "IF", "seeds", *COLUMNS, *compared]
    rows = [header]
    by_factor = sorted(groups.items(), key=lambda item: item[0].imbalance_factor)
    for cell, group in by_factor:
        row = [method_name(cell), variant_name(cell), f"{cell.imbalance_factor:g}", _seeds(group)]
        if not group.runs:
            row.append(_why_not(table, cell, group))
        else:
            columns = statistics([record["summary"] for record in group.runs], COLUMNS)
            row += [mean_text(columns[name], name in ACCURACIES) for name in COLUMNS]
            row += [_change(compare, group, records) for compare in compared.values()]
        rows.append([*row, *[""] * (len(header) - len(row))])
    return markdown_rows(rows, text=(0, 1))


def published_table(table: str, records: Records) -> str:
    """What is published for a cell, under which protocol, and what came out here."""
    published = find_table(table).published
    groups = groups_of(table, records, lambda cell: cell.group_name in published)
    header = ["method", "SpA", "IF", "published", "protocol", "seeds", "last", "best epoch"]
    rows = [header]
    for cell, group in groups.items():
        known = published[cell.group_name]
        row = [method_name(cell), variant_name(cell), f"{cell.imbalance_factor:g}"]
        row += [f"{known.accuracy:g}", known.protocol, _seeds(group)]
        if group.runs:
            columns = statistics([record["summary"] for record in group.runs], COLUMNS)
            row += [mean_text(columns[name], True) for name in ("last", "best epoch")]
        else:
            row += [_why_not(table, cell, group), ""]
        rows.append(row)
    return markdown_rows(rows, text=(0, 1))


def methods_table(records: Records) -> str:
    """What each method without SpA reaches on Fashion-MNIST-LT, next to cross-entropy."""

    def wanted(cell: Cell) -> bool:
        place = (cell.stage, cell.imbalance_factor, cell.class_order)
        plain = cell.spa_method == "none" and not cell.variant
        return plain and place == ("final", 100, "reversed")

    groups = groups_of("fashion_mnist", records, wanted)
    runs = {cell.method: group.runs for cell, group in groups.items() if group.runs}
    columns = {name: ACCURACIES[name] for name in ("last", "many", "medium", "few")}
    rows = [["method", "seeds", *columns, "last, minus cross-entropy", "few, minus cross-entropy"]]
    for method, found in runs.items():
        of_method = statistics([record["summary"] for record in found], columns)
        row = [NAMES[method], str(len(found))]
        row += [mean_text(value, True) for value in of_method.values()]
        difference = paired(found, runs.get("cross_entropy", []))
        if method != "cross_entropy" and difference is not None:
            row += [difference_text(difference.columns[name], True) for name in ("last", "few")]
        rows.append([*row, *[""] * (len(rows[0]) - len(row))])
    return markdown_rows(rows, text=(0, 1))


def tuning_table(table: str, records: Records, class_order: str, imbalance_factor: float) -> str:
    """The validation accuracy of every strength that was tried; those of the chosen are bold."""
    by_name = {record["cell"]: record for record in records}
    columns = [
        list(tuning_cells(method, class_order, imbalance_factor)) for method in TunedCells.tuned_on
    ]
    rows = [["SpA", "strength", *(NAMES[method] for method in TunedCells.tuned_on)]]
    chosen = [
        chosen_settings(records, method, class_order, imbalance_factor)
        for method in TunedCells.tuned_on
    ]
    strengths = [(name, settings) for name, choices in TUNING.items() for settings in choices]
    for (spa_method, settings), *cells in zip(strengths, *columns, strict=True):
        row = [NAMES[spa_method], f"`{settings_name(settings)}`"]
        for cell, of_method in zip(cells, chosen, strict=True):
            text = _validation(by_name.get(cell.name))
            row.append(f"**{text}**" if settings == of_method[spa_method] else text)
        rows.append(row)
    return markdown_rows(rows, text=(0, 1))


def dry_run_table(records: Records) -> str:
    """The cells of ImageNet-LT that were trained on a handful of files, and what their loss did."""
    rows = [["method", "SpA", "network", "parameters", "train loss", "minutes"]]
    plan = find_table("imagenet")
    by_name = {record["cell"]: record for record in records}
    for cell in dry_cells(plan):
        row = [NAMES[cell.method], variant_name(cell)]
        record = by_name.get(cell.name)
        if record is None:
            command = f"python -m spa_jax.reproduce imagenet --dry_run --only={cell.group_name}"
            row += [plan.config(cell).model.name, "", f"not run: `{command}`", ""]
        elif record["summary"] is None:
            row += [record["config"]["model"]["name"], "", "diverged", ""]
        else:
            row += _dry_run_cells(record)
        rows.append(row)
    return markdown_rows(rows, text=(0, 1))


def _dry_run_cells(record: Record) -> list[str]:
    summary, losses = record["summary"], record["curves"]["train_loss"]
    return [
        record["config"]["model"]["name"],
        f"{summary['parameters'] / 1e6:.1f} M",
        f"{losses[0]:.2f} to {losses[-1]:.2f}",
        f"{summary['wall_time_seconds'] / 60:.1f}",
    ]


def _seeds(group: Group) -> str:
    """How many seeds a row is of, and of how many where some are missing or diverged."""
    found = len(group.runs)
    text = f"{found}" if found == group.planned else f"{found} of {group.planned}"
    return f"{text}, {group.diverged} diverged" if group.diverged else text


def _why_not(table: str, cell: Cell, group: Group) -> str:
    """Why a group has no finished run; if it was not run, with the command that does."""
    if group.diverged:
        return "diverged"
    return f"not run: `python -m spa_jax.reproduce {table} --only={cell.group_name}`"


def _change(compare: Compare, group: Group, records: Records) -> str:
    difference = compare(group.runs, records)
    return "" if difference is None else difference_text(difference.columns["last"], True)


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


def _validation(record: Record | None) -> str:
    if record is None:
        return "not run"
    summary = record["summary"]
    return number_text(summary["validation_accuracy"]["last"], True) if summary else "diverged"

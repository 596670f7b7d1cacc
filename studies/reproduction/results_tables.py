"""Tables of runs as Markdown; what was not run says so, with the command that would run it."""

from collections.abc import Iterable, Mapping, Sequence

from spa_jax.reporting.table_text import markdown_rows, number_text, spread_text
from spa_jax.reproduction.cells import Cell, Records, settings_name
from spa_jax.reproduction.dry_run import dry_cells
from spa_jax.reproduction.tables import (
    TUNING,
    TunedCells,
    chosen_settings,
    find_table,
    tuning_cells,
)
from studies.names import machine_text, name_of
from studies.reproduction import pairing
from studies.reproduction.pairing import COLUMNS, Difference, Group, TableRuns, Wanted, having
from studies.reproduction.published_figures import PUBLISHED

MINUS_NONE: Mapping[str, pairing.Compare] = {"last, minus none": pairing.minus_none}
"""The column that every table of results has: the change of the last accuracy by SpA."""

_MOST_SPLITS = 20


def results_table(
    wanted: Wanted, runs: TableRuns, compared: Mapping[str, pairing.Compare] = MINUS_NONE
) -> str:
    """A row for each group of runs that differ in the seed, next to its difference to others.

    Rows come in the order of their imbalance factor and worth.

    Args:
      wanted: which cells the table is of.
      runs: of the table.
      compared: columns for the change of the last accuracy, and what each is the change to.

    Returns:
      A Markdown table: accuracies in percent, mean ± sample standard deviation; differences, paired
      by seed, ± half their 95% interval; where runs are missing or diverged, how many there are,
      and if there are none the command that trains them.
    """
    rows = [["method", "SpA", "IF", "seeds", *COLUMNS, *compared]]
    groups = sorted(runs.where(wanted).items(), key=lambda item: item[0].imbalance_factor)
    for cell, group in groups:
        changes = [_change(compare(group.runs, runs.records)) for compare in compared.values()]
        cells = [*_cells(runs.table, cell, group, COLUMNS), *changes]
        rows.append([*_names(cell), seeds_of(group), *cells])
    return _markdown(rows)


def published_table(runs: TableRuns) -> str:
    """What is published for a cell, under which protocol, and what came out here."""
    published = PUBLISHED[runs.table]
    columns = ("last", "best epoch")
    rows = [["method", "SpA", "IF", "published", "protocol", "seeds", *columns]]
    for cell, group in runs.where(lambda cell: cell.group_name in published).items():
        known = published[cell.group_name]
        row = [*_names(cell), f"{known.accuracy:g}", known.protocol, seeds_of(group)]
        rows.append([*row, *_cells(runs.table, cell, group, columns)])
    return _markdown(rows)


def methods_table(runs: TableRuns) -> str:
    """What each method without SpA reaches on Fashion-MNIST-LT, next to cross-entropy."""
    columns, compared = ("last", "many", "medium", "few"), ("last", "few")
    place = {"imbalance_factor": 100.0, "class_order": "reversed"}
    groups = runs.where(having(stage="final", spa_method="none", variant="", **place))
    by_method = {cell.method: group.runs for cell, group in groups.items()}
    rows = [["method", "seeds", *columns, *(f"{name}, minus cross-entropy" for name in compared)]]
    for cell, group in groups.items():
        if group.runs:
            row = [name_of(cell.method), str(len(group.runs))]
            row += _cells(runs.table, cell, group, columns)
            others = by_method["cross_entropy"] if cell.method != "cross_entropy" else []
            difference = pairing.difference_of(group.runs, others)
            rows.append([*row, *(_change(difference, name) for name in compared)])
    return _markdown(rows)


def tuning_table(class_order: str, imbalance_factor: float, runs: TableRuns) -> str:
    """The validation accuracy of every strength that was tried; those of the chosen are bold."""
    by_name = {record["cell"]: record for record in runs.records}
    methods, place = TunedCells.tuned_on, (class_order, imbalance_factor)
    columns = [tuning_cells(method, *place) for method in methods]
    chosen = [chosen_settings(runs.records, method, *place) for method in methods]
    rows = [["SpA", "strength", *map(name_of, methods)]]
    strengths = [(name, settings) for name, choices in TUNING.items() for settings in choices]
    for (spa_method, settings), *cells in zip(strengths, *columns, strict=True):
        row = [name_of(spa_method), f"`{settings_name(settings)}`"]
        for cell, of_method in zip(cells, chosen, strict=True):
            text = _validation(by_name.get(cell.name))
            row.append(f"**{text}**" if settings == of_method[spa_method] else text)
        rows.append(row)
    return _markdown(rows)


def dry_run_table(records: Records) -> str:
    """The cells of ImageNet-LT that were trained on a handful of files, and what their loss did."""
    rows = [["method", "SpA", "network", "parameters", "train loss", "minutes"]]
    plan = find_table("imagenet")
    by_name = {record["cell"]: record for record in records}
    for cell in dry_cells(plan):
        record = by_name.get(cell.name)
        network = record["config"]["model"]["name"] if record else plan.config(cell).model.name
        row = [name_of(cell.method), pairing.variant_name(cell), network]
        if record is None:
            command = f"python -m spa_jax.reproduce imagenet --dry_run --only={cell.group_name}"
            row += ["", f"not run: `{command}`"]
        elif record["summary"] is None:
            row += ["", "diverged"]
        else:
            summary, losses = record["summary"], record["curves"]["train_loss"]
            row += [f"{summary['parameters'] / 1e6:.1f} M", f"{losses[0]:.2f} to {losses[-1]:.2f}"]
            row += [f"{summary['wall_time_seconds'] / 60:.1f}"]
        rows.append(row)
    return _markdown(rows)


def origin(runs: TableRuns) -> str:
    """Where the records come from: split, versions, hardware and dates."""
    records = runs.records
    if not records:
        return "No run has been made yet."
    summaries = [record["summary"] for record in records if record["summary"]]
    splits = sorted({f"`{summary['split_checksum'][:16]}`" for summary in summaries})
    if len(splits) > _MOST_SPLITS:
        splits = [f"{len(splits)} of them, whose checksums are in the records"]
    jax = ", ".join(sorted({summary["versions"]["jax"] for summary in summaries}))
    machines = {machine_text(summary["hardware"]) for summary in summaries}
    dates = sorted({record["date"] for record in records})
    hours = sum(summary["wall_time_seconds"] for summary in summaries) / 3600
    return (
        f"{len(records)} runs, {hours:.1f} hours; splits {', '.join(splits)}; jax {jax}; "
        f"{'; '.join(sorted(machines))}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}."
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows with two columns of words first; those that end early are filled up."""
    width = len(rows[0])
    return markdown_rows([[*row, *[""] * (width - len(row))] for row in rows], text=(0, 1))


def _names(cell: Cell) -> list[str]:
    return [pairing.method_name(cell), pairing.variant_name(cell), f"{cell.imbalance_factor:g}"]


def _cells(table: str, cell: Cell, group: Group, columns: Iterable[str]) -> list[str]:
    """Means over the runs; if none is finished, why, and with which command they are trained."""
    if group.runs:
        return pairing.cells_of_means(group, columns)
    if group.diverged:
        return ["diverged"]
    return [f"not run: `python -m spa_jax.reproduce {table} --only={cell.group_name}`"]


def seeds_of(group: Group) -> str:
    """How many seeds a row is of, and of how many where some are missing or diverged."""
    found = len(group.runs)
    text = f"{found}" if found == group.planned else f"{found} of {group.planned}"
    return f"{text}, {group.diverged} diverged" if group.diverged else text


def _change(difference: Difference | None, column: str = "last") -> str:
    return spread_text(difference.columns[column], True) if difference else ""


def _validation(record: pairing.Record | None) -> str:
    if record is None:
        return "not run"
    summary = record["summary"]
    return number_text(summary["validation_accuracy"]["last"], True) if summary else "diverged"

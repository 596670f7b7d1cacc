"""The reproduction's tables as Markdown, made from its records; what was not run says so."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from spa_jax.dynamics.statistics import paired_differences, statistics
from spa_jax.reproduction.cells import TUNING, Cell, settings_name, tuning_cells
from spa_jax.reproduction.tables import TABLES, Records

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


def results_table(table: str, records: Records, wanted: Callable[[Cell], bool]) -> str:
    """A row for each group of runs that differ in the seed, next to its difference to no SpA.

    Args:
      table: a name in :data:`spa_jax.reproduction.tables.TABLES`.
      records: its records so far.
      wanted: which cells the table is of.

    Returns:
      A Markdown table: accuracies in percent, mean ± sample standard deviation; the difference to
      the same method without SpA, paired by seed, ± half its 95% interval; "not run" where runs
      are missing, with how many there are.
    """
    by_name = {record["cell"]: record for record in records}
    diverged = {record["cell"] for record in records if not record["summary"]}
    groups: dict[Cell, list[Cell]] = {}
    for cell in TABLES[table].cells(records):
        if wanted(cell):
            # Groups whose settings wait for tuning are those that will have them.
            groups.setdefault(cell.group, []).append(cell)
    rows = [["method", "SpA", "IF", "seeds", *_COLUMNS, "last, minus none"]]
    for group, cells in groups.items():
        found = [
            by_name[cell.name]
            for cell in cells
            if cell.name in by_name and cell.name not in diverged
        ]
        variant = _NAMES[group.spa_method] + (f" ({group.variant})" if group.variant else "")
        row = [_NAMES[group.method], variant, f"{group.imbalance_factor:g}"]
        if not found:
            why = "diverged" if any(cell.name in diverged for cell in cells) else "not run"
            rows.append([*row, f"0 of {len(cells)}", why, *[""] * len(_COLUMNS)])
            continue
        done = f"{len(found)}" if len(found) == len(cells) else f"{len(found)} of {len(cells)}"
        columns = statistics([record["summary"] for record in found], _COLUMNS)
        values = [_cell(columns[name], "std", name in _ACCURACIES) for name in _COLUMNS]
        rows.append([*row, done, *values, _difference(found, records)])
    return _markdown(rows)


def methods_table(records: Records) -> str:
    """What each method without SpA reaches on Fashion-MNIST-LT, next to cross-entropy."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        place = (record["imbalance_factor"], record["class_order"])
        wanted = place == (100, "reversed") and record["seed"] < 3
        if _is_base(record) and wanted and record["summary"]:
            runs.setdefault(record["method"], []).append(record)
    columns = {name: _ACCURACIES[name] for name in ("last", "many", "medium", "few")}
    rows = [["method", "seeds", *columns, "last, minus cross-entropy", "few, minus cross-entropy"]]
    baseline = {record["seed"]: record["summary"] for record in runs.get("cross_entropy", [])}
    for method, found in runs.items():
        of_method = statistics([record["summary"] for record in found], columns)
        row = [_NAMES[method], str(len(found))]
        row += [_cell(value, "std", True) for value in of_method.values()]
        shared = [record for record in found if record["seed"] in baseline]
        if method != "cross_entropy" and shared:
            pairs = [baseline[record["seed"]] for record in shared]
            difference = paired_differences([r["summary"] for r in shared], pairs, columns)
            row += [_cell(difference[name], "half_width", True, "+") for name in ("last", "few")]
        rows.append([*row, *[""] * (len(rows[0]) - len(row))])
    return _markdown(rows)


def tuning_table(table: str, records: Records, class_order: str, imbalance_factor: float) -> str:
    """The validation accuracy of every strength that was tried, one row for each."""
    by_name = {record["cell"]: record for record in records}
    rows = [["SpA", "strength", "cross-entropy", "GLMC"]]
    for spa_method, choices in TUNING.items():
        for settings in choices:
            row = [_NAMES[spa_method], f"`{settings_name(settings)}`"]
            for method in ("cross_entropy", "glmc"):
                cells = tuning_cells(method, class_order, imbalance_factor)
                names = [
                    cell.name
                    for cell in cells
                    if cell.spa_method == spa_method and cell.variant == settings_name(settings)
                ]
                record = by_name.get(names[0])
                row.append(_validation(record))
            rows.append(row)
    return _markdown(rows)


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


def _difference(runs: Sequence[Mapping[str, Any]], records: Records) -> str:
    """Last accuracy minus that of the same method without SpA, over the seeds that both have."""
    first, same = runs[0], ("class_order", "method", "imbalance_factor")
    if _is_base(first):
        return ""
    baseline = {
        record["seed"]: record["summary"]
        for record in records
        if _is_base(record) and record["summary"] and all(record[key] == first[key] for key in same)
    }
    shared = [run for run in runs if run["seed"] in baseline]
    if not shared:
        return "-"
    columns = {"last": _ACCURACIES["last"]}
    pairs = [baseline[run["seed"]] for run in shared]
    difference = paired_differences([run["summary"] for run in shared], pairs, columns)
    return _cell(difference["last"], "half_width", True, sign="+")


def _is_base(record: Mapping[str, Any]) -> bool:
    """Whether it is a final run of a method as it is, without SpA."""
    plain = record["spa_method"] == "none" and not record["variant"]
    return plain and record["stage"] == "final"


def _cell(value: Mapping[str, float | None], spread: str, in_percent: bool, sign: str = "") -> str:
    mean, width = value["mean"], value[spread]
    if mean is None:
        return "-"
    scale, digits = (100, 1) if in_percent else (1, 3)
    text = f"{scale * mean:{sign}.{digits}f}"
    return text if width is None else f"{text} ± {scale * width:.{digits}f}"


def _validation(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not run"
    summary = record["summary"]
    return f"{100 * summary['validation_accuracy']['last']:.1f}" if summary else "diverged"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    lines = [header, ["---", "---"] + ["---:"] * (len(header) - 2), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fashion(stage: str, factor: float | None, order: str = "reversed") -> Callable[[Cell], bool]:
    """Cells of a stage, imbalance factor (None: any) and class order."""

    def wanted(cell: Cell) -> bool:
        of_factor = factor is None or cell.imbalance_factor == factor
        return cell.stage == stage and of_factor and cell.class_order == order

    return wanted


SECTIONS: Mapping[str, Callable[[Records], str]] = MappingProxyType(
    {
        "origin": origin,
        "methods": methods_table,
        "tuning": lambda records: tuning_table("fashion_mnist", records, "reversed", 100.0),
        "if100": lambda records: results_table("fashion_mnist", records, _fashion("final", 100.0)),
        "if200": lambda records: results_table("fashion_mnist", records, _fashion("final", 200.0)),
        "ablation": lambda records: results_table(
            "fashion_mnist", records, _fashion("ablation", 100.0)
        ),
        "label": lambda records: results_table(
            "fashion_mnist", records, _fashion("final", 100.0, "label")
        ),
        "imbalance": lambda records: results_table(
            "fashion_mnist",
            records,
            lambda cell: (
                cell.stage == "final"
                and cell.method == "glmc"
                and cell.imbalance_factor not in (100, 200)
            ),
        ),
    }
)
"""The tables of Fashion-MNIST-LT by name."""

"""The sections on frozen features: what was chosen, results by imbalance factor, controls."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from spa_jax.reporting.statistics import statistics
from spa_jax.reporting.table_text import markdown_rows, number_text, spread_text
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.feature_tables import HEADS, IMBALANCE_FACTORS, METHODS
from spa_jax.training.variants import VARIANTS
from studies.names import name_of
from studies.reproduction import claim, pairing
from studies.reproduction.pairing import Difference, Group, TableRuns, Wanted, having
from studies.reproduction.results_tables import seeds_of

_COLUMNS = ("last", "many", "medium", "few", pairing.COSINE)


def results(factor: float, runs: TableRuns) -> str:
    """A row for each method and variant, as tuned, and what a variant changes."""
    groups = runs.where(_results(factor)).items()
    groups = dict(sorted(groups, key=lambda item: [*METHODS].index(item[0].method)))
    rows = [["method", "SpA", "settings", "seeds", *_COLUMNS, "last, minus none"]]
    for cell, group in _begun(groups).items():
        change = pairing.minus_none(group.runs, runs.records)
        names = [name_of(cell.method), name_of(cell.spa_method), _settings(group)]
        rows.append([*names, seeds_of(group), *_cells(group), _text(change)])
    return _with_missing(markdown_rows(rows, text=(0, 1, 2)), groups, runs.table)


def changes(factor: float, runs: TableRuns) -> str:
    """Sentences on what variants change, once every row has its seeds."""
    return claim.changes_sentences(_results(factor), pairing.pair_name, runs)


def controls(factor: float, runs: TableRuns) -> str:
    """Cross-entropy aligned by SpA, and what else could be behind a gain."""
    methods = (*HEADS, "cross_entropy")  # of which the last alone has controls
    wanted = having(method=methods, stage=("final", "control"), imbalance_factor=factor)
    groups = runs.where(wanted)
    is_plain = having(stage="final", method="cross_entropy", spa_method="none")
    plain = next(group.runs for cell, group in groups.items() if is_plain(cell))
    rows = [["control", "seeds", *_COLUMNS, "last, minus cross-entropy"]]
    for cell, group in _begun(groups).items():
        change = None if group.runs == plain else pairing.difference_of(group.runs, plain)
        rows.append([_control_name(cell), seeds_of(group), *_cells(group), _text(change)])
    return _with_missing(markdown_rows(rows, text=(0,)), groups, runs.table)


def posthoc_tables(record: Mapping[str, Any]) -> str:
    """What was measured after training, from a record of `studies/feature_posthoc.py`."""
    rows = [["IF", "control", "seeds", "all", "many", "medium", "few"]]
    for factor, found in record["factors"].items():
        measured = {
            "nearest class mean": found["nearest_mean"],
            f"cross-entropy, tau-normalised by {found['tau']:g}": found["tau_normalised"],
        }
        for name, seeds in measured.items():
            columns = {part: (part,) for part in rows[0][3:]}
            texts = [spread_text(value, True) for value in statistics(seeds, columns).values()]
            rows.append([factor, name, str(len(seeds)), *texts])
    gains = [["IF", "method", "SpA", "gain over the test images, 95% interval"]]
    for factor, found in record["factors"].items():
        for name, (mean, low, high) in found["image_intervals"].items():
            method, variant = name.split()
            ends = [number_text(end, True, 2, sign="+") for end in (mean, low, high)]
            gains.append([factor, name_of(method), name_of(variant), "{} [{}, {}]".format(*ends)])
    origin = (
        f"From the runs of `{record['table']}` until {record['runs_until']}; the intervals are of "
        f"{record['resamples']} resamples of the test images; jax {record['jax']}."
    )
    return "\n\n".join([markdown_rows(rows, (1,)), markdown_rows(gains, (1, 2)), origin])


def feature_sections() -> dict[str, Any]:
    """By name, for the page."""
    parts = {"results": results, "changes": changes, "controls": controls}
    return {
        f"{part}_if{factor:g}": functools.partial(make, factor)
        for factor in sorted(IMBALANCE_FACTORS)
        for part, make in parts.items()
    }


def _results(factor: float) -> Wanted:
    return having(stage="final", imbalance_factor=factor, method=(*METHODS,))


def _control_name(cell: Cell) -> str:
    if cell.stage == "control":
        if cell.spa_method == "slerp":
            return "SLERP's angles in random directions"
        return f"weight decay {float(cell.variant.removeprefix('decay=')):g}"
    if cell.method in HEADS:
        return {"normalised": "weights of length 1", "cosine": "cosine head"}[cell.method]
    return f"with {name_of(cell.spa_method)}" if cell.spa_method != "none" else "cross-entropy"


def _settings(group: Group) -> str:
    """What tuning chose, as the runs have it."""
    if not group.runs:
        return ""
    config, variant = group.runs[0]["config"], group.runs[0]["spa_method"]
    optimizer, own = config["optimizer"], config["spa"].get(variant, {})
    base = f"{config['epochs']} epochs, rate {optimizer['learning_rate']:g}, "
    entry = VARIANTS[variant]
    found = ", ".join(f"{key} {own[key]:g}" for key in entry.make(entry.options()).traced)
    return found or f"{base}decay {optimizer['weight_decay']:g}"


def _begun(groups: Mapping[Cell, Group]) -> dict[Cell, Group]:
    return {cell: group for cell, group in groups.items() if group.runs or group.diverged}


def _with_missing(rows: str, groups: Mapping[Cell, Group], table: str) -> str:
    """The rows, if there are any, and the command for those that are not there."""
    begun = _begun(groups)
    missing = [cell.group_name for cell in groups if cell not in begun]
    if not missing:
        return rows
    note = (
        f"Not run: {len(missing)} of {len(groups)} rows. `python -m spa_jax.reproduce {table}` "
        f"trains all that is missing; one row alone: `--only={missing[0]}`"
    )
    others = ", ".join(f"`{name}`" for name in missing[1:])
    note += f", or {others}." if begun and others else ", and so on." if others else "."
    return f"{rows}\n\n{note}" if begun else note


def _cells(group: Group) -> Sequence[str]:
    if not group.runs:
        return ["diverged", *[""] * (len(_COLUMNS) - 1)]
    return pairing.cells_of_means(group, _COLUMNS)


def _text(change: Difference | None) -> str:
    return spread_text(change.columns["last"], True, 2) if change else ""

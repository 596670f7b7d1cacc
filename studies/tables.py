"""Records as the Markdown that the pages show, with where their numbers come from."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from spa_jax.compare import title_of
from spa_jax.files import write_json
from spa_jax.reporting.statistics import note_on
from spa_jax.reporting.table_text import cells_of, markdown_rows, spread_text
from spa_jax.sweep import seeds_text
from studies.names import machine_text, name_of
from studies.reproduction.feature_sections import posthoc_tables
from studies.study import STUDIES, study_tables

Record = Mapping[str, Any]


def record_table(record: Record) -> str:
    """The tables of any record in `results/`, by the benchmark or study that it names.

    One that names none is of `python -m spa_jax.compare`.
    """
    kind = record.get("benchmark", record.get("study"))
    return TABLES.get(kind, comparison_tables)(record).strip()


def publish(benchmark: str, numbers: Record, path: str | None = None) -> None:
    """Prints the tables of what a benchmark found, and writes its record.

    Args:
      benchmark: its name in :data:`TABLES`.
      numbers: what the record holds beside the name, the date and the version of jax.
      path: a file for it; None: it is not written.
    """
    date = datetime.now(UTC).date().isoformat()
    record = {"benchmark": benchmark, "date": date, "jax": jax.__version__, **numbers}
    print(record_table(record))
    if path:
        write_json(Path(path), record)


def input_share_table(record: Record) -> str:
    """What input costs of a step, from a record of `benchmarks/input_share.py`."""
    rows = [["augmentation", "step, ms", "input alone, ms", "share"]]
    for row in record["rows"]:
        step, alone = row["step_ms"], row["input_ms"]
        share = f"{100 * alone / step:.1f} %"
        rows.append([row["augmentation"], f"{step:.1f}", f"{alone:.2f}", share])
    config = record["config"]
    where = f"{config['data']['name']}, batch {config['batch_size']}"
    return f"{markdown_rows(rows)}\n\n{where}; {_origin(record)}"


def input_rate_table(record: Record) -> str:
    """How fast photographs are read, from a record of `benchmarks/input_rate.py`."""
    rows = [["photographs", "work", "images per CPU second", "of bare decode", "of the same work"]]
    for size, measured in record["sizes"].items():
        for name, row in measured["rows"].items():
            shares = (row["share_of_bare_decode"], row["share_of_decode_crop_resize"])
            rate = f"{row['images_per_processor_second']:,.0f}"
            rows.append([size, name, rate, *(f"{share:.0%}" for share in shares)])
    machine = record["machine"]
    origin = (
        f"JPEG quality {record['quality']}; Pillow {machine['pillow']}, libjpeg-turbo "
        f"{machine['libjpeg_turbo']}, {machine['cpu_count']} CPU cores; {record['date']}."
    )
    return f"{markdown_rows(rows)}\n\n{origin}"


def sweep_table(record: Record) -> str:
    """A grid trained in turn and as one program, from `benchmarks/vmapped_grid.py`."""
    runs = len(next(iter(record["ways"].values()))["accuracies"])
    rows = [[f"{runs} runs", "wall time, s", "CPU time, s", "mean test accuracy, %"]]
    for name, way in record["ways"].items():
        mean = 100 * sum(way["accuracies"]) / runs
        times = [f"{way['seconds']:.0f}", f"{way['processor_seconds']:.0f}"]
        rows.append([name, *times, f"{mean:.2f}"])
    change = spread_text(record["differences"]["test accuracy"], in_percent=True, digits=2)
    apart = ", ".join(
        f"{row['difference']:.0e} after {row['steps']} steps in {row['type']}"
        for row in record["agreement"]
    )
    config = record["config"]
    grid = " x ".join(
        f"{len(values)} values of {field}" for field, values in record["axes"].items()
    )
    text = (
        f"Together minus one after another, run by run: {change} points of accuracy (half the 95% "
        f"interval). Largest difference of a parameter: {apart}. {config['data']['name']}, "
        f"{grid} x {len(record['seeds'])} seeds, {config['epochs']} epochs, times with "
        f"compilation; {_origin(record)}"
    )
    return f"{markdown_rows(rows)}\n\n{text}"


def steps_table(record: Record) -> str:
    """Milliseconds of a step side by side, and what each takes longer than the first: a record of
    `benchmarks/overhead.py`, `benchmarks/step_profile.py` or `benchmarks/peers/torch_steps.py`."""
    steps = record["milliseconds"]
    first = next(iter(next(iter(steps.values()))))
    rows = [[f"milliseconds a step (against {first})", *next(iter(steps.values()))]]
    for name, times in steps.items():
        cells = (f"{t:.4g} ({100 * (t / times[first] - 1):+.1f} %)" for t in times.values())
        rows.append([name, *cells])
    return f"{markdown_rows(rows)}\n\n{_origin(record)}"


def demo_time_table(record: Record) -> str:
    """Seconds of each part of the demo, one column a time, from `benchmarks/demo_time.py`."""
    return f"{_rounds(record['seconds'])}\n\n{_origin(record)}"


def suite_time_table(record: Record) -> str:
    """Seconds of the suite, one column a time, from `benchmarks/suite_time.py`."""
    text = (
        f"{record['passed']:,} passed and {record['skipped']} skipped; the largest process took "
        f"{record['peak_bytes'] / 1e9:.2f} GB. {_origin(record)}"
    )
    return f"{_rounds(record['seconds'])}\n\n{text}"


def _rounds(seconds: Mapping[str, Sequence[float]]) -> str:
    """What took how long, one column for each time that it was measured."""
    times = [f"time {1 + place}" for place in range(len(next(iter(seconds.values()))))]
    rows = [[name, *(f"{second:.1f}" for second in row)] for name, row in seconds.items()]
    return markdown_rows([["seconds", *times], *rows])


def alignment_cost_table(record: Record) -> str:
    """What SpA's operations cost alone, from a record of `benchmarks/alignment_cost.py`."""
    updates = record["microseconds"]
    first = next(iter(next(iter(updates.values()))))
    calls = [["microseconds a call (times the first)", *next(iter(updates.values()))]]
    for head, times in updates.items():
        cells = (f"{t:,.0f} ({t / times[first]:.1f})" for t in times.values())
        calls.append([head, *cells])
    return f"{markdown_rows(calls)}\n\n{_origin(record)}"


def many_classes_table(record: Record) -> str:
    """Steps with a head of many classes, from a record of `benchmarks/many_classes.py`."""
    rows = [["classes", "step, ms", "with SpA-Proj, ms", "MB a device", "not cut, MB a device"]]
    rows[0].append("peak of the process, MB")
    for row in record["rows"]:
        times, held = row["milliseconds"], row["device_bytes"]
        sizes = (held["cut"], held["replicated"], row["peak_bytes"])
        cells = [f"{times[name]:,.0f}" for name in ("none", "proj")]
        rows.append([f"{row['classes']:,}", *cells, *(f"{size / 1e6:,.0f}" for size in sizes)])
    shape = record["shape"]
    text = (
        f"D = {shape['dim']}, B = {shape['batch']}, {shape['data']} x {shape['classes']} emulated "
        f"devices in one process; {_origin(record)}"
    )
    return f"{markdown_rows(rows, text=())}\n\n{text}"


def scaling_tables(record: Record) -> str:
    """What a step adds up over devices, and a model of its time, from `benchmarks/scaling.py`."""
    items = [*record["rows"][0]["expected"]]
    counts = [["network", "mode", *items, "all of these, MB", "added up, MB", "all-reduces"]]
    for row in record["rows"]:
        needed = sum(row["expected"].values())
        numbers = [f"{number:,}" for number in row["expected"].values()]
        sizes = [f"{4e-6 * size:.2f}" for size in (needed, row["moved"])]
        counts.append([row["network"], row["mode"], *numbers, *sizes, str(row["collectives"])])
    names = ("operations", "bytes", "latencies")
    times = [["network", "machine", "images a device", *names, "one after another"]]
    times[0] += ["operations' share of it"]
    for row in record["milliseconds"]:
        parts = [row[name] for name in names]
        share = f"{100 * row['operations'] / sum(parts):.0f} %"
        cells = [f"{part:.2f}" for part in (*parts, sum(parts))]
        times.append([row["network"], row["machine"], str(row["images"]), *cells, share])
    tables = [markdown_rows(counts, text=(0, 1)), markdown_rows(times, text=(0, 1))]
    return "\n\n".join([*tables, f"Times in milliseconds; {_origin(record)}"])


def error_exponents_table(record: Record) -> str:
    """Exponents in closed form and by simulation, from `studies/theory/error_exponents.py`."""
    rows = [["classes", "misalignment", "largest angle", "exponent", "fitted", "off by"]]
    rows[0] += ["Theorem 5", "exponent / Theorem 5"]
    for row in record["rows"]:
        exponent, bound = row["exponent"], row["theorem_5_at_largest_angle"]
        line = [str(row["num_classes"]), row["case"], f"{row['largest_angle_degrees']:.0f}°"]
        line += [f"{exponent:.4f}", f"{row['fitted_exponent']:.4f}"]
        line += [f"{100 * (row['fitted_exponent'] / exponent - 1):+.2f} %"]
        rows.append([*line, f"{bound:.4f}", f"{exponent / bound:.3f}"])
    return markdown_rows(rows, text=(1,))


def methods_table(record: Record) -> str:
    """Methods next to the first, cross-entropy, from `studies/methods.py`."""
    means = record["statistics"]
    baseline = next(iter(means))
    header = ["method", *next(iter(means.values())), f"minus {name_of(baseline)}", "within 3"]
    rows = [header]
    for method, found in means.items():
        cells = ["", ""]
        if method != baseline:
            change = record["differences"][method]["test accuracy"]
            cells = [
                spread_text(change, in_percent=True),
                "yes" if round(change["mean"], 6) >= -0.03 else "no",
            ]
        rows.append([name_of(method), *cells_of(found).values(), *cells])
    split = record["split"]
    text = (
        f"{record['data']}, IF {split['imbalance_factor']:g}, classes in {record['class_order']} "
        f"order, {sum(split['class_counts'])} training images, {record['epochs']} epochs, the last "
        f"one's accuracies, {seeds_text(record['seeds'])}: mean ± sample standard deviation, and "
        "the mean paired difference of test accuracy ± half its 95% interval. Split "
        f"`{split['checksum'][:16]}`; {_origin(record)}"
    )
    return f"{markdown_rows(rows)}\n\n{text}"


def faults_table(record: Record) -> str:
    """Faults by kind and by how the runs came through, from `benchmarks/faults.py`."""
    return _outcomes_table(record, "injected", ("survived", "refused", "lost", "wrong", "hung"))


def hostile_input_table(record: Record) -> str:
    """Inputs by kind and by how they were taken, from `benchmarks/hostile_input.py`."""
    faults = ("traceback", "executed", "written outside", "hung")
    return _outcomes_table(record, "drawn", ("read", "refused", *faults))


def _outcomes_table(record: Record, total: str, outcomes: tuple[str, ...]) -> str:
    counts = record["outcomes"] | {"all": sum(map(Counter, record["outcomes"].values()), Counter())}
    rows = [["", total, *outcomes]]
    for kind, found in counts.items():
        numbers = [sum(found.values()), *(found.get(outcome, 0) for outcome in outcomes)]
        rows.append([kind, *map(str, numbers)])
    return f"{markdown_rows(rows)}\n\nSeed {record['seed']}; {_origin(record)}"


def comparison_tables(comparison: Record) -> str:
    """A comparison of variants: means, paired differences, and where they come from."""
    means = comparison["statistics"]
    parts = {"method": means, f"minus {next(iter(means))}": comparison["differences"]}
    tables = []
    for name, part in parts.items():
        rows = [[method, *cells_of(found).values()] for method, found in part.items()]
        tables.append(markdown_rows([[name, *next(iter(means.values()))], *rows]))
    origin = (
        f"{title_of(comparison)}: mean ± sample standard deviation; below, the "
        "mean paired difference ± half its 95% interval. Split "
        f"`{comparison['split']['checksum'][:16]}`; jax {comparison['versions']['jax']}, "
        f"{machine_text(comparison['hardware'])}; {comparison['date']}."
    )
    note = note_on(next(iter(means.values())))
    return "\n\n".join(filter(None, [*tables, origin, note])) + "\n"


def _origin(record: Record) -> str:
    """Version, machine and date."""
    machine = record["hardware"]
    load = f", load {machine['load']:.0f}" if "load" in machine else ""
    return f"jax {record['jax']}, {machine_text(machine)}{load}; {record['date']}."


TABLES: Mapping[str | None, Callable[[Record], str]] = {
    "input_share": input_share_table,
    "input_rate": input_rate_table,
    "sweep": sweep_table,
    "overhead": steps_table,
    "torch_steps": steps_table,
    "step_profile": steps_table,
    "demo_time": demo_time_table,
    "suite_time": suite_time_table,
    "members": steps_table,
    "alignment_cost": alignment_cost_table,
    "many_classes": many_classes_table,
    "faults": faults_table,
    "hostile_input": hostile_input_table,
    "scaling": scaling_tables,
    "error_exponents": error_exponents_table,
    "methods": methods_table,
    "feature_posthoc": posthoc_tables,
    **dict.fromkeys(STUDIES, study_tables),
}
"""By the name of a benchmark or a study."""

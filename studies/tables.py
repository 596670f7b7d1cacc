"""Records of benchmarks as Markdown tables for the README, with where they come from."""

from typing import Any

from spa_jax.reporting.table_text import difference_text, markdown_rows


def input_share_table(record: dict[str, Any]) -> str:
    """What input costs of a step, from a record of `benchmarks/input_share.py`."""
    rows = [["augmentation", "step, ms", "input alone, ms", "share"]]
    for row in record["rows"]:
        step, alone = row["step_ms"], row["input_ms"]
        share = f"{100 * alone / step:.1f} %"
        rows.append([row["augmentation"], f"{step:.1f}", f"{alone:.2f}", share])
    machine, config = record["hardware"], record["config"]
    origin = (
        f"{config['data']['name']}, batch {config['batch_size']}; jax {record['jax']}, "
        f"{machine['cpu_count']} CPU cores, {machine['platform']}; {record['date']}."
    )
    return f"{markdown_rows(rows)}\n\n{origin}\n"


def input_rate_table(record: dict[str, Any]) -> str:
    """How fast photographs are read, from a record of `benchmarks/input_rate.py`."""
    rows = [["photographs", "work", "images per CPU second", "of bare decode", "of the same work"]]
    for size, measured in record["sizes"].items():
        for name, row in measured["rows"].items():
            rows.append(
                [
                    size,
                    name,
                    f"{row['images_per_processor_second']:,.0f}",
                    f"{row['share_of_bare_decode']:.0%}",
                    f"{row['share_of_decode_crop_resize']:.0%}",
                ]
            )
    machine = record["machine"]
    origin = (
        f"JPEG quality {record['quality']}; Pillow {machine['pillow']}, libjpeg-turbo "
        f"{machine['libjpeg_turbo']}, {machine['cpu_count']} CPU cores; {record['date']}."
    )
    return f"{markdown_rows(rows)}\n\n{origin}\n"


def sweep_table(record: dict[str, Any]) -> str:
    """A grid trained one run after another and as one program, from `benchmarks/sweep.py`."""
    runs = len(next(iter(record["ways"].values()))["accuracies"])
    rows = [[f"{runs} runs", "wall time, s", "CPU time, s", "mean test accuracy, %"]]
    for name, way in record["ways"].items():
        mean = 100 * sum(way["accuracies"]) / runs
        times = [f"{way['seconds']:.0f}", f"{way['processor_seconds']:.0f}"]
        rows.append([name, *times, f"{mean:.2f}"])
    change = difference_text(record["differences"]["test accuracy"], in_percent=True, digits=2)
    apart = ", ".join(
        f"{row['difference']:.0e} after {row['steps']} steps in {row['type']}"
        for row in record["agreement"]
    )
    machine, config = record["hardware"], record["config"]
    grid = " x ".join(
        f"{len(values)} values of {field}" for field, values in record["axes"].items()
    )
    text = (
        f"Together minus one after another, run by run: {change} points of accuracy (half the 95% "
        f"interval). Largest difference of a parameter: {apart}. {config['data']['name']}, "
        f"{grid} x {len(record['seeds'])} seeds, {config['epochs']} epochs, times with "
        f"compilation; jax {record['jax']}, {machine['cpu_count']} CPU cores, "
        f"{machine['platform']}, load {machine['load']:.0f}; {record['date']}."
    )
    return f"{markdown_rows(rows)}\n\n{text}\n"

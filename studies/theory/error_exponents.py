"""Checks the error exponents of docs/theory.md by simulation, and draws its figures.

python -m studies.theory.error_exponents [--docs=docs] [--record=results/error_exponents.json]

For several misalignments the closed-form exponent is put next to the one that is fitted to
importance-sampled error probabilities. The table goes to the record and between its markers in
docs/theory.md.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

import spa_jax
from spa_jax.dynamics.theory.exponents import error_exponents, exponent_bounds, overall_exponent
from spa_jax.dynamics.theory.probabilities import error_probability, fit_exponent
from spa_jax.reporting.table_text import markdown_rows
from studies.theory.cases import CASES, DEGREE, Case, exact_log_error
from studies.theory.figures import plot_decay, plot_exponents

_DOCS = flags.DEFINE_string("docs", "docs", "Folder of theory.md and of its figures.")
_RECORD = flags.DEFINE_string("record", "results/error_exponents.json", "File for the numbers.")

_SAMPLES = 50_000
_SEED = 0


def measure(case: Case, num_classes: int) -> dict[str, Any]:
    """A line of the table: exponents in closed form and fitted, next to Theorem 5."""
    means, weights = case.make(num_classes)
    closed = float(overall_exponent(error_exponents(means, weights)))
    found = [
        error_probability(means, weights, sigma, num_samples=_SAMPLES, seed=_SEED)
        for sigma in case.sigmas
    ]
    fitted = fit_exponent(case.sigmas, [one.log_estimate for one in found]).exponent
    angles = spa_jax.row_angles(means, weights)
    bounds = exponent_bounds(angles)
    exact = [exact_log_error(means, weights, s) for s in case.sigmas] if case.exact else None
    return {
        "case": case.name,
        "num_classes": num_classes,
        "largest_angle_degrees": float(angles.max()) / DEGREE,
        "mean_angle_degrees": float(angles.mean()) / DEGREE,
        "exponent": closed,
        "fitted_exponent": fitted,
        "theorem_5_at_largest_angle": float(bounds.upper.min()),
        "lower_bound_at_largest_angle": float(bounds.lower.min()),
        "sigmas": list(case.sigmas),
        "log_probability": [one._asdict() for one in found],
        "exact_log_probability": exact,
    }


def table_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The table's cells, below its header."""
    cells = [["classes", "misalignment", "largest angle", "exponent", "fitted", "off by"]]
    cells[0] += ["Theorem 5", "exponent / Theorem 5"]
    for row in rows:
        exponent, bound = row["exponent"], row["theorem_5_at_largest_angle"]
        line = [str(row["num_classes"]), row["case"], f"{row['largest_angle_degrees']:.0f}°"]
        line += [f"{exponent:.4f}", f"{row['fitted_exponent']:.4f}"]
        line += [f"{100 * (row['fitted_exponent'] / exponent - 1):+.2f} %"]
        cells.append([*line, f"{bound:.4f}", f"{exponent / bound:.3f}"])
    return cells


def write_table(page: Path, header: list[str], body: list[list[str]]) -> None:
    """Puts the table between its markers in the page, if there is one."""
    if not page.exists():
        return
    markdown = markdown_rows([header, *body], text=(1,))
    before, rest = page.read_text().split("<!-- table -->\n")
    _, after = rest.split("<!-- end -->")
    page.write_text(f"{before}<!-- table -->\n{markdown}\n<!-- end -->{after}")


def main(argv: list[str]) -> None:
    """Measures, prints the table, and writes record, figures and the table in the page."""
    del argv
    rows = [measure(case, num_classes) for num_classes in (3, 10, 100) for case in CASES]
    header, *body = table_rows(rows)
    table = Table(*header)
    for line in body:
        table.add_row(*line)
    Console(width=130).print(table)
    record = {
        "benchmark": "error_exponents",
        "date": datetime.now(UTC).date().isoformat(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "num_samples": _SAMPLES,
        "seed": _SEED,
        "confidence": 0.99,
        "rows": rows,
    }
    Path(_RECORD.value).write_text(json.dumps(record, indent=1) + "\n")
    docs = Path(_DOCS.value)
    (docs / "theory").mkdir(parents=True, exist_ok=True)
    plot_exponents(docs / "theory" / "exponents.png")
    plot_decay(docs / "theory" / "decay.png")
    write_table(docs / "theory.md", header, body)


if __name__ == "__main__":
    app.run(main)

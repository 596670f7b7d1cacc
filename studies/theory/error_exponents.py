"""Checks the error exponents of docs/theory.md by simulation, for the record of its table.

python -m studies.theory.error_exponents [--record=FILE]

For several misalignments the closed-form exponent is put next to the one that is fitted to
importance-sampled error probabilities. `python -m studies.build theory` puts the table of
`results/error_exponents.json` in the page.
"""

from typing import Any

import numpy as np
from absl import app, flags

import spa_jax
from spa_jax.dynamics.theory.exponents import error_exponents, exponent_bounds, overall_exponent
from spa_jax.dynamics.theory.probabilities import error_probability, fit_exponent
from studies.tables import publish
from studies.theory.cases import CASES, DEGREE, Case, exact_log_error

_RECORD = flags.DEFINE_string("record", None, "A JSON file for the numbers.")

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


def main(argv: list[str]) -> None:
    """Measures, prints the table, and writes the record where the flag says."""
    del argv
    numbers = {
        "numpy": np.__version__,
        "num_samples": _SAMPLES,
        "seed": _SEED,
        "confidence": 0.99,
        "rows": [measure(case, num_classes) for num_classes in (3, 10, 100) for case in CASES],
    }
    publish("error_exponents", numbers, _RECORD.value)


if __name__ == "__main__":
    app.run(main)

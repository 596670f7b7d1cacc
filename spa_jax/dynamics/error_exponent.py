"""Error exponents, importable by the name of what they are: see :mod:`.theory.exponents`."""

from spa_jax.dynamics.theory.exponents import (
    ExponentBounds,
    boundary_distances,
    error_exponents,
    exponent_bounds,
    optimal_exponent,
    overall_exponent,
)

__all__ = [
    "ExponentBounds",
    "boundary_distances",
    "error_exponents",
    "exponent_bounds",
    "optimal_exponent",
    "overall_exponent",
]

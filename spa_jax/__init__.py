"""Space alignment for neural collapse in long-tailed learning, in JAX.

Keeps the classifier weights of a long-tailed classifier pointing at their class means: as an optax
gradient transformation (:func:`spa_proj`), as a function of the params after the update
(:func:`spa_slerp`), or as a loss term (:func:`spa_reg`).
"""

from spa_jax.alignment import (
    ClassMeans,
    SpaProjState,
    SpaSlerpState,
    class_cosines,
    find_kernels,
    row_angles,
    row_cosines,
    simplex_etf,
    slerp_rows,
    slerp_schedule,
    spa_proj,
    spa_reg,
    spa_slerp,
    spa_slerp_transform,
    tangent_part,
    unit_rows,
)

__version__ = "0.1.0"

__all__ = [
    "ClassMeans",
    "SpaProjState",
    "SpaSlerpState",
    "__version__",
    "class_cosines",
    "find_kernels",
    "row_angles",
    "row_cosines",
    "simplex_etf",
    "slerp_rows",
    "slerp_schedule",
    "spa_proj",
    "spa_reg",
    "spa_slerp",
    "spa_slerp_transform",
    "tangent_part",
    "unit_rows",
]

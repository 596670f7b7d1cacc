"""The paper: class means, and the three ways to keep classifier weights pointing at them."""

from spa_jax.alignment.class_means import ClassMeans, class_sums
from spa_jax.alignment.geometry import (
    row_angles,
    row_cosines,
    simplex_etf,
    slerp_rows,
    tangent_part,
    unit_rows,
)
from spa_jax.alignment.kernels import find_kernels
from spa_jax.alignment.proj import SpaProjState, spa_proj
from spa_jax.alignment.reg import class_cosines, spa_reg
from spa_jax.alignment.slerp import SpaSlerpState, slerp_schedule, spa_slerp, spa_slerp_transform

__all__ = [
    "ClassMeans",
    "SpaProjState",
    "SpaSlerpState",
    "class_cosines",
    "class_sums",
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

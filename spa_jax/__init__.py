"""Space alignment for neural collapse in long-tailed learning, in JAX.

Keeps the classifier weights of a long-tailed classifier pointing at their class means: as an optax
gradient transformation (:func:`spa_proj`), as a function of the params after the update
(:func:`spa_slerp`), or as a loss term (:func:`spa_reg`). The names are those of
:mod:`spa_jax.alignment`.
"""

from spa_jax import alignment
from spa_jax.alignment import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["__version__"]
__all__ += alignment.__all__

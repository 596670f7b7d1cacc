"""Error exponents, importable by the name of what they are: see :mod:`.theory.exponents`."""

from spa_jax.dynamics.theory.exponents import *  # noqa: F403

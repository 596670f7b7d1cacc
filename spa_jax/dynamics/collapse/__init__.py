"""Neural-collapse metrics NC1 to NC4 of features, class means and a linear classifier.

First pass over the data, on the device: :class:`NCState`. Once it is over, on the host:
:func:`metrics`. Second pass, for what needs the class means first: :func:`nc4` and
:func:`nc1_contributions`. The formulas themselves are in
:mod:`spa_jax.dynamics.collapse.measures`.
"""

from spa_jax.dynamics.collapse.examples import nc1_contributions, nc4, nc4_agreement
from spa_jax.dynamics.collapse.measures import centred_means, metrics, minority_collapse, whitening
from spa_jax.dynamics.collapse.nc_state import NCState

__all__ = [
    "NCState",
    "centred_means",
    "metrics",
    "minority_collapse",
    "nc1_contributions",
    "nc4",
    "nc4_agreement",
    "whitening",
]

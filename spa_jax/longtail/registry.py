"""The long-tailed methods by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from spa_jax.longtail.arb import make_arb
from spa_jax.longtail.cross_entropy import make_cross_entropy
from spa_jax.longtail.etf import make_etf
from spa_jax.longtail.glmc import make_glmc
from spa_jax.longtail.ldam_drw import make_ldam_drw
from spa_jax.longtail.logit_adjustment import (
    make_balanced_softmax,
    make_logit_adjustment,
    make_post_hoc_logit_adjustment,
)
from spa_jax.longtail.method import Method
from spa_jax.longtail.mixup import make_mixup


class Entry(NamedTuple):
    """A method as the configuration knows it.

    Attributes:
      make: builds it from the config's group `method`, which holds the options of all methods.
      options: names of the options that it reads.
    """

    make: Callable[[Any], Method]
    options: tuple[str, ...] = ()


METHODS: Mapping[str, Entry] = MappingProxyType(
    {
        "cross_entropy": Entry(make_cross_entropy),
        "balanced_softmax": Entry(make_balanced_softmax),
        "logit_adjustment": Entry(make_logit_adjustment, ("tau",)),
        "post_hoc_logit_adjustment": Entry(make_post_hoc_logit_adjustment, ("tau",)),
        "arb": Entry(make_arb, ("arb_counts",)),
        "ldam_drw": Entry(make_ldam_drw, ("ldam_margin", "ldam_scale", "drw_beta", "drw_epoch")),
        "mixup": Entry(make_mixup),
        "etf": Entry(make_etf, ("etf_rescaled",)),
        "glmc": Entry(
            make_glmc,
            (
                "glmc_label_power",
                "glmc_sampler_power",
                "glmc_similarity_weight",
                "glmc_projection_dim",
            ),
        ),
    }
)
"""The methods; to add one, write its file and a line here."""

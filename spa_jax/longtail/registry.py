"""The long-tailed methods by name."""

from spa_jax.longtail.arb import ArbOptions, make_arb
from spa_jax.longtail.etf import EtfOptions, make_etf
from spa_jax.longtail.glmc import GlmcOptions, make_glmc
from spa_jax.longtail.ldam_drw import LdamDrwOptions, make_ldam_drw
from spa_jax.longtail.logit_adjustment import (
    LogitAdjustmentOptions,
    make_balanced_softmax,
    make_cross_entropy,
    make_logit_adjustment,
    make_mixup,
    make_post_hoc_logit_adjustment,
)
from spa_jax.options import Entry

METHODS: dict[str, Entry] = {
    "cross_entropy": Entry(make_cross_entropy),
    "balanced_softmax": Entry(make_balanced_softmax),
    "logit_adjustment": Entry(make_logit_adjustment, LogitAdjustmentOptions),
    "post_hoc_logit_adjustment": Entry(make_post_hoc_logit_adjustment, LogitAdjustmentOptions),
    "arb": Entry(make_arb, ArbOptions),
    "ldam_drw": Entry(make_ldam_drw, LdamDrwOptions),
    "mixup": Entry(make_mixup),
    "etf": Entry(make_etf, EtfOptions),
    "glmc": Entry(make_glmc, GlmcOptions),
}
"""`make(options)` gives a `Method`; to add one, write its file and a line here."""

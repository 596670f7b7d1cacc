"""The long-tailed methods by name."""

from spa_jax.longtail import arb, etf, glmc, ldam_drw, logit_adjustment
from spa_jax.options import Entry

METHODS: dict[str, Entry] = {
    "cross_entropy": Entry(logit_adjustment.make_cross_entropy),
    "balanced_softmax": Entry(logit_adjustment.make_balanced_softmax),
    "logit_adjustment": Entry(
        logit_adjustment.make_logit_adjustment, logit_adjustment.LogitAdjustmentOptions
    ),
    "post_hoc_logit_adjustment": Entry(
        logit_adjustment.make_post_hoc_logit_adjustment, logit_adjustment.LogitAdjustmentOptions
    ),
    "arb": Entry(arb.make_arb, arb.ArbOptions),
    "ldam_drw": Entry(ldam_drw.make_ldam_drw, ldam_drw.LdamDrwOptions),
    "mixup": Entry(logit_adjustment.make_mixup),
    "etf": Entry(etf.make_etf, etf.EtfOptions),
    "glmc": Entry(glmc.make_glmc, glmc.GlmcOptions),
}
"""`make(options)` gives a `Method`; to add one, write its file and a line here."""

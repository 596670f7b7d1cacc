"""The long-tailed methods by name."""

from spa_jax.longtail import (
    arb,
    bcl,
    etf,
    focal,
    glmc,
    label_smoothing,
    lade,
    ldam_drw,
    logit_adjustment,
    remix,
    reweighting,
    ride,
)
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
    "focal": Entry(focal.make_focal, focal.FocalOptions),
    "weighted_cross_entropy": Entry(
        reweighting.make_weighted_cross_entropy, reweighting.WeightedOptions
    ),
    "class_balanced": Entry(reweighting.make_class_balanced, reweighting.ClassBalancedOptions),
    "ce_drw": Entry(reweighting.make_ce_drw, reweighting.CrossEntropyDrwOptions),
    "label_smoothing": Entry(
        label_smoothing.make_label_smoothing, label_smoothing.LabelSmoothingOptions
    ),
    "label_aware_smoothing": Entry(
        label_smoothing.make_label_aware_smoothing, label_smoothing.LabelAwareSmoothingOptions
    ),
    "lade": Entry(lade.make_lade, lade.LadeOptions),
    "remix": Entry(remix.make_remix, remix.RemixOptions),
    "bcl": Entry(bcl.make_bcl, bcl.BclOptions),
    "ride": Entry(ride.make_ride, ride.RideOptions),
}
"""`make(options)` gives a `Method`; to add one, write its file and a line here."""

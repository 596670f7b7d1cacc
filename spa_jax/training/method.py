"""What a configuration's method asks of training: views of a batch, and weights to align."""

import dataclasses
from typing import Any

from spa_jax.errors import InputError
from spa_jax.longtail.method import Method, Views
from spa_jax.longtail.registry import METHODS
from spa_jax.training.config import Config, default_config


def build_method(config: Config) -> Method:
    """The long-tailed method that `config.method` describes."""
    return METHODS[config.method.name].make(config.method)


def views_of(config: Config) -> Views:
    """What the network is shown: as the method says, and where it does not, `config.augment`."""
    views = build_method(config).views
    if views.mix == "none":
        views = dataclasses.replace(views, mix=config.augment.mix)
    if config.spa.means_from != "auto":
        views = dataclasses.replace(views, clean_means=config.spa.means_from == "clean")
    return views


def spa_options(config: Config) -> dict[str, Any]:
    """The keyword arguments that all SpA variants share."""
    classifier = config.spa.classifier
    if classifier == "auto":
        classifier = build_method(config).aligned
    paths = classifier.split(",") if isinstance(classifier, str) else classifier
    classifier = paths[0] if len(paths) == 1 else tuple(paths)
    return {"classifier": classifier, "center": config.spa.center}


def check_method(config: Config) -> None:
    """Raises InputError for settings that do not go with the method."""
    name, method = config.method.name, build_method(config)
    reads = METHODS[name].options
    for option, value in default_config().method.to_dict().items():
        if option not in ("name", *reads) and config.method[option] != value:
            raise InputError(
                f"config.method.{option} is no option of {name}, which has "
                f"{', '.join(reads) or 'none'}: set it to {value!r}, as it is by default."
            )
    if name == "ldam_drw" and config.method.drw_epoch >= config.epochs:
        raise InputError(
            f"config.method.drw_epoch={config.method.drw_epoch} is not reached in config.epochs="
            f"{config.epochs}, so that no class would be weighted: set it lower; published is "
            "epoch 160 of 200."
        )
    if views_of(config).mix == "none" and config.augment.mix_alpha != 1.0:
        raise InputError(
            f"config.augment.mix_alpha={config.augment.mix_alpha} does nothing, as no images are "
            "mixed: leave it at 1.0, or set config.augment.mix."
        )
    if method.views.mix != "none" and config.augment.mix not in ("none", method.views.mix):
        raise InputError(
            f"The method {name} mixes images itself, by {method.views.mix}: leave "
            f"config.augment.mix at 'none', not {config.augment.mix!r}."
        )
    if config.spa.means_from == "clean" and views_of(config).mix == "none":
        raise InputError(
            "config.spa.means_from=clean asks for a second forward of unmixed images, and nothing "
            "mixes them: leave it at 'auto'."
        )
    if method.fixed_kernel and config.spa.method != "none":
        raise InputError(
            f"config.spa.method={config.spa.method} has nothing to act on with the method {name}: "
            "its class weights are fixed, so that Proj and SLERP must not turn them, and Reg stops "
            "the gradient at the class means, so that it could move nothing. Set "
            "config.spa.method=none, or choose another config.method.name."
        )

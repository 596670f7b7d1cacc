"""The fields of a run's configuration, their defaults, and the checks before anything starts."""

import difflib
from typing import Any

from ml_collections import ConfigDict

from spa_jax.errors import InputError
from spa_jax.training.config_limits import CHOICES, RANGES

Config = Any
"""An `ml_collections.ConfigDict` of these fields; its attributes have no static types."""


def default_config() -> Config:
    """Every field of a run, with its default; files in `configs/` start from it."""
    return ConfigDict(
        {
            "seed": 0,
            "epochs": 30,
            "batch_size": 128,
            "eval_batch_size": 500,
            "parallel": "jit",  # jit | pmap | shard_map
            "data": {
                "name": "digits",  # digits, fashion_mnist, cifar10, cifar100 or any name of TFDS
                "folder": "",  # where the files are; "": where TFDS keeps what it prepared
                "verify": True,  # check the official CIFAR files against published checksums
                "profile": "exponential",  # exponential | step | pareto | natural
                "protocol": "ldam",  # ldam | glmc: which images of a class are taken
                "n_max": 0,  # training images of the largest class; 0: as many as there are
                "imbalance_factor": 20.0,
                "class_order": "label",  # label | reversed | permuted: which classes are large
                "class_order_seed": 0,
                "split_seed": -1,  # -1: the protocol's published one, ldam 0 and glmc 3407
                "validation": False,  # hold a tenth of each class out of the training set
                "train_list": "",  # a list of `path label` lines in place of profile and protocol
                "test_list": "",
                "shot_groups": "auto",  # see spa_jax.data.splits.shot_groups.SHOT_GROUP_RULES
                "sampler": "shuffle",  # shuffle | class_aware | square_root | reversed | power
                "sampler_power": 1.0,  # k of the sampler `power`, which draws with weights n^-k
                "feed": "auto",  # auto | device | stream: whole on the device, or in batches
            },
            "augment": {
                "crop_padding": 0,  # pixels of zeros around the image before a random crop
                "flip": False,
                "policy": "none",  # none | randaugment | autoaugment_cifar
                "randaugment_layers": 2,
                "randaugment_magnitude": 9,
                "cutout": 0,  # side of the square that is blanked
                "mix": "none",  # none | mixup | cutmix
                "mix_alpha": 1.0,  # the mixing coefficient is Beta(alpha, alpha)
                "image_size": 224,  # streams only, as the rest of this group
                "resize": 256,  # shorter side before the central crop of a test image
                "min_area": 0.08,  # smallest share of an image that a random-resized crop takes
                "color_jitter": 0.0,  # brightness, contrast and saturation
                "grey": 0.0,  # probability
                "blur": 0.0,  # probability
            },
            "model": {
                "name": "small",  # see spa_jax.training.config_limits.BACKBONES
                "widths": (16, 32),  # small, convnext: of each stage; vit: one
                "blocks": 1,  # small, convnext: in each stage; vit: layers
                "stem_stride": 1,  # small; vit, convnext: side of a patch
                "heads": 4,  # vit: of attention
                "depth": 32,  # cifar_resnet: 20, 32, 44 or 56
                "width_factor": 1,  # cifar_resnet
                "dtype": "float32",  # of the computation: float32 | bfloat16
                "batch_norm": "global",  # global | per_device, with pmap and shard_map
            },
            "method": {
                "name": "cross_entropy",  # see spa_jax.longtail.registry.METHODS
                "tau": 1.0,  # logit_adjustment, post_hoc_logit_adjustment: their strength
                "arb_counts": "batch",  # arb: class counts of the batch, or global
                "ldam_margin": 0.5,  # ldam_drw: margin of the rarest class
                "ldam_scale": 30.0,  # ldam_drw: what cosines are multiplied by
                "drw_beta": 0.9999,  # ldam_drw: of the effective number of examples
                "drw_epoch": 160,  # ldam_drw: the first epoch (from 0) with class weights
                "etf_rescaled": True,  # etf: longer prototypes for classes rare in the batch
                "glmc_label_power": 1.2,  # glmc: class weights of the second classifier, n^-k
                "glmc_sampler_power": 0.0,  # glmc: the images mixed in are drawn with weights n^-k
                "glmc_similarity_weight": 4.0,  # glmc: of the consistency of the two views
                "glmc_projection_dim": 128,  # glmc: width of the projector
            },
            "optimizer": {
                "name": "sgd",  # sgd | adamw
                "learning_rate": 0.1,  # its peak, after a linear warm-up
                "warmup_epochs": 0.0,
                "schedule": "cosine",  # cosine (to 0) | steps | spa_released
                "per_epoch": False,  # the rate changes between epochs only
                "step_epochs": (160, 180),  # steps: epochs after which the rate falls
                "step_factor": 0.01,  # steps: what it is multiplied by each time
                "momentum": 0.9,  # of sgd
                "nesterov": False,  # of sgd
                "weight_decay": 5e-4,  # on every parameter
            },
            "spa": {
                "method": "none",  # none | reg | slerp | proj
                "gamma": 0.6,  # proj: share of the harmful component that is kept
                "radial": "keep",  # proj: keep | scale
                "acts_on": "gradients",  # proj: gradients | updates
                "weight": 1.0,  # reg: weight of the loss term
                "alpha_max": 0.02,  # slerp: largest share of the angle turned at a step
                "threshold": 0.95,  # slerp: turn only below this cosine
                "decay": 0.9,  # of the class means
                "center": True,  # centre the class means by their average
                "means_from": "auto",  # auto: as the method says | clean | training view
                "classifier": "auto",  # path(s) of class weights, with commas; auto: the method's
            },
            "loader": {
                "workers": 2,  # processes that decode, one a sampler at least; 0: threads
            },
            "checkpoint": {
                "every_epochs": 1,  # 0: only at the end
                "keep": 2,
            },
            "logging": {
                "every_steps": 50,  # 0: no step lines
                "tensorboard": True,
                "plots": True,
                "collapse": False,  # measure NC1 to NC4 on training and test set at each epoch
            },
        }
    )


def check_config(config: Config) -> None:
    """Raises InputError for an unknown field, a wrong type or a value out of range."""
    _check_fields(config.to_dict(), default_config().to_dict(), "config")
    for field, choices in CHOICES:
        _check_choice(f"config.{field}", field_value(config, field), choices)
    for field, low, high in RANGES:
        value = field_value(config, field)
        if not low <= value <= high:  # NaN is not either
            raise InputError(
                f"config.{field} must be in [{low}, {high}], got {value!r}: pass "
                f"--config.{field}=VALUE with a value in that range."
            )
    if config.method.drw_beta >= 1:
        raise InputError("config.method.drw_beta must be below 1: with 1 all weights are 0 / 0.")
    if config.spa.decay >= 1:
        raise InputError("config.spa.decay must be below 1: with 1 the class means never move.")
    if config.optimizer.schedule == "spa_released" and config.epochs <= 10:
        raise InputError(
            f"config.optimizer.schedule=spa_released warms up for 10 epochs, and config.epochs="
            f"{config.epochs}: train longer, or choose another schedule."
        )
    if config.optimizer.schedule == "spa_released" and config.optimizer.warmup_epochs:
        raise InputError(
            "config.optimizer.schedule=spa_released has a warm-up of its own: leave "
            "config.optimizer.warmup_epochs at 0."
        )
    if config.optimizer.per_epoch and config.optimizer.warmup_epochs % 1:
        raise InputError(
            f"config.optimizer.warmup_epochs={config.optimizer.warmup_epochs} must be whole where "
            "the rate changes between epochs only (config.optimizer.per_epoch=True)."
        )
    steps = tuple(config.optimizer.step_epochs)
    if not all(type(step) is int and step > 0 for step in steps) or sorted(set(steps)) != [*steps]:
        raise InputError(
            f"config.optimizer.step_epochs must be positive integers that ascend, got {steps}."
        )
    widths = config.model.widths
    if not widths or not all(type(width) is int and width > 0 for width in widths):
        raise InputError(f"config.model.widths must be positive integers, got {tuple(widths)}.")
    if config.model.name == "vit" and len(widths) != 1:
        raise InputError(
            f"config.model.name=vit has tokens of one width, got config.model.widths="
            f"{tuple(widths)}: pass --config.model.widths='(WIDTH,)'."
        )


def field_value(config: Config, field: str) -> Any:
    """The value of a dotted field, such as `spa.gamma`."""
    value = config
    for key in field.split("."):
        value = value[key]
    return value


def check_field_name(field: str) -> None:
    """Raises InputError, with the nearest known name, unless the dotted name is a field."""
    known: Any = default_config().to_dict()
    where = "config"
    for key in field.split("."):
        if not isinstance(known, dict) or key not in known:
            raise InputError(_unknown_field(where, key, known))
        known, where = known[key], f"{where}.{key}"


# Fields that take a tuple of values in place of one, or of one with commas.
_SEVERAL = ("config.spa.classifier",)


def _check_fields(given: dict[str, Any], known: dict[str, Any], where: str) -> None:
    for key, value in given.items():
        if key not in known:
            raise InputError(_unknown_field(where, key, known))
        if isinstance(known[key], dict) and isinstance(value, dict):
            _check_fields(value, known[key], f"{where}.{key}")
        elif not _fits(value, known[key], several=f"{where}.{key}" in _SEVERAL):
            raise InputError(
                f"{where}.{key} must be of type {type(known[key]).__name__}, as its default "
                f"{known[key]!r} is; got {value!r} of type {type(value).__name__}."
            )
    missing = [key for key in known if key not in given]
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}: start the config file from "
            "spa_jax.training.config.default_config()."
        )


def _unknown_field(where: str, key: str, known: Any) -> str:
    if not isinstance(known, dict):
        return f"{where} is a value and has no field {key!r}."
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {where}.{close[0]}?" if close else ""
    return f"{where}.{key} is not a field.{hint} The fields of {where} are: {', '.join(known)}."


def _fits(value: Any, default: Any, several: bool) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if several and isinstance(value, tuple | list):
        return all(isinstance(part, type(default)) for part in value)
    if isinstance(default, tuple):
        return isinstance(value, tuple | list)
    return isinstance(value, type(default))


def _check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{field} must be one of {', '.join(choices)}; got {value!r}.")

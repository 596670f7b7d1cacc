"""A run's configuration: groups made of options dataclasses, read once into frozen values."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.data_options import DataOptions
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method, Views
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import NETWORKS
from spa_jax.options import CHOSEN_BY, Entry, defaults_of, option, read_options
from spa_jax.training.devices import PARALLEL_MODES
from spa_jax.training.optimizer import OptimizerOptions
from spa_jax.training.variants import VARIANTS, Variant

Config = Any
"""An `ml_collections.ConfigDict` of these fields; its attributes have no static types."""


@dataclasses.dataclass(frozen=True)
class RunLength:
    """The fields that stand outside all groups."""

    seed: int = option(0, "of the initialisation, the order and the augmentation", low=0)
    epochs: int = option(30, "passes over the training set", low=1)
    batch_size: int = option(128, "images of a step, over all devices", low=1)
    eval_batch_size: int = option(500, "images of a batch that is evaluated", low=1)
    parallel: str = option("jit", "how devices share a step", choices=PARALLEL_MODES)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The config's group `model`, but for the options of a network."""

    name: str = option("small", "the network", choices=lambda: tuple(NETWORKS))
    dtype: str = option("float32", "of the computation", choices=("float32", "bfloat16"))
    batch_norm: str = option(
        "global",
        "whose statistics: per_device with pmap and shard_map only",
        choices=("global", "per_device"),
    )


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """The config's group `method`, but for the options of a method."""

    name: str = option("cross_entropy", "the long-tailed method", choices=lambda: tuple(METHODS))


@dataclasses.dataclass(frozen=True)
class SpaOptions:
    """The config's group `spa`, but for the options of a variant."""

    method: str = option("none", "the variant of SpA", choices=lambda: tuple(VARIANTS))
    decay: float = option(0.9, "of the class means", low=0, below=1)
    center: bool = option(True, "centre the class means by their average")
    means_from: str = option(
        "auto",
        "auto: as the method says, of clean images or of the training view",
        choices=("auto", "clean", "training"),
    )
    classifier: str | tuple[str, ...] = option(
        "auto", "path(s) of class weights, with commas; auto: the method's", several=True
    )


@dataclasses.dataclass(frozen=True)
class LoaderOptions:
    """The config's group `loader`."""

    workers: int = option(2, "processes that decode, one a sampler at least; 0: threads", low=0)


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """The config's group `checkpoint`."""

    every_epochs: int = option(1, "epochs between checkpoints; 0: only at the end", low=0)
    keep: int = option(2, "the newest that are kept", low=1)


@dataclasses.dataclass(frozen=True)
class LoggingOptions:
    """The config's group `logging`."""

    every_steps: int = option(50, "steps between step lines; 0: none", low=0)
    tensorboard: bool = option(True, "write event files")
    plots: bool = option(True, "draw the run's figures at its end")
    collapse: bool = option(False, "measure NC1 to NC4 on training and test set at each epoch")


_GROUPS: Mapping[str, type] = {
    "data": DataOptions,
    "augment": AugmentOptions,
    "model": ModelOptions,
    "method": MethodOptions,
    "optimizer": OptimizerOptions,
    "spa": SpaOptions,
    "loader": LoaderOptions,
    "checkpoint": CheckpointOptions,
    "logging": LoggingOptions,
}
_REGISTRIES: Mapping[str, Mapping[str, Entry]] = {
    "model": NETWORKS,
    "method": METHODS,
    "spa": VARIANTS,
}
"""Of the groups that name something; what has options there has a group of its own."""

_RENAMED = {
    "method.tau": "method.logit_adjustment.tau or method.post_hoc_logit_adjustment.tau",
    "method.arb_counts": "method.arb.counts",
    "method.ldam_margin": "method.ldam_drw.margin",
    "method.ldam_scale": "method.ldam_drw.scale",
    "method.drw_beta": "method.ldam_drw.beta",
    "method.drw_epoch": "method.ldam_drw.epoch",
    "method.etf_rescaled": "method.etf.rescaled",
    "method.glmc_label_power": "method.glmc.label_power",
    "method.glmc_sampler_power": "method.glmc.sampler_power",
    "method.glmc_similarity_weight": "method.glmc.similarity_weight",
    "method.glmc_projection_dim": "method.glmc.projection_dim",
    "model.widths": "model.small.widths, model.convnext.widths or model.vit.width",
    "model.blocks": "model.small.blocks, model.convnext.blocks or model.vit.layers",
    "model.stem_stride": "model.small.stem_stride, or patch_size of model.convnext and model.vit",
    "model.heads": "model.vit.heads",
    "model.depth": "model.cifar_resnet.depth",
    "model.width_factor": "model.cifar_resnet.width_factor",
    "spa.gamma": "spa.proj.gamma",
    "spa.radial": "spa.proj.radial",
    "spa.acts_on": "spa.proj.acts_on",
    "spa.weight": "spa.reg.weight",
    "spa.alpha_max": "spa.slerp.alpha_max",
    "spa.threshold": "spa.slerp.threshold",
}


def default_config() -> Config:
    """Every field of a run, with its default; files in `configs/` start from it.

    What a registry names has a group of its own if it has options, such as `method.glmc`. The
    configuration is locked: a misspelt field is an error.
    """
    fields = defaults_of(RunLength)
    for group, options in _GROUPS.items():
        fields[group] = defaults_of(options)
        for name, entry in _REGISTRIES.get(group, {}).items():
            if own := defaults_of(entry.options):
                fields[group][name] = own
    return ConfigDict(fields).lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(RunLength):
    """A configuration, decided: what the parts of a program are built from.

    Attributes:
      data, augment, model, optimizer, spa, loader, checkpoint, logging: the fields of the groups.
      network: the options of the network.
      method: the long-tailed method.
      method_name: in the registry.
      views: what the network is shown of a batch.
      variant: of SpA.
      aligned: the keyword arguments that all of SpA's functions share: which kernels, centred?
      hyperparams: float32 scalars by name, which a program gets traced.
    """

    data: DataOptions
    augment: AugmentOptions
    model: ModelOptions
    network: Any
    method: Method
    method_name: str
    views: Views
    optimizer: OptimizerOptions
    spa: SpaOptions
    variant: Variant
    aligned: Mapping[str, Any]
    loader: LoaderOptions
    checkpoint: CheckpointOptions
    logging: LoggingOptions
    hyperparams: Mapping[str, np.ndarray]


def resolve(config: Config) -> RunOptions:
    """Reads a configuration into frozen values.

    Raises:
      InputError: an unknown or missing field, a wrong type, a value out of range, an option that
        would do nothing, or options that do not go together.
    """
    given = config.to_dict()
    _check_fields(given, default_config().to_dict(), "config")
    length = read_options(RunLength, given, "config")
    groups = {
        group: read_options(options, given[group], f"config.{group}")
        for group, options in _GROUPS.items()
    }
    for group, registry in _REGISTRIES.items():  # what this run does not use is checked too
        for name, entry in registry.items():
            if name in given[group]:
                read_options(entry.options, given[group][name], f"config.{group}.{name}")
    made = {group: _make_chosen(group, given[group]) for group in ("method", "spa")}
    spa, views = groups["spa"], made["method"].views
    if views.mix == "none":  # which leaves the choice to the config
        views = dataclasses.replace(views, mix=groups["augment"].mix)
    if spa.means_from != "auto":
        views = dataclasses.replace(views, clean_means=spa.means_from == "clean")
    hyperparams = {
        name: np.asarray(field_value(config, field), np.float32)
        for name, field in traced_fields(config).items()
    }
    options = RunOptions(
        **vars(length),
        **groups | {"method": made["method"]},
        network=_chosen_options("model", given["model"]),
        method_name=given["method"]["name"],
        views=views,
        variant=made["spa"],
        aligned={
            "classifier": _classifier(spa.classifier, made["method"].aligned),
            "center": spa.center,
        },
        hyperparams=hyperparams,
    )
    options.optimizer.check(options.epochs)
    options.method.check(options.epochs)
    _check_unused(options, given["method"])
    return options


def traced_fields(config: Config) -> dict[str, str]:
    """The fields whose values a program gets traced, by the name of the hyper-parameter."""
    traced = _make_chosen("spa", config.spa.to_dict()).traced
    return {
        "learning_rate": "optimizer.learning_rate",
        "weight_decay": "optimizer.weight_decay",
        **{name: f"spa.{config.spa.method}.{name}" for name in traced},
    }


def _chosen_options(group: str, fields: Mapping[str, Any]) -> Any:
    """The options of what a group names."""
    name = fields[CHOSEN_BY[group].split(".")[1]]
    own = fields.get(name, {})  # what has no options has no group
    return read_options(_REGISTRIES[group][name].options, own, f"config.{group}.{name}")


def _make_chosen(group: str, fields: Mapping[str, Any]) -> Any:
    """What a group names, made from its options."""
    name = fields[CHOSEN_BY[group].split(".")[1]]
    return _REGISTRIES[group][name].make(_chosen_options(group, fields))


def field_value(config: Config, field: str) -> Any:
    """The value of a dotted field, such as `spa.proj.gamma`."""
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


def new_name_of(key: str) -> str:
    """What became of a field of an earlier version, by the last part of its name; "" if nothing."""
    found = [f"config.{old} has a new name: {new}." for old, new in _RENAMED.items()]
    return " ".join(
        text for text, old in zip(found, _RENAMED, strict=True) if old.endswith(f".{key}")
    )


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; tuples become lists, as in JSON."""
    flat = flatten_dict(dict(config), sep=".")
    return {
        field: list(value) if isinstance(value, tuple) else value for field, value in flat.items()
    }


def _classifier(asked: Any, of_method: str) -> Any:
    """A path of class weights, or a tuple of several."""
    if asked == "auto":
        return of_method
    paths = asked.split(",") if isinstance(asked, str) else asked
    return paths[0] if len(paths) == 1 else tuple(paths)


def _check_unused(options: RunOptions, method_fields: Mapping[str, Any]) -> None:
    """Raises InputError for what was set and would do nothing, or nothing that it says."""
    method, augment, spa, name = options.method, options.augment, options.spa, options.method_name
    for other, entry in METHODS.items():
        for key, default in defaults_of(entry.options).items():
            if other != name and method_fields[other][key] != default:
                reads = ", ".join(f"{name}.{own}" for own in defaults_of(METHODS[name].options))
                raise InputError(
                    f"config.method.{other}.{key} is no option of {name}, which has "
                    f"{reads or 'none'}: set it to {default!r}, as it is by default."
                )
    if options.views.mix == "none" and augment.mix_alpha != 1.0:
        raise InputError(
            f"config.augment.mix_alpha={augment.mix_alpha} does nothing, as no images are "
            "mixed: leave it at 1.0, or set config.augment.mix."
        )
    if method.views.mix != "none" and augment.mix not in ("none", method.views.mix):
        raise InputError(
            f"The method {name} mixes images itself, by {method.views.mix}: leave "
            f"config.augment.mix at 'none', not {augment.mix!r}."
        )
    if spa.means_from == "clean" and options.views.mix == "none":
        raise InputError(
            "config.spa.means_from=clean asks for a second forward of unmixed images, and nothing "
            "mixes them: leave it at 'auto'."
        )
    if method.fixed_kernel and spa.method != "none":
        raise InputError(
            f"config.spa.method={spa.method} has nothing to act on with the method {name}: "
            "its class weights are fixed, so that Proj and SLERP must not turn them, and Reg stops "
            "the gradient at the class means, so that it could move nothing. Set "
            "config.spa.method=none, or choose another config.method.name."
        )
    if options.model.batch_norm == "per_device" and options.parallel == "jit":
        raise InputError(
            "config.model.batch_norm=per_device needs config.parallel=pmap or shard_map: under jit "
            "a batch is one batch, however many devices work on it."
        )


def _check_fields(given: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raises InputError unless two trees of groups have the same fields."""
    for key, value in given.items():
        if key not in known:
            raise InputError(_unknown_field(where, key, known))
        if isinstance(known[key], Mapping) != isinstance(value, Mapping):
            what = "a group of fields" if isinstance(known[key], Mapping) else "one value"
            raise InputError(f"{where}.{key} is {what}, got {value!r}.")
        if isinstance(value, Mapping):
            _check_fields(value, known[key], f"{where}.{key}")
    missing = [key for key in known if key not in given]
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}: start the config file from "
            "spa_jax.training.config.default_config()."
        )


def _unknown_field(where: str, key: str, known: Any) -> str:
    if not isinstance(known, Mapping):
        return f"{where} is a value and has no field {key!r}."
    field = f"{where}.{key}".removeprefix("config.")
    if field in _RENAMED:
        return new_name_of(key)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {where}.{close[0]}?" if close else ""
    return f"{where}.{key} is not a field.{hint} The fields of {where} are: {', '.join(known)}."

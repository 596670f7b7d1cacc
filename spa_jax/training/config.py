"""A run's configuration: groups made of options dataclasses, read once into frozen values."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.data_options import DataOptions
from spa_jax.errors import InputError
from spa_jax.longtail.method import Method, Views
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import CHOSEN_HEADS, NETWORKS
from spa_jax.options import (
    CHOSEN_BY,
    Entry,
    check_unread,
    defaults_of,
    is_read,
    option,
    read_options,
)
from spa_jax.training.devices import PARALLEL_MODES, MeshOptions
from spa_jax.training.guard import GuardOptions
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
    accumulation_steps: int = option(
        1, "micro-batches that a step's batch is cut into, one after another", low=1
    )
    evaluate_every: int = option(1, "epochs between evaluations; the last one has one", low=1)
    eval_batch_size: int = option(500, "images of a batch that is evaluated", low=1)
    parallel: str = option("jit", "how devices share a step", choices=PARALLEL_MODES)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The config's group `model`, but for the options of a network."""

    name: str = option("small", "the network", choices=lambda: tuple(NETWORKS))
    head: str = option(
        "auto",
        "of class weights as they are, of length 1, or of cosines; auto: the method's",
        choices=("auto", *CHOSEN_HEADS),
    )
    dtype: str = option("float32", "of the computation", choices=("float32", "bfloat16"))
    remat: bool = option(False, "compute the network's blocks again in the backward pass")
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
class InitOptions:
    """The config's group `init`: the values that a run starts from."""

    run: str = option(
        "", "folder of another run, a checkpoint or imported weights; empty: drawn by the seed"
    )
    parts: str = option(
        "all", "what is taken from it, the rest is drawn", choices=("all", "backbone")
    )


@dataclasses.dataclass(frozen=True)
class SpaOptions:
    """The config's group `spa`, but for the options of a variant."""

    method: str = option("none", "the variant of SpA", choices=lambda: tuple(VARIANTS))
    decay: float = option(0.9, "of the class means", low=0, below=1)
    center: bool = option(True, "centre the class means by their average")
    means_from: str = option(
        "auto",
        "auto: as the method says, of clean images or the training view; dataset: of all, once",
        choices=("auto", "clean", "training", "dataset"),
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
    keep_best: bool = option(False, "keep the best by validation accuracy beside them")


@dataclasses.dataclass(frozen=True)
class LoggingOptions:
    """The config's group `logging`."""

    every_steps: int = option(50, "steps between step lines; 0: none", low=0)
    tensorboard: bool = option(True, "write event files")
    plots: bool = option(True, "draw the run's figures at its end")
    collapse: bool = option(False, "measure NC1 to NC4 on training and test set at each epoch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigOptions(RunLength):
    """All that a configuration sets, but for the options of what it names; a field is a group."""

    data: DataOptions
    augment: AugmentOptions
    model: ModelOptions
    method: MethodOptions
    init: InitOptions
    optimizer: OptimizerOptions
    guard: GuardOptions
    spa: SpaOptions
    mesh: MeshOptions
    loader: LoaderOptions
    checkpoint: CheckpointOptions
    logging: LoggingOptions


_GROUPS: Mapping[str, Any] = {
    field.name: field.type
    for field in dataclasses.fields(ConfigOptions)
    if dataclasses.is_dataclass(field.type)
}
_REGISTRIES: Mapping[str, Mapping[str, Entry]] = {
    "model": NETWORKS,
    "method": METHODS,
    "spa": VARIANTS,
}
"""Of the groups that name something; what has options there has a group of its own."""


def option_fields() -> dict[str, dataclasses.Field[Any]]:
    """Every field by its dotted name; each holds its default, its meaning and its range."""
    fields = {field.name: field for field in dataclasses.fields(RunLength)}
    for group, options in _GROUPS.items():
        entries = _REGISTRIES.get(group, {}).items()
        parts = {group: options} | {f"{group}.{name}": entry.options for name, entry in entries}
        for part, held in parts.items():
            fields |= {f"{part}.{field.name}": field for field in dataclasses.fields(held)}
    return fields


def default_config() -> Config:
    """Every field of a run, with its default; files in `configs/` start from it.

    What a registry names has a group of its own if it has options, such as `method.glmc`. The
    configuration is locked: a misspelt field is an error.
    """
    defaults = {name: field.default for name, field in option_fields().items()}
    return ConfigDict(unflatten_dict(defaults, sep=".")).lock()


def flat_defaults() -> dict[str, Any]:
    """Every field of :func:`default_config` by its dotted name, in a fifth of its time."""
    return flatten_config({name: field.default for name, field in option_fields().items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(ConfigOptions):
    """A configuration, decided: what the parts of a program are built from.

    Attributes:
      network: the options of the network.
      longtail: the long-tailed method.
      views: what the network is shown of a batch.
      variant: of SpA.
      aligned: the keyword arguments that all of SpA's functions share: which kernels, centred?
      hyperparams: float32 scalars by name, which a program gets traced.
    """

    network: Any
    longtail: Method
    views: Views
    variant: Variant
    aligned: Mapping[str, Any]
    hyperparams: Mapping[str, np.ndarray]

    def check_longer(self, before: int) -> None:
        """Raises InputError unless a run of fewer epochs is the beginning of this one.

        Args:
          before: epochs of that run, whose configuration is otherwise the same.
        """
        optimizer, reason = self.optimizer, ""
        if optimizer.schedule != "steps":
            reason = f"the rate of config.optimizer.schedule={optimizer.schedule}"
        elif optimizer.warmup_epochs > before - 1:
            reason = (
                f"the rate, as config.optimizer.warmup_epochs={optimizer.warmup_epochs:g} do not "
                "fit into that run,"
            )
        elif self.variant.needs_end:
            reason = f"what config.spa.method={self.spa.method} does at a step"
        elif self.longtail.needs_end:
            reason = f"the loss of config.method.name={self.method.name}"
        if reason:
            raise InputError(
                f"A run of {before} epochs is not trained on to {self.epochs}: {reason} depends on "
                "how many epochs there are, so that a run of that length would have been another "
                f"from the start. Set config.epochs to {before}, or train anew in another workdir; "
                "with config.optimizer.schedule=steps and without what depends on it runs are "
                "trained on."
            )


def resolve(config: Config) -> RunOptions:
    """Reads a configuration into frozen values.

    Raises:
      InputError: an unknown or missing field, a wrong type, a value out of range, an option that
        would do nothing, or options that do not go together.
    """
    given, flat = config.to_dict(), flatten_config(config.to_dict())
    defaults = flat_defaults()
    check_fields(flat, defaults)
    groups: Mapping[str, Any] = {
        group: read_options(options, given[group], f"config.{group}")
        for group, options in _GROUPS.items()
    }
    chosen = {}
    for group, registry in _REGISTRIES.items():
        read = {  # what this run does not use too; what has no options has no group
            name: read_options(entry.options, given[group].get(name, {}), f"config.{group}.{name}")
            for name, entry in registry.items()
        }
        chosen[group] = read[flat[CHOSEN_BY[group]]]
    augment, spa, name = groups["augment"], groups["spa"], groups["method"].name
    method = METHODS[name].make(chosen["method"])
    method = _with_head(method, groups["model"].head, groups["optimizer"].train_only, name)
    views = method.views
    if views.mix == "none":  # which leaves the choice to the config
        views = dataclasses.replace(views, mix=augment.mix)
    if spa.means_from != "auto":
        views = dataclasses.replace(views, clean_means=spa.means_from == "clean")
    classifier = method.aligned if spa.classifier == "auto" else spa.classifier
    paths = classifier.split(",") if isinstance(classifier, str) else classifier
    options = RunOptions(
        **vars(read_options(RunLength, given, "config")),
        **groups,
        network=chosen["model"],
        longtail=method,
        views=views,
        variant=VARIANTS[spa.method].make(chosen["spa"]),
        aligned={
            "classifier": paths[0] if len(paths) == 1 else tuple(paths),
            "center": spa.center,
        },
        hyperparams={
            strength: np.asarray(flat[field], np.float32)
            for strength, field in traced_fields(config).items()
        },
    )
    options.optimizer.check(options.epochs)
    method.check(options.epochs)
    # Not those of SpA's variants: a comparison sets all of them, and each of its runs reads its
    # own.
    for field, value in flat.items():
        group = field.split(".")[0]
        if group in ("method", "model") and not is_read(field, flat) and value != defaults[field]:
            used = flat[CHOSEN_BY[group]]
            own = defaults_of(_REGISTRIES[group][used].options)
            reads = ", ".join(f"{used}.{key}" for key in own)
            raise InputError(
                f"config.{field} is no option of {used}, which has {reads or 'none'}: set it to "
                f"{defaults[field]!r}, as it is by default."
            )
    groups["data"].check_unused()
    groups["guard"].check_unused()
    _check_unused(options)
    return options


def traced_fields(config: Config) -> dict[str, str]:
    """The fields whose values a program gets traced, by the name of the hyper-parameter."""
    variant = VARIANTS[config.spa.method]
    return {
        "learning_rate": "optimizer.learning_rate",
        "weight_decay": "optimizer.weight_decay",
        **{
            name: f"spa.{config.spa.method}.{name}"
            for name in variant.make(variant.options()).traced
        },
    }


def check_field_name(field: str) -> None:
    """Raises InputError, with the nearest known name, unless the dotted name is a field."""
    known: Any = default_config().to_dict()
    where = "config"
    for key in field.split("."):
        if not isinstance(known, dict):
            raise InputError(f"{where} is a value and has no field {key!r}.")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {where}.{close[0]}?" if close else ""
            raise InputError(
                _new_name(where.removeprefix("config."), key)
                or f"{where}.{key} is not a field.{hint} The fields of {where} are: "
                f"{', '.join(known)}."
            )
        known, where = known[key], f"{where}.{key}"


def new_name_of(key: str) -> str:
    """What became of a field of an earlier version, by the last part of its name; "" if nothing."""
    return " ".join(filter(None, (_new_name(group, key) for group in _REGISTRIES)))


def _new_name(group: str, key: str) -> str:
    """Where an option stands that stood in the group itself: `spa.gamma`, `method.drw_epoch`."""
    found = [
        f"{group}.{name}.{own}"
        for name, entry in _REGISTRIES.get(group, {}).items()
        for own in defaults_of(entry.options)
        if key in (own, *(f"{part}_{own}" for part in name.split("_")))
    ]
    return f"config.{group}.{key} has a new name: {' or '.join(found)}." if found else ""


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; tuples become lists, as in JSON."""
    flat = flatten_dict(dict(config), keep_empty_nodes=True, sep=".")
    return {
        field: list(value) if isinstance(value, tuple) else value for field, value in flat.items()
    }


def check_fields(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises InputError unless two flattened configurations have the same fields."""
    for field, value in given.items():
        if field not in known:
            check_field_name(field)
            raise InputError(f"config.{field} is a group of fields, got {value!r}.")
    missing = [field for field in known if field not in given]
    if missing:
        raise InputError(
            f"config lacks {', '.join(missing)}: start the config file from "
            "spa_jax.training.config.default_config()."
        )


def _with_head(method: Method, chosen: str, train_only: str, name: str) -> Method:
    """The method with the head that was chosen; InputError if it has one of its own."""
    if chosen != "auto":
        if method.head != "linear":
            raise InputError(
                f"The method {name} fixes its head ({method.head}), so that config.model.head="
                f"{chosen} cannot be had with it: leave that at auto, or choose another "
                "config.method.name."
            )
        head, options = CHOSEN_HEADS[chosen]
        unit = chosen != "linear"
        method = dataclasses.replace(method, head=head, head_options=options, unit_weights=unit)
    if train_only == "scales":
        if method.head != "linear":
            raise InputError(
                "config.optimizer.train_only=scales learns lengths of the class weights of a "
                f"linear head, and here it is {method.head}, by config.model.head={chosen} and "
                f"config.method.name={name}: choose another, or set train_only to head."
            )
        options = {**method.head_options, "scaled": True}
        method = dataclasses.replace(method, head_options=options)
    return method


def _check_unused(options: RunOptions) -> None:
    """Raises InputError for what was set and would do nothing, or nothing that it says."""
    method, augment, spa, name = options.longtail, options.augment, options.spa, options.method.name
    init, train_only = options.init, options.optimizer.train_only
    no_mix = options.views.mix == "none"
    unread = [(no_mix, "mix_alpha", "no images are mixed")]
    check_unread(augment, "augment", unread, otherwise=", or set config.augment.mix")
    why = "config.spa.means_from=dataset computes class means once"
    check_unread(spa, "spa", [(spa.means_from == "dataset", "decay", why)])
    if method.views.mix != "none" and augment.mix != "none":
        raise InputError(
            f"The method {name} mixes images itself, by {method.views.mix}: leave "
            f"config.augment.mix at 'none', not {augment.mix!r}."
        )
    if method.views.second and augment.mix != "none":
        raise InputError(
            f"The method {name} is given two views of each image, which are not mixed: leave "
            f"config.augment.mix at 'none', not {augment.mix!r}."
        )
    if spa.means_from == "clean" and no_mix:
        raise InputError(
            "config.spa.means_from=clean asks for a second forward of unmixed images, and nothing "
            "mixes them: leave it at 'auto'."
        )
    if options.accumulation_steps > 1 and not method.splits:
        raise InputError(
            f"The loss of {name} compares the examples of a batch with each other, so that it is "
            "not the mean over micro-batches: leave config.accumulation_steps at 1, and where "
            "memory is short set config.model.remat=true or lower config.batch_size."
        )
    if method.fixed_kernel and spa.method != "none":
        raise InputError(
            f"config.spa.method={spa.method} has nothing to act on with the method {name}: "
            "its class weights are fixed, so that Proj and SLERP must not turn them, and Reg stops "
            "the gradient at the class means, so that it could move nothing. Set "
            "config.spa.method=none, or choose another config.method.name."
        )
    if not init.run and init.parts != InitOptions.parts:
        raise InputError(
            f"config.init.parts={init.parts} needs config.init.run, the folder of the run whose "
            "parts are taken: give it, or leave config.init.parts at all."
        )
    if train_only == "head" and method.fixed_kernel:
        raise InputError(
            f"config.optimizer.train_only=head leaves the method {name} nothing to do, which moves "
            "features towards fixed class weights: set it to all, or choose another "
            "config.method.name."
        )
    if train_only == "scales" and spa.method != "none":
        raise InputError(
            f"config.spa.method={spa.method} has nothing to act on with config.optimizer.train_only"
            "=scales, which learns how long class weights are and keeps where they point: set it "
            "to none, or train the head."
        )
    if train_only == "scales" and init.parts != "all":
        raise InputError(
            "config.optimizer.train_only=scales keeps the class weights of the first run: set "
            "config.init.parts=all, or the class weights would be random ones."
        )
    if train_only != "all" and not init.run:
        raise InputError(
            f"config.optimizer.train_only={train_only} trains a classifier on features that stay "
            "as they are: give the run that has learned them by config.init.run, or set it to all."
        )
    mesh = options.mesh
    if mesh.cuts_state and options.parallel != "jit":
        raise InputError(
            f"config.mesh.classes={mesh.classes} and config.mesh.fsdp={mesh.fsdp} cut the state "
            f"over the devices, and under config.parallel={options.parallel} each has all of it: "
            "set parallel to jit, or leave them at 1 and False."
        )
    if mesh.classes > 1 and options.logging.collapse:
        raise InputError(
            f"config.logging.collapse compares every two classes, and config.mesh.classes="
            f"{mesh.classes} is for so many that no device holds what that takes: leave it at "
            "False, or classes at 1."
        )
    if options.model.batch_norm == "per_device" and options.parallel == "jit":
        raise InputError(
            "config.model.batch_norm=per_device needs config.parallel=pmap or shard_map: under jit "
            "a batch is one batch, however many devices work on it."
        )

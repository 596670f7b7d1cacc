"""The fields of a run's configuration, their defaults, and the checks before anything starts."""

import difflib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spa_jax.errors import InputError
from spa_jax.files import write_text_whole

Config = Any
"""An `ml_collections.ConfigDict` of these fields; its attributes have no static types."""

SPA_METHODS = ("none", "reg", "slerp", "proj")
PARALLEL_MODES = ("jit", "pmap", "shard_map")
DATASETS = ("digits", "fashion_mnist")
OPTIMIZERS = ("sgd", "adamw")

# A run may be continued with other values of these: they do not change what is computed.
FREE_ON_RESUME = ("parallel", "checkpoint", "logging")


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
                "name": "digits",  # digits | fashion_mnist
                "folder": "",  # where the files are; digits need none
                "n_max": 110,  # training images of the largest class
                "imbalance_factor": 20.0,
                "split_seed": 0,
            },
            "augment": {
                "crop_padding": 0,  # pixels of zeros around the image before a random crop
                "flip": False,
            },
            "model": {
                "widths": (16, 32),
                "blocks": 1,
                "stem_stride": 1,
            },
            "optimizer": {
                "name": "sgd",  # sgd | adamw
                "learning_rate": 0.1,  # its peak: a linear warm-up, then a cosine to 0
                "warmup_epochs": 0.0,
                "momentum": 0.9,  # of sgd
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
                "classifier": "head/kernel",
            },
            "checkpoint": {
                "every_epochs": 1,  # 0: only at the end
                "keep": 2,
            },
            "logging": {
                "every_steps": 50,  # 0: no step lines
                "tensorboard": True,
                "plots": True,
            },
        }
    )


def check_config(config: Config) -> None:
    """Raises InputError for an unknown field, a wrong type or a value out of range."""
    _check_fields(config.to_dict(), default_config().to_dict(), "config")
    _check_choice("config.parallel", config.parallel, PARALLEL_MODES)
    _check_choice("config.data.name", config.data.name, DATASETS)
    _check_choice("config.optimizer.name", config.optimizer.name, OPTIMIZERS)
    _check_choice("config.spa.method", config.spa.method, SPA_METHODS)
    _check_choice("config.spa.radial", config.spa.radial, ("keep", "scale"))
    _check_choice("config.spa.acts_on", config.spa.acts_on, ("gradients", "updates"))
    for field, low, high in _RANGES:
        value = field_value(config, field)
        if not low <= value <= high:  # NaN is not either
            raise InputError(
                f"config.{field} must be in [{low}, {high}], got {value!r}: pass "
                f"--config.{field}=VALUE with a value in that range."
            )
    if config.spa.decay >= 1:
        raise InputError("config.spa.decay must be below 1: with 1 the class means never move.")
    widths = config.model.widths
    if not widths or not all(type(width) is int and width > 0 for width in widths):
        raise InputError(f"config.model.widths must be positive integers, got {tuple(widths)}.")


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


def flatten_config(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def differing_fields(
    one: dict[str, Any], other: dict[str, Any], free: tuple[str, ...]
) -> list[str]:
    """Fields in which two flattened configurations differ, but for the groups in `free`."""
    return [
        field
        for field in sorted(one.keys() | other.keys())
        if field.split(".")[0] not in free and one.get(field) != other.get(field)
    ]


def check_workdir(workdir: Path, config: Config) -> None:
    """Raises InputError if the workdir holds a run that was made by another config.

    Every field counts but those in `FREE_ON_RESUME`; the message lists the fields that differ.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir} is a file, and a run needs a folder: choose another.")
    path = workdir / "config.json"
    if path.exists():
        try:
            old = json.loads(path.read_text())
            if not isinstance(old, dict):
                raise ValueError("it holds no JSON object")
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error}): choose another workdir.") from error
        _check_same(flatten_config(old), flatten_config(config.to_dict()), workdir)
    elif any((workdir / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        raise InputError(
            f"{workdir} holds files of a run but no config.json: choose another workdir."
        )


def write_config(workdir: Path, config: Config) -> None:
    """Writes `config.json`, which from then on claims the workdir for this run."""
    write_text_whole(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")


# Fields that take a tuple of values in place of one.
_SEVERAL = ("config.spa.classifier",)

_RANGES = (
    ("seed", 0, 2**31 - 1),
    ("epochs", 1, 1e6),
    ("batch_size", 1, 1e7),
    ("eval_batch_size", 1, 1e7),
    ("data.n_max", 1, 1e9),
    ("data.imbalance_factor", 1, 1e9),
    ("data.split_seed", 0, 2**31 - 1),
    ("augment.crop_padding", 0, 1e3),
    ("model.blocks", 1, 1e3),
    ("model.stem_stride", 1, 1e3),
    ("optimizer.learning_rate", 0, 1e6),
    ("optimizer.warmup_epochs", 0, 1e6),
    ("optimizer.momentum", 0, 1),
    ("optimizer.weight_decay", 0, 1e6),
    ("spa.gamma", 0, 1),
    ("spa.weight", 0, 1e6),
    ("spa.alpha_max", 0, 1),
    ("spa.threshold", -1, 1),
    ("spa.decay", 0, 1),
    ("checkpoint.every_epochs", 0, 1e6),
    ("checkpoint.keep", 1, 1e6),
    ("logging.every_steps", 0, 1e9),
)


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


def _check_same(old: dict[str, Any], new: dict[str, Any], workdir: Path) -> None:
    differing = [
        f"{field} ({old.get(field)!r} there, {new.get(field)!r} now)"
        for field in differing_fields(old, new, FREE_ON_RESUME)
    ]
    if differing:
        raise InputError(
            f"{workdir} was made by another config; these fields differ: {', '.join(differing)}. "
            "Choose another folder with --workdir, or --out of spa_jax.compare, or run with the "
            "old values to continue that run."
        )

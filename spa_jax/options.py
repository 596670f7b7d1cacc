"""Options that describe themselves: frozen dataclasses with defaults, ranges and one line each.

A long-tailed method, a network or a SpA variant holds its options in its own file; the groups of a
configuration are made of them, and a registry line makes them known.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from spa_jax.errors import InputError

CHOSEN_BY = {"spa": "spa.method", "method": "method.name", "model": "model.name"}
"""Groups in which a field names what is used, and in which each name has a group of its own."""


# What 32 bits hold: steps, seeds and strengths are computed with in no more.
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 3.4028234e38


def is_read(field: str, values: Mapping[str, Any]) -> bool:
    """Whether a run reads a field: not the options of what it does not use.

    Args:
      field: a dotted name.
      values: the run's configuration by dotted names.

    Example:
      >>> values = {"spa.method": "reg", "spa.reg.weight": 1.0, "spa.proj.gamma": 0.6}
      >>> is_read("spa.reg.weight", values), is_read("spa.proj.gamma", values)
      (True, False)
    """
    group, *names = field.split(".")
    if group not in CHOSEN_BY or len(names) < 2:
        return True
    return names[0] == values.get(CHOSEN_BY[group])


def option(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Callable[[], tuple[str, ...]] | tuple[str, ...] | None = None,
    several: bool = False,
) -> Any:
    """A field of an options dataclass.

    Args:
      default: its value unless the configuration says otherwise; it fixes the type.
      meaning: one line on what it does.
      low: the smallest value that is allowed.
      high: the largest value that is allowed.
      above: a bound that is not allowed itself.
      below: a bound that is not allowed itself.
      choices: the texts that are allowed; a function where they are known later only.
      several: whether a text may also be a tuple of texts.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Options:
      ...     tau: float = option(1.0, "strength", low=0)
      >>> defaults_of(Options)
      {'tau': 1.0}
    """
    limits = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(
        default=default,
        metadata={"meaning": meaning, "choices": choices, "several": several, **limits},
    )


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of what has none."""


class Entry(NamedTuple):
    """What a registry knows by a name.

    Attributes:
      make: builds it from its options, and whatever else the registry says.
      options: the dataclass of its options.
    """

    make: Callable[..., Any]
    options: type = NoOptions


def defaults_of(options: type) -> dict[str, Any]:
    """The fields of an options dataclass with their defaults, for a configuration."""
    return {field.name: field.default for field in dataclasses.fields(options)}


def read_options(options: type, group: Mapping[str, Any], where: str) -> Any:
    """An instance of an options dataclass from a group of a configuration, checked.

    Args:
      options: the dataclass.
      group: a value for each of its fields.
      where: what messages call the group, such as "config.optimizer".

    Raises:
      InputError: a value of another type than the default's, one that is out of range, or one that
        is no choice.
    """
    values = {}
    for field in dataclasses.fields(options):
        value = group[field.name]
        _check_field(f"{where}.{field.name}", value, field)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return options(**values)


def parse_value(name: str, text: str, default: Any) -> Any:
    """A text as a value of the type of a default; of a tuple's the parts stand between commas.

    Args:
      name: what messages call it.
      text: such as "0.5", "true" or "8,16".
      default: fixes the type.

    Raises:
      InputError: a text that is no such value.

    Example:
      >>> parse_value("widths", "8,16", (32,)), parse_value("center", "false", True)
      ((8, 16), False)
    """
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(type(default[0])(part) for part in text.split(","))
        return type(default)(text)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{name} takes values of type {type(default).__name__}, as its default "
            f"{default!r} is; got {text!r}."
        ) from error


def check_options(instance: Any, where: str) -> None:
    """The same checks for options that are made in code, for their `__post_init__`.

    Args:
      instance: of an options dataclass.
      where: what messages call it, such as "config.data".

    Raises:
      InputError: as :func:`read_options`.
    """
    for field in dataclasses.fields(instance):
        _check_field(f"{where}.{field.name}", getattr(instance, field.name), field)


def _check_field(name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    _check_type(name, value, field)
    _check_choice(name, value, field.metadata)
    _check_range(name, value, field)


def _check_type(name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    default = field.default
    expected = type(default).__name__
    if field.metadata["several"] and isinstance(value, tuple | list):
        fits = bool(value) and all(isinstance(part, str) for part in value)
    elif isinstance(default, tuple):
        kind = type(default[0])
        expected = f"tuple with one {kind.__name__} or more"
        fits = isinstance(value, tuple | list) and bool(value)
        fits = fits and all(type(part) is kind for part in value)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is type(default)
    if not fits:
        raise InputError(
            f"{name} must be of type {expected}, as its default {default!r} is; got {value!r} of "
            f"type {type(value).__name__}."
        )


def _check_choice(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    choices = metadata["choices"]
    if choices is None:
        return
    known = choices if isinstance(choices, tuple) else choices()
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def _check_range(name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    """Refuses what is out of range or beyond what 32 bits hold, NaN and infinity too."""
    parts = value if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(part, int | float) for part in parts):
        return
    first = field.default[0] if isinstance(field.default, tuple) else field.default
    largest = _LARGEST_FLOAT if isinstance(first, float) else _LARGEST_INT
    bounds = {
        "at least": (field.metadata["low"], lambda part, bound: part >= bound),
        "at most": (field.metadata["high"], lambda part, bound: part <= bound),
        "above": (field.metadata["above"], lambda part, bound: part > bound),
        "below": (field.metadata["below"], lambda part, bound: part < bound),
    }
    asked = {words: pair for words, pair in bounds.items() if pair[0] is not None}
    kept = all(holds(part, bound) for bound, holds in asked.values() for part in parts)
    words = [f"{words} {bound:g}" for words, (bound, _) in asked.items()]
    if not all(abs(part) <= largest for part in parts):
        kept, words = False, [*words, f"a number of size {largest} or less"]
    if not kept:
        raise InputError(
            f"{name} must be {' and '.join(words)}, got {value!r}: pass --{name}=VALUE with a "
            "value in that range."
        )

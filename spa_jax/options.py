"""Options that describe themselves: frozen dataclasses with defaults, ranges and one line each.

A long-tailed method, a network or a SpA variant holds its options in its own file; the groups of a
configuration are made of them, and a registry line makes them known.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from spa_jax.errors import InputError

CHOSEN_BY = {"spa": "spa.method", "method": "method.name", "model": "model.name"}
"""Groups in which a field names what is used, and in which each name has a group of its own."""


# What 32 bits hold: steps, seeds and strengths are computed with in no more.
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 3.4028234e38

_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


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


def check_unread(
    options: Any, group: str, unread: Iterable[tuple[bool, str, str]], otherwise: str = ""
) -> None:
    """Raises InputError for an option that was set and does nothing.

    Args:
      options: the group's values.
      group: its name in the config.
      unread: for some options whether they do nothing now, their name, and why.
      otherwise: what else there is to do than to leave it at its default.
    """
    for does_nothing, field, reason in unread:
        value, default = getattr(options, field), defaults_of(type(options))[field]
        if does_nothing and value != default:
            raise InputError(
                f"config.{group}.{field}={value} does nothing, as {reason}: leave it at "
                f"{default}{otherwise}."
            )


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


def range_of(field: dataclasses.Field[Any]) -> str:
    """What an option may be set to, in words; "" if its type alone says so.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Options:
      ...     share: float = option(0.5, "of the class prior", low=0, below=1)
      >>> range_of(dataclasses.fields(Options)[0])
      'at least 0 and below 1'
    """
    choices = _choices_of(field)
    if choices is not None:
        return f"one of {', '.join(choices)}"
    limits = ((words, field.metadata[limit]) for limit, (words, _) in _LIMITS.items())
    return " and ".join(f"{words} {bound:g}" for words, bound in limits if bound is not None)


def _choices_of(field: dataclasses.Field[Any]) -> Any:
    choices: Any = field.metadata["choices"]
    return choices() if callable(choices) else choices


def _check_field(name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    """Refuses another type, what is no choice, and what is out of range or not finite."""
    said: Mapping[str, Any] = field.metadata
    default: Any = field.default
    listed, takes_list = isinstance(value, tuple | list), isinstance(default, tuple)
    parts = value if listed else (value,)
    kind = type(default[0] if takes_list else default)
    allowed = (int, float) if kind is float else kind
    fits = listed == takes_list or (listed and said["several"])
    for part in parts or (None,):
        fits = fits and isinstance(part, allowed) and isinstance(part, bool) == (kind is bool)
    if not fits:
        expected = f"tuple with one {kind.__name__} or more" if takes_list else kind.__name__
        raise InputError(
            f"{name} must be of type {expected}, as its default {default!r} is; got {value!r} of "
            f"type {type(value).__name__}."
        )
    choices = _choices_of(field)
    if choices is not None and value not in choices:
        raise InputError(f"{name} must be {range_of(field)}; got {value!r}.")
    if kind not in (int, float):
        return
    asked = [
        (f"{words} {said[limit]:g}", all(holds(part, said[limit]) for part in parts))
        for limit, (words, holds) in _LIMITS.items()
        if said[limit] is not None
    ]
    largest = _LARGEST_FLOAT if kind is float else _LARGEST_INT
    if not all(abs(part) <= largest for part in parts):
        asked.append((f"a number of size {largest} or less", False))
    if not all(kept for _, kept in asked):
        raise InputError(
            f"{name} must be {' and '.join(words for words, _ in asked)}, got {value!r}: pass "
            f"--{name}=VALUE with a value in that range."
        )

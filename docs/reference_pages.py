"""The reference: pages made of docstrings, options and commands when the site is built."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import spa_jax
from spa_jax.__main__ import COMMANDS
from spa_jax.options import range_of
from spa_jax.training.config import option_fields

FOLDER = "reference/made"
"""Below the folder of the site; git ignores it."""

LIBRARY = "alignment"
"""The room whose names are those of `import spa_jax`, and are documented by these."""


def modules() -> dict[str, list[str]]:
    """Every module of the package by its room; those that are in none are `basics`."""
    rooms: dict[str, list[str]] = {}
    for found in pkgutil.walk_packages(spa_jax.__path__, "spa_jax."):
        _, room, *inner = found.name.split(".")
        if room not in ("__main__", "extras"):
            rooms.setdefault(room if inner or found.ispkg else "basics", []).append(found.name)
    return rooms


def public_names() -> Iterator[str]:
    """What the reference has to have: all functions and classes whose names do not begin with _."""
    yield from (f"spa_jax.{name}" for name in spa_jax.__all__ if not name.startswith("_"))
    for room, names in modules().items():
        for module in map(importlib.import_module, names if room != LIBRARY else ()):
            yield from (f"{module.__name__}.{name}" for name in own_names(module))


def own_names(module: ModuleType) -> list[str]:
    """Public functions and classes that a module defines itself."""
    members = vars(module).items()
    return [
        name
        for name, value in members
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and value.__name__ == name
        and not name.startswith("_")
    ]


def room_page(room: str, names: Sequence[str]) -> str:
    """reStructuredText with the docstrings of a room."""
    title = f"``spa_jax.{room}``" if room != "basics" else "Commands and basics in Python"
    lines = [title, "=" * len(title), ""]
    if room == LIBRARY:
        lines += [".. automodule:: spa_jax.alignment", ""]
        lines += [".. automodule:: spa_jax", "   :members:", "   :imported-members:", ""]
        return "\n".join(lines)
    for name in names:
        heading = [] if name == f"spa_jax.{room}" else [f"``{name}``", "-" * (len(name) + 4), ""]
        lines += [*heading, f".. automodule:: {name}", "   :members:", ""]
    return "\n".join(lines)


def config_page() -> str:
    """Markdown with a table for each group of a configuration."""
    parts: dict[str, list[str]] = {}
    for name, field in option_fields().items():
        group = name.rpartition(".")[0]
        said = field.metadata["meaning"].replace("|", "\\|")
        parts.setdefault(group, []).append(
            f"| `{name}` | `{_shown(field.default)}` | {range_of(field)} | {said} |"
        )
    lines = ["# Fields of a configuration", "", _ABOUT_FIELDS]
    for group, rows in parts.items():
        lines += [f"## {f'`{group}`' if group else 'Of the run'}", ""]
        lines += ["| field | default | range | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


_ABOUT_FIELDS = """\
`--config.FIELD=VALUE` sets a field on the command line, `config.FIELD = value` in a file of
`configs/`, which may have other defaults than these. A value has the type of its default. What a
run does not use is not read, such as the options of other methods than `method.name`. Files in
`configs/` take arguments of their own after a colon; their first lines say which.
"""


def commands_page() -> str:
    """Markdown with what each command says when it is asked for help."""
    lines = ["# Commands", "", _ABOUT_COMMANDS]
    environment = os.environ | {"COLUMNS": "88", "JAX_PLATFORMS": "cpu"}
    for name, (module, does) in COMMANDS.items():
        asked = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
        if not done.stdout.strip():
            raise RuntimeError(f"{' '.join(asked)} says nothing: {done.stderr}")
        shown = [line for line in done.stdout.splitlines() if not line.startswith(_OF_THIS_PLACE)]
        lines += [f"## `{name}`", "", f"`python -m {module}`: {does}.", ""]
        lines += ["```text", *shown, "```", ""]
    return "\n".join(lines)


_OF_THIS_PLACE = ("Try --helpfull",)
_ABOUT_COMMANDS = """\
`spa-jax COMMAND ...` is `python -m MODULE ...`; below stands what `--help` prints. A wrong command
ends with status 2 and one paragraph that says what is wrong and what to do.
"""


def write_pages(site: Path) -> None:
    """Writes all reference pages below the folder of the site, where they have changed."""
    pages = {"config.md": config_page(), "commands.md": commands_page()}
    pages |= {f"{room}.rst": room_page(room, names) for room, names in modules().items()}
    (site / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = site / FOLDER / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _shown(default: Any) -> str:
    return '""' if default == "" else str(default)

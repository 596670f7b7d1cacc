"""Paths that a person gives, checked once, and files that a crash leaves no half of behind."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError

# Checkpoints are found by patterns that hold the whole path, and read where \ separates folders.
_PATTERN = re.compile(r"[*?\[\]\\]")
_LONGEST_NAME = 255


def local_path(given: str | Path, what: str) -> Path:
    """A path that a person gave, with `~` expanded.

    Args:
      given: the path; nothing has to be there.
      what: what messages call it, such as "--out".

    Raises:
      InputError: an empty path, one of another place than this machine's folders (`gs://...`), or
        one that no file can have.

    Example:
      >>> local_path("runs/digits", "--workdir").as_posix()
      'runs/digits'
    """
    text = str(given)
    if not text.strip():
        raise InputError(f"{what} is empty: give it a path, or leave it out.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise InputError(
            f"{what}={text} is not a folder of this machine, and not all that a run reads and "
            "writes goes elsewhere: give a local path, or one below a mounted bucket."
        )
    if not text.isprintable():
        raise InputError(f"{what}={text!r} holds a character that cannot be printed: rename it.")
    try:
        path = Path(given).expanduser()
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise ValueError(f"one of its names is longer than {_LONGEST_NAME} bytes")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{what}={text} cannot be a path here ({error}): give another.") from error
    return path


def output_folder(given: str | Path, what: str = "", patterns: bool = False) -> Path:
    """A folder to write to, which is there or can be made; nothing is made yet.

    Args:
      given: the path.
      what: what messages call it; "": the path alone.
      patterns: whether its name may hold characters of patterns, as where no run writes to it.

    Raises:
      InputError: as :func:`local_path`; a path at or below a file, a place that cannot be written
        to, or a name that checkpoints cannot be found by.
    """
    path = local_path(given, what or "The folder")
    found = _PATTERN.search(str(path.absolute()))
    if found and not patterns:
        raise InputError(
            f"{path.absolute()} has a {found[0]} in its name, which the library that finds "
            "checkpoints reads as a pattern or a separator: choose a name without any of * ? [ ] \\"
        )
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(
            f"{there} is a file, and a folder is needed: choose another {what or 'one'}."
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"{there} cannot be written to ({error.strerror}): choose another place, or change "
            "who may write there."
        ) from error
    return path


def output_file(given: str | Path, what: str) -> Path:
    """A file to write, see :func:`output_folder`; InputError for a folder too."""
    path = local_path(given, what)
    if path.is_dir():
        raise InputError(f"{what}={path} is a folder, and a file is needed: add its name.")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{what}={path} cannot be written to: choose another.")
    output_folder(path.absolute().parent, what, patterns=True)
    return path


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Writes a JSON file, see :func:`write_text_whole`."""
    write_text_whole(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: Path, remedy: str, needed: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: of the file.
      remedy: what to do where it is damaged, for the message.
      needed: fields that it must have, and the type of each.

    Raises:
      InputError: a file that cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        needed = needed or {}
        missing = [field for field in needed if field not in content]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for field, kind in needed.items():
            if not isinstance(content[field], kind):
                raise ValueError(f"its {field} is {content[field]!r}"[:200])
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): {remedy}") from error
    return content

"""Writing files so that a crash leaves no half of one behind."""

import json
from pathlib import Path
from typing import Any

from spa_jax.errors import InputError


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Writes a JSON file, see :func:`write_text_whole`."""
    write_text_whole(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: of the file.
      remedy: what to do where it is damaged, for the message.

    Raises:
      InputError: a file that cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): {remedy}") from error
    return content

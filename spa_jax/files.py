"""Writing files so that a crash leaves no half of one behind."""

import json
from pathlib import Path
from typing import Any


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Writes a JSON file, see :func:`write_text_whole`."""
    write_text_whole(path, json.dumps(content, indent=indent) + "\n")

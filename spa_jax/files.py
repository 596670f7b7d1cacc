"""Writing files so that a crash leaves no half of one behind."""

from pathlib import Path


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)

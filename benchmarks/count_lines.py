"""Counts lines of code, without docstrings, comments and blanks.

python -m benchmarks.count_lines spa_jax studies benchmarks configs

Prints a row for each folder (with `--files` for each file) and their sum. A line counts if a token
of code stands on it; a string that is a statement of its own is a docstring.
"""

import argparse
import io
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path


def code_lines(text: str) -> int:
    """The number of lines of a Python source that hold code.

    Example:
      >>> code_lines('"A module."\\n\\nx = [\\n    1,\\n]  # three lines of code')
      3
    """
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            statement.append(token)
        elif token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            if not all(part.type == tokenize.STRING for part in statement):
                for part in statement:
                    lines.update(range(part.start[0], part.end[0] + 1))
            statement = []
    return len(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table for the folders that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.count_lines")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--files", action="store_true", help="a row for each file too")
    values = parser.parse_args(argv)
    total = files = 0
    for folder in values.folders:
        paths = sorted(folder.rglob("*.py"))
        counts = {path: code_lines(path.read_text()) for path in paths}
        if values.files:
            for path, count in counts.items():
                print(f"{count:7,} {path}")
        print(f"{sum(counts.values()):7,} lines in {len(paths):3} files of {folder}")
        total, files = total + sum(counts.values()), files + len(paths)
    print(f"{total:7,} lines in {files:3} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())

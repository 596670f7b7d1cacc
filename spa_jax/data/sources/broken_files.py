"""What reading a broken file raises, and words for messages about it."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence

ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for a file that is not there, not theirs, encrypted or not whole.

Headers of arrays are literals of Python, and sizes in them may be beyond any memory.
"""


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


def first_three(names: Sequence[str]) -> str:
    """The first names of many, with commas, and three dots if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

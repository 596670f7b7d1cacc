"""What reading a broken file raises."""

import struct
import tokenize
import zipfile
import zlib

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

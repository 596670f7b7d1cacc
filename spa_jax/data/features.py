"""Features that some network gave, in place of images: arrays in memory, or mapped from a file."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from spa_jax.errors import InputError

_BLOCK_BYTES = 2**26
_SHOWN_FROM = 2**30  # bytes from which on a bar shows that they are read


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Rows of an array of features; of a mapped array, what is asked for is read.

    Attributes:
      stored: `(M, D)` floating.
      rows: `(N,)` integers in [0, M), which of them, in this order.
      checksum: SHA-256 of all rows of `stored`, in the dtype that devices get, or of what they are
        said to be made of.
    """

    stored: np.ndarray
    rows: np.ndarray
    checksum: bytes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, D)`."""
        return len(self.rows), self.stored.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of what devices get: half precision as it is, anything else as float32."""
        return np.dtype(np.float16 if self.stored.itemsize == 2 else np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that they take up in memory."""
        return len(self) * self.stored.shape[1] * self.dtype.itemsize

    def __getitem__(self, places: Any) -> Any:
        """The features at K places, or in a slice, `(K, D)` float16 or float32, in memory."""
        with np.errstate(over="ignore"):  # what float32 does not hold is refused, see below
            return self.stored[self.rows[places]].astype(self.dtype, copy=False)

    def take(self, places: np.ndarray) -> "Features":
        """Those at the given places, in that order; nothing is read."""
        return dataclasses.replace(self, rows=self.rows[places])


def checked_features(stored: np.ndarray, origin: str, checksum: bytes | None = None) -> Features:
    """All rows of an array, which is read once, block by block.

    Args:
      stored: `(N, D)` floating, in memory or mapped; float16 stays so, all else becomes float32.
      origin: the file that it is from, for messages.
      checksum: of features that were checked before; nothing is read then.

    Raises:
      InputError: numbers that are not floating, another shape, or a row that holds NaN or infinity,
        as it is or in float32.

    Example:
      >>> checked_features(np.ones((4, 3), np.float16), "bank.npz").take(np.array([2, 0])).shape
      (2, 3)
    """
    if stored.dtype.kind != "f" or stored.ndim != 2 or not stored.shape[1]:
        raise InputError(
            f"The features of {origin} are {stored.dtype} of shape {stored.shape}; expected "
            "floating numbers of shape (N, D), one row for each label: write what the network "
            "gives before its classifier, with `features.astype(np.float32)` or np.float16."
        )
    features = Features(stored, np.arange(len(stored)), checksum or b"")
    if checksum:
        return features
    digest, console = hashlib.sha256(), Console(stderr=True)
    step = max(1, _BLOCK_BYTES // (stored.shape[1] * stored.itemsize))
    shown = console.is_terminal and stored.nbytes >= _SHOWN_FROM
    starts = range(0, len(stored), step)
    for start in track(starts, f"checking {origin}", console=console, disable=not shown):
        block = features[start : start + step]
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise InputError(
                f"Row {start + int(np.argmin(finite))} of the features of {origin} holds NaN or "
                "infinity: leave such rows out of the file, with their labels, or compute them "
                "again (in float32, if it is float16 that overflowed)."
            )
        digest.update(block)
    return dataclasses.replace(features, checksum=digest.digest())

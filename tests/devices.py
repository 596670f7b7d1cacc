"""Fewer devices than the tests have, for runs that would only take longer to compile for more."""

import contextlib
from collections.abc import Iterator

import jax
import pytest


@contextlib.contextmanager
def only_devices(number: int) -> Iterator[None]:
    """As long as it lasts there are only so many devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: jax.local_devices()[:number])
        yield

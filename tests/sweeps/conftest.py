"""Fewer devices than the tests have, since what many of them share is tested once, by itself."""

import jax
import pytest


@pytest.fixture
def on_devices(monkeypatch):
    """A function that leaves so many devices."""

    def leave(number):
        monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:number])

    return leave

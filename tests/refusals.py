"""What every refusal has in common: an InputError of one paragraph, written for a person."""

from collections.abc import Callable
from typing import Any

import pytest

from spa_jax.errors import InputError


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Calls a function that has to raise InputError; returns the message, one paragraph."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message

"""Parameters of tests of which the first few look, and the others only look again."""

import pytest


def first(count, values):
    """Parameters of which those after so many are `thorough`, and so not in `make test`."""
    return [
        pytest.param(value, marks=() if place < count else pytest.mark.thorough)
        for place, value in enumerate(values)
    ]

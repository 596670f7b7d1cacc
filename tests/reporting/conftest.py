"""What the tests of several modules of figures need."""

import matplotlib
import pytest

from spa_jax.reporting.figures.style import RC
from tests.reporting.made_runs import two_methods


@pytest.fixture
def figure_style():
    """The style that a report draws its figures in."""
    with matplotlib.rc_context(RC):
        yield


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """Two seeds without alignment and two with SpA-Reg."""
    return two_methods(tmp_path_factory.mktemp("runs"))

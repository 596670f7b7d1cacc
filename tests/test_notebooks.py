"""The cells of the notebooks run one after another; the site runs them when it is built."""

import re

import jax
import matplotlib.pyplot as plt
import pytest

from tests.test_package import ROOT

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs/notebooks").glob("*.md"))}


# One trains for half a minute.
MARKS = {"digits_lt": pytest.mark.slow}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, ())) for name in NOTEBOOKS]
)
def test_a_notebook_runs_from_top_to_bottom(name, capsys):
    cells = re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", NOTEBOOKS[name].read_text(), re.DOTALL)
    assert len(cells) > 3
    names = {"__name__": "notebook"}
    with jax.numpy_rank_promotion("allow"):  # as in a user's program
        for cell in cells:
            exec(cell.replace("config.epochs = 20", "config.epochs = 1"), names)
    plt.close("all")
    assert re.search(r"\d\.\d", capsys.readouterr().out)

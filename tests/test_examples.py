"""Each example is short, runs by itself, and learns."""

import re
import runpy

import jax
import pytest

from tests.parameters import first
from tests.test_package import ROOT

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
# One aligns nothing, the other leaves turns that SpA-Proj only hinders.
LOWEST_COSINE = {"watch_alignment": 0.5, "own_transform": 0.7}
LOOPS = [name for name in EXAMPLES if name != "digits" and not name.startswith("features_from")]


def test_examples_are_short():
    for path in EXAMPLES.values():
        assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("name", first(1, LOOPS))
def test_an_example_learns_and_aligns(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    with jax.numpy_rank_promotion("allow"):  # as in a user's program
        runpy.run_path(str(EXAMPLES[name]), run_name="__main__")
    said = capsys.readouterr().out
    *_, accuracy, cosine = map(float, re.findall(r"(?:accuracy|cosine) (\d\.\d+)", said))
    assert accuracy > 0.6
    assert cosine > LOWEST_COSINE.get(name, 0.9)

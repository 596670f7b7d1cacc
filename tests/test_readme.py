"""What the README says is true: its tables are those of the records, its example runs."""

import json
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

from spa_jax.longtail.method import Situation
from studies.reproduction.reproduction_figures import FIGURES as DRAWINGS
from studies.reproduction.reproduction_figures import records_checksum
from studies.reproduction.sections import SECTIONS
from studies.update_readme import FIGURES, PAGES, REPOSITORY, with_tables

README = (REPOSITORY / "README.md").read_text()
RECORDS = re.findall(r"<!-- table: (\S+) -->", README)


def test_every_table_is_the_one_of_its_record():
    assert len(RECORDS) == 6
    sections = []
    for page in PAGES:
        text = (REPOSITORY / page).read_text()
        sections += re.findall(r"<!-- reproduction: (\S+) -->", text)
        assert with_tables(text) == text
    assert {*sections} == {*SECTIONS}


def test_every_figure_is_drawn_from_the_records_that_there_are():
    text = "".join((REPOSITORY / page).read_text() for page in PAGES)
    drawn = sorted(FIGURES.glob("*.png"))
    assert {path.stem for path in drawn} >= {"differences", "epochs"}
    for path in drawn:
        table, _ = DRAWINGS[path.stem]
        with Image.open(path) as picture:
            checksum = picture.info["Description"]
        assert checksum == records_checksum(REPOSITORY / "results" / f"{table}.jsonl"), path
        assert f"reproduction/{path.name})" in text


@pytest.mark.parametrize("record", [name for name in RECORDS if name.endswith("_lt.json")])
def test_every_record_has_three_seeds_of_every_method_and_one_split(record):
    comparison = json.loads((REPOSITORY / record).read_text())
    runs = comparison["runs"]
    assert {run["spa_method"] for run in runs} == {"none", "reg", "slerp", "proj"}
    for method in ("none", "reg", "slerp", "proj"):
        assert len({run["seed"] for run in runs if run["spa_method"] == method}) >= 3
    assert {run["split_checksum"] for run in runs} == {comparison["split"]["checksum"]}
    assert len({run["params_checksum"] for run in runs}) == len(runs)


def test_one_program_trains_what_single_runs_train():
    """What the sweep's benchmark promises, of its record."""
    record = json.loads((REPOSITORY / "results/sweep.json").read_text())
    float32, float64 = record["agreement"]
    assert (float32["steps"], float64["steps"]) == (3, 50)
    assert float32["difference"] <= 1e-5
    assert float64["difference"] <= 1e-10
    assert abs(record["differences"]["test accuracy"]["mean"]) <= 0.003
    assert [len(way["accuracies"]) for way in record["ways"].values()] == [25, 25]


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs():
    example, *_ = EXAMPLES
    names = {}
    with jax.numpy_rank_promotion("allow"):  # as in a user's program
        exec(example, names)
    cosines = names["cosines"]
    assert cosines.shape == (10,)
    assert (jax.numpy.abs(cosines) <= 1).all()


def test_the_example_of_a_method_is_one():
    names = {}
    exec(EXAMPLES[1], names)
    method = names["make_soft_prior"](SimpleNamespace(tau=2.0))
    labels = jnp.array([0, 1])
    situation = Situation(labels, jnp.array([9.0, 1.0]), jnp.int32(0), 1, None)
    # Half of the prior, twice, is the prior: the loss of a class is minus the log of its share.
    expected = (math.log(10 / 9) + math.log(10)) / 2
    loss = float(method.loss(jnp.zeros((2, 2)), labels, situation))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_example_of_neural_collapse_runs():
    names = {}
    with jax.numpy_rank_promotion("allow"):
        exec(EXAMPLES[2], names)
    assert names["found"]["nc3_cosines"].shape == (4,)


def test_every_file_that_the_readme_links_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 4
    assert [link for link in links if not (REPOSITORY / link).exists()] == []

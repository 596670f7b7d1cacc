"""What the pages say is true: their records are whole, their examples run, their links lead on."""

import fnmatch
import json
import math
import re
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from spa_jax.__main__ import COMMANDS
from spa_jax.data.sources.opening import SOURCES
from spa_jax.longtail.method import LossContext
from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import NETWORKS
from spa_jax.training.config import check_field_name
from spa_jax.training.program import Program
from spa_jax.training.variants import VARIANTS
from studies.build import REPOSITORY
from tests.training.small import small_config

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text()
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if "made" not in path.parts
}
RECORDS = re.findall(r"<!-- table: (\S+) -->", PAGES["docs/results.md"])
EXAMPLES = {
    page: found
    for page, text in PAGES.items()
    if (found := re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}


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


@pytest.fixture
def registries(monkeypatch):
    """The registries as they are, and so again afterwards."""
    for registry in (METHODS, NETWORKS, VARIANTS, SOURCES):
        for name in ("soft_prior", "flat", "squared", "stripes"):
            monkeypatch.setitem(registry, name, None)
            del registry[name]


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_python_examples_of_a_page_run(page, registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    names = {"__name__": "example"}
    with jax.numpy_rank_promotion("allow"):  # as in a user's program
        for example in EXAMPLES[page]:
            exec(example, names)
    if "cosines" in names:
        assert names["cosines"].shape == (10,)
        assert (jnp.abs(names["cosines"]) <= 1).all()
    if "found" in names:
        assert names["found"]["nc3_cosines"].shape == (4,)


ADDED = EXAMPLES["docs/how_to/add_your_own.md"]


def test_the_examples_of_a_method_a_network_a_variant_and_a_source_train_together(registries):
    for example in ADDED:
        exec(example, {"__name__": "example"})
    config = small_config(
        data__name="stripes",
        data__n_max=0,
        method__name="soft_prior",
        method__soft_prior__share=0.25,
        model__name="flat",
        spa__method="squared",
    )
    program = Program(config)
    state, totals = program.init_state(config), program.zero_totals
    losses = []
    for inputs, _ in zip(program.batches(state, 0, 0), range(2), strict=False):
        state, totals = program.train_step(state, totals, inputs)
        losses.append(float(totals.last["loss"]))
    assert np.isfinite(losses).all()
    assert program.data.class_names[0] == "first"
    assert "squared" in config.spa and state.hyperparams["weight"] == 1.0


def test_the_example_of_a_method_weighs_the_prior(registries):
    exec(ADDED[0], {"__name__": "example"})
    entry = METHODS["soft_prior"]
    labels = jnp.array([0, 1])
    context = LossContext(labels, jnp.array([9.0, 1.0]), jnp.int32(0), 1, None, labels, labels)
    loss = entry.make(entry.options(share=1.0)).loss(jnp.zeros((2, 2)), labels, context)
    # With all of the prior the loss of a class is minus the log of its share.
    assert float(loss) == pytest.approx((math.log(10 / 9) + math.log(10)) / 2, rel=1e-5)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_is_there(page):
    links = re.findall(r"\]\((?!http|#)([^)#\s]+)", PAGES[page])
    folder = (REPOSITORY / page).parent
    there = [link for link in links if "reference/made/" not in link]  # made with the site
    assert [link for link in there if not (folder / link).exists()] == []


def test_every_page_is_in_a_table_of_contents():
    trees = re.findall(r"```\{toctree\}(.*?)```", PAGES["docs/index.md"], re.DOTALL)
    entries = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    names = [page[5:-3] for page in PAGES if page.startswith("docs/") and page != "docs/index.md"]
    assert [n for n in names if not any(fnmatch.fnmatch(n, entry) for entry in entries)] == []


def test_the_commands_for_clusters_are_of_what_there_is():
    """They cannot be run here; a field, a flag, a file or an extra that is gone is noticed."""
    page, image = PAGES["docs/pods.md"], (REPOSITORY / "Containerfile").read_text()
    (written,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    *_, jobs = yaml.safe_load_all(written)
    (hosts,) = jobs["spec"]["replicatedJobs"]
    (container,) = hosts["template"]["spec"]["template"]["spec"]["containers"]
    command, *arguments = container["args"]
    assert 'ENTRYPOINT ["spa-jax"]' in image
    assert command in COMMANDS
    flags = {argument.partition("=")[0] for argument in arguments}
    assert flags == {"--config", "--config.data.folder", "--workdir", "--distributed"}
    for field in re.findall(r"--config\.([\w.]+)", page):
        check_field_name(field)
    copied = [name for line in re.findall(r"COPY (.*) \S+\n", image) for name in line.split()]
    files = [*copied, *re.findall(r"--config=(\S+\.py)", page)]
    assert [name for name in files if not (REPOSITORY / name).exists()] == []
    extras = re.findall(r"EXTRAS=([\w,]+)", image + page) + re.findall(r"spa_jax\[(.*?)\]", page)
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {*",".join(extras).split(",")} <= {*known["optional-dependencies"]}

"""The plan of a table: its runs, and what tuning chooses."""

import pytest

from spa_jax.reproduction.tables import TABLES, TUNING, chosen_settings, tuning_cells
from spa_jax.training.config import resolve
from spa_jax.training.program import compiled_differences
from spa_jax.training.recipes import cifar10_lt
from studies.reproduction.published_figures import PUBLISHED
from tests.studies.made_records import record_of

PLAN = TABLES["fashion_mnist"]


@pytest.fixture(scope="module")
def tuned():
    """Records of all tuning runs; the third strength is the best, and for Proj so is the last."""
    records = []
    for method in ("cross_entropy", "glmc"):
        for number, cell in enumerate(tuning_cells(method, "reversed", 100.0)):
            place = number % 4
            good = place == 2 or (place == 3 and cell.spa_method == "proj")
            records.append(record_of(cell, 0.1, validation=0.8 if good else 0.5 + place / 100))
    return records


# Those on frozen features are tuned in another way, and tested with it.
@pytest.mark.parametrize("table", [name for name in TABLES if not name.startswith("features")])
def test_every_run_has_a_name_of_its_own_and_a_configuration_that_holds(table, tuned):
    plan = TABLES[table]
    of_table = [record | {"cell": record["cell"].replace("reversed", "label")} for record in tuned]
    cells = plan.cells(tuned if table == "fashion_mnist" else of_table)
    assert len({cell.name for cell in cells}) == len(cells) > 80
    assert None not in [cell.settings for cell in cells]
    for cell in cells[:: len(cells) // 12]:
        config = plan.config(cell)
        resolve(config)
        assert (config.method.name, config.spa.method) == (cell.method, cell.spa_method)
        assert config.seed == cell.seed
        assert config.data.class_order == cell.class_order
        assert config.data.validation is (cell.stage == "tune")
        if table != "imagenet":
            assert config.data.imbalance_factor == cell.imbalance_factor


def test_what_is_published_belongs_to_runs_without_tuning():
    for table, published in PUBLISHED.items():
        groups = {cell.group_name: cell for cell in TABLES[table].cells([])}
        assert all(groups[name].settings is not None for name in published)


def test_the_papers_own_pair_comes_first_and_is_the_released_recipe():
    plan = TABLES["cifar10"]
    none, proj = plan.cells([])[:2]
    released = cifar10_lt(imbalance_factor=200.0, recipe="spa")
    assert plan.config(proj).to_dict() == released.to_dict()
    published = PUBLISHED["cifar10"]
    assert [published[cell.group_name].accuracy for cell in (none, proj)] == [83.4, 84.2]
    # Without SpA its strengths are not read; nothing else differs.
    assert compiled_differences(plan.config(none), released) == ["spa.method", "spa.proj.radial"]


def test_the_figure_of_cifar_100_comes_first_there():
    none, reg = TABLES["cifar100"].cells([])[:2]
    assert [(c.method, c.imbalance_factor, c.seed) for c in (none, reg)] == [
        ("cross_entropy", 200.0, 0)
    ] * 2
    assert (none.spa_method, reg.spa_method) == ("none", "reg")


@pytest.mark.parametrize("table", ["cifar10", "cifar100"])
def test_cifar_has_every_method_with_every_variant_at_every_imbalance_factor(table):
    found = {(c.imbalance_factor, c.method, c.spa_method) for c in TABLES[table].cells([])}
    methods = ("cross_entropy", "arb", "glmc", "ldam_drw", "balanced_softmax")
    variants = ("none", "reg", "slerp", "proj")
    assert found == {(f, m, v) for f in (10, 50, 100, 200) for m in methods for v in variants}


def test_a_tuned_run_in_the_released_recipe_has_none_of_its_strengths(tuned):
    plan = TABLES["cifar10"]
    at_label = [r | {"cell": r["cell"].replace("reversed", "label")} for r in tuned]
    cells = {cell.name: cell for cell in plan.cells(at_label)}
    spa = plan.config(cells["final-glmc-proj-tuned-if200-label-seed0"]).spa
    assert (spa.proj.radial, spa.proj.gamma) == ("keep", dict(TUNING["proj"][2])["spa.proj.gamma"])


def test_imagenet_has_arb_and_glmc_on_a_resnet_50_too():
    plan = TABLES["imagenet"]
    cells = {cell.name: cell for cell in plan.cells([])}
    small = cells["final-glmc-proj-released-if256-label-resnet50-seed2"]
    large = cells["final-glmc-proj-released-if256-label-seed2"]
    networks = [plan.config(cell).model.name for cell in (small, large)]
    assert networks == ["resnet50", "resnext50_32x4d"]
    assert compiled_differences(*map(plan.config, (small, large))) == ["model.name"]


def test_tuning_takes_the_best_on_validation_and_the_first_of_equals(tuned):
    chosen = chosen_settings(tuned, "glmc", "reversed", 100.0)
    assert chosen == {name: choices[2] for name, choices in TUNING.items()}
    assert all(len(choices) <= 4 for choices in TUNING.values())


def test_final_runs_wait_for_tuning_and_then_take_what_it_chose(tuned):
    def tuned_cells(records):
        return [cell for cell in PLAN.cells(records) if cell.variant == "tuned"]

    assert all(cell.settings is None for cell in tuned_cells([]))
    assert all(cell.settings is None for cell in tuned_cells(tuned[:-1]) if cell.method == "glmc"
               and cell.spa_method == "proj")  # fmt: skip
    for cell in tuned_cells(tuned):
        assert cell.settings == TUNING[cell.spa_method][2]


def test_no_final_run_holds_images_out_and_all_are_of_three_seeds_or_more(tuned):
    seeds = {}
    for cell in PLAN.cells(tuned):
        if cell.stage != "tune":
            assert ("data.validation", True) not in cell.settings
            seeds.setdefault(cell.group, set()).add(cell.seed)
    assert min(len(found) for found in seeds.values()) == 3


@pytest.mark.parametrize("table", TABLES)
def test_every_run_with_spa_has_a_baseline_that_is_trained_alike(table):
    """Otherwise its row would have no difference to show."""
    plan = TABLES[table]

    def place(cell):
        config = plan.config(cell)
        trained = config.optimizer.schedule, config.spa.means_from
        return cell.method, cell.network, cell.class_order, cell.imbalance_factor, *trained

    groups = {c.group: c for c in plan.cells([]) if c.stage != "tune"}.values()
    baselines = {place(c) for c in groups if c.spa_method == "none"}
    assert [c.name for c in groups if c.spa_method != "none" and place(c) not in baselines] == []


@pytest.mark.parametrize("table", ["cifar10", "cifar100", "imagenet"])
def test_glmc_with_spa_has_class_means_of_unmixed_images_and_a_baseline_that_has(table):
    plan = TABLES[table]
    cells = [cell for cell in plan.cells([]) if cell.method == "glmc" and cell.seed == 0]
    of_glmc = {cell.group_name: plan.config(cell).spa.means_from for cell in cells}
    factors = {"imagenet": "256"}.get(table, "100")
    assert {means for name, means in of_glmc.items() if "-none-" not in name} == {"auto"}
    assert of_glmc[f"final-glmc-none-clean-forward-if{factors}-label"] == "auto"
    assert of_glmc[f"final-glmc-none-if{factors}-label"] == "training"

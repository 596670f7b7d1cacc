"""The plan of a table: its runs, what tuning chooses, and the page that is made of its records."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from spa_jax.reproduction.cells import TUNING, chosen_settings, tuning_cells
from spa_jax.reproduction.page import SECTIONS
from spa_jax.reproduction.plan import config_file
from spa_jax.reproduction.results_tables import (
    methods_table,
    published_table,
    results_table,
)
from spa_jax.reproduction.tables import TABLES
from spa_jax.training.config import check_config
from spa_jax.training.method import check_method
from spa_jax.training.program import compiled_differences

PLAN = TABLES["fashion_mnist"]


def record_of(cell, last, validation=None):
    """What the page reads of a record."""
    groups = {"many": 0.9, "medium": None, "few": last / 2}
    return {
        "cell": cell.name,
        **{name: getattr(cell, name) for name in ("stage", "method", "spa_method", "variant")},
        **{name: getattr(cell, name) for name in ("imbalance_factor", "seed", "class_order")},
        "config": {"spa": {"means_from": "auto"}},
        "summary": {
            "test_accuracy": {"last": last, "best": last + 0.01},
            "validation_accuracy": None if validation is None else {"last": validation},
            "shot_groups": groups,
            "mean_cosine": 0.5,
            "test_mean_cosine": 0.25,
        },
    }


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


@pytest.mark.parametrize("table", TABLES)
def test_every_run_has_a_name_of_its_own_and_a_configuration_that_holds(table, tuned):
    plan = TABLES[table]
    of_table = [record | {"cell": record["cell"].replace("reversed", "label")} for record in tuned]
    cells = plan.cells(tuned if table == "fashion_mnist" else of_table)
    assert len({cell.name for cell in cells}) == len(cells) > 80
    assert None not in [cell.settings for cell in cells]
    for cell in cells[:: len(cells) // 40]:
        config = plan.config(cell)
        check_config(config)
        check_method(config)
        assert (config.method.name, config.spa.method) == (cell.method, cell.spa_method)
        assert config.seed == cell.seed
        assert config.data.class_order == cell.class_order
        assert config.data.validation is (cell.stage == "tune")
        if table != "imagenet":
            assert config.data.imbalance_factor == cell.imbalance_factor


def test_what_is_published_belongs_to_runs_without_tuning():
    for plan in TABLES.values():
        groups = {cell.group_name: cell for cell in plan.cells([])}
        assert all(groups[name].settings is not None for name in plan.published)


def test_the_papers_own_pair_comes_first_and_is_the_released_recipe():
    plan = TABLES["cifar10"]
    none, proj = plan.cells([])[:2]
    released = config_file("cifar10_lt", "imbalance_factor=200,recipe=spa")
    assert plan.config(proj).to_dict() == released.to_dict()
    assert [plan.published[cell.group_name].accuracy for cell in (none, proj)] == [83.4, 84.2]
    # Without SpA its strengths are not read; nothing else differs.
    assert compiled_differences(plan.config(none), released) == ["spa.method", "spa.radial"]


def test_the_figure_of_cifar_100_comes_first_there():
    none, reg = TABLES["cifar100"].cells([])[:2]
    assert [(c.method, c.imbalance_factor, c.seed) for c in (none, reg)] == [
        ("cross_entropy", 200.0, 0)
    ] * 2
    assert (none.spa_method, reg.spa_method) == ("none", "reg")


def test_a_tuned_run_in_the_released_recipe_has_none_of_its_strengths(tuned):
    plan = TABLES["cifar10"]
    at_label = [r | {"cell": r["cell"].replace("reversed", "label")} for r in tuned]
    cells = {cell.name: cell for cell in plan.cells(at_label)}
    spa = plan.config(cells["final-glmc-proj-tuned-if200-label-seed0"]).spa
    assert (spa.radial, spa.gamma) == ("keep", dict(TUNING["proj"][2])["spa.gamma"])


def test_imagenet_has_arb_and_glmc_on_a_resnet_50_too():
    plan = TABLES["imagenet"]
    cells = {cell.name: cell for cell in plan.cells([])}
    small = cells["final-glmc-proj-released-if256-label-resnet50-seed2"]
    large = cells["final-glmc-proj-released-if256-label-seed2"]
    networks = [plan.config(cell).model.name for cell in (small, large)]
    assert networks == ["resnet50", "resnext50_32x4d"]
    assert compiled_differences(*map(plan.config, (small, large))) == ["model.name"]


def test_networks_are_compared_with_their_own_baseline():
    cells = {cell.name: cell for cell in TABLES["imagenet"].cells([])}
    names = [
        f"final-arb-{variant}-if256-label{network}-seed{seed}"
        for variant in ("none", "reg-default")
        for network in ("", "-resnet50")
        for seed in range(3)
    ]
    base, gains = {"": 0.5, "resnet50": 0.4}, {"": 0.01, "resnet50": 0.02}
    records = []
    for name in names:
        cell = cells[name]
        gain = gains[cell.network] if cell.spa_method == "reg" else 0.0
        last = base[cell.network] + gain + cell.seed / 1000
        records.append(record_of(cell, last) | {"network": cell.network})
    table = results_table("imagenet", records, lambda cell: cell.method == "arb")
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines()]
    differences = {(row[0], row[1]): row[-1] for row in rows[2:]}
    assert differences["ARB", "Reg (default)"] == "+1.0 ± 0.0"
    assert differences["ARB, ResNet-50", "Reg (default)"] == "+2.0 ± 0.0"


def test_published_figures_stand_beside_what_came_out():
    cells = {cell.name: cell for cell in TABLES["cifar10"].cells([])}
    records = [
        record_of(cells[f"final-glmc-none-if200-label-seed{seed}"], 0.83 + seed / 100)
        for seed in range(3)
    ]
    rows = published_table("cifar10", records).splitlines()
    none, proj = (next(row for row in rows if start in row) for start in ("| 83.4 |", "| 84.2 |"))
    assert none.endswith("| 3 of 3 | 84.0 ± 1.0 | 85.0 ± 1.0 |")
    how = "python -m spa_jax.reproduce cifar10 --only=final-glmc-proj-released-if200-label"
    assert f"| 0 of 3 | not run: `{how}` |" in proj


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


def test_a_row_has_mean_deviation_and_the_paired_interval():
    cells = [c for c in PLAN.cells([]) if c.stage == "final" and c.imbalance_factor == 100]
    wanted = [c for c in cells if c.method == "arb" and c.class_order == "reversed"]
    none = [c for c in wanted if c.spa_method == "none"]
    reg = [c for c in wanted if c.spa_method == "reg"]
    base, other = np.array([0.70, 0.72, 0.71]), np.array([0.75, 0.73, 0.74])
    records = [record_of(c, a) for c, a in zip(none + reg, [*base, *other], strict=True)]
    table = results_table("fashion_mnist", records, lambda c: c in set(wanted))
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines()]
    by_variant = {row[1]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert by_variant["none"]["last"] == "71.0 ± 1.0"
    assert by_variant["none"]["medium"] == "-"
    interval = ttest_rel(other, base).confidence_interval(0.95)
    half = 100 * (interval.high - interval.low) / 2
    assert by_variant["Reg (tuned)"]["last, minus none"] == f"+3.0 ± {half:.1f}"
    how = "`python -m spa_jax.reproduce fashion_mnist --only=final-arb-proj-tuned-if100-reversed`"
    assert by_variant["Proj (tuned)"]["last"] == f"not run: {how}"
    assert by_variant["Proj (tuned)"]["seeds"] == "0 of 3"


def test_the_methods_are_compared_with_cross_entropy_seed_by_seed():
    cells = {c.name: c for c in PLAN.cells([])}
    records = [
        record_of(cells[f"final-{method}-none-if100-reversed-seed{seed}"], accuracy + seed / 100)
        for method, accuracy in (("cross_entropy", 0.6), ("arb", 0.64))
        for seed in range(3)
    ]
    line = methods_table(records).splitlines()[-1]
    assert line.startswith("| ARB | 3 | 65.0 ± 1.0 |")
    assert line.endswith("| +4.0 ± 0.0 | +2.0 ± 0.0 |")


def test_every_section_can_be_made_of_nothing():
    for name, section in SECTIONS.items():
        text = section([])
        assert text.strip(), name
        assert "nan" not in text


def test_glmcs_variants_are_compared_with_a_baseline_of_the_same_forwards():
    """With class means of mixed images against none with them, and so for unmixed ones."""
    cells = {c.name: c for c in PLAN.cells([])}
    names = {
        "final-glmc-none-if100-reversed": ("auto", 0.80),
        "ablation-glmc-none-means-of-mixed-if100-reversed": ("training", 0.70),
        "final-glmc-proj-tuned-if100-reversed": ("auto", 0.81),
        "ablation-glmc-proj-means-of-mixed-if100-reversed": ("training", 0.72),
    }
    records = [
        record_of(cells[f"{name}-seed{seed}"], last + seed / 1000)
        | {"config": {"spa": {"means_from": means}}}
        for name, (means, last) in names.items()
        for seed in range(3)
    ]
    wanted = {f"{name}-seed{seed}" for name in names for seed in range(3)}
    table = results_table("fashion_mnist", records, lambda c: c.name in wanted)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    differences = {row[1]: row[-1] for row in rows}
    assert differences == {
        "none": "",
        "none (means-of-mixed)": "",
        "Proj (tuned)": "+1.0 ± 0.0",
        "Proj (means-of-mixed)": "+2.0 ± 0.0",
    }


@pytest.mark.parametrize("table", ["cifar10", "cifar100", "imagenet"])
def test_glmc_with_spa_has_class_means_of_unmixed_images_and_a_baseline_that_has(table):
    plan = TABLES[table]
    groups = {cell.group_name: plan.config(cell).spa.means_from for cell in plan.cells([])}
    factors = {"imagenet": "256"}.get(table, "100")
    of_glmc = {name: means for name, means in groups.items() if "glmc" in name}
    assert {means for name, means in of_glmc.items() if "-none-" not in name} == {"auto"}
    assert of_glmc[f"final-glmc-none-clean-forward-if{factors}-label"] == "auto"
    assert of_glmc[f"final-glmc-none-if{factors}-label"] == "training"


def test_what_diverged_is_not_called_open():
    cells = [
        c for c in TABLES["cifar10"].cells([]) if c.group_name == "final-glmc-none-if200-label"
    ]
    records = [record_of(cell, 0.5) | {"summary": None} for cell in cells]
    (row,) = (row for row in published_table("cifar10", records).splitlines() if "83.4" in row)
    assert "| diverged |" in row
    table = results_table("cifar10", records, lambda cell: cell in cells)
    assert "| 0 of 3 | diverged |" in table


def test_the_claim_is_put_into_words_of_the_intervals():
    """Of 15 pairs two rise by 2 points, one falls by 1, and the others do not move."""
    moved = {("arb", "reg"): 0.02, ("glmc", "proj"): 0.02, ("ldam_drw", "slerp"): -0.01}
    cells = [
        cell
        for cell in PLAN.cells([])
        if cell.stage == "final" and cell.imbalance_factor == 100 and cell.seed < 3
        if cell.class_order == "reversed"
    ]
    jitter = np.array([0.001, -0.001, 0.0])
    records = []
    for cell in cells:
        change = moved.get((cell.method, cell.spa_method), 0.0)
        noise = jitter[cell.seed] if cell.spa_method != "none" else 0.0
        record = record_of(cell, 0.8 + change + noise)
        record["summary"]["test_mean_cosine"] = 0.9 if cell.spa_method == "proj" else 0.7
        records.append(record)
    text = SECTIONS["fashion_mnist/claim"](records)
    assert (
        "changes accuracy by +2.0 ± 0.2 points with its tuned strength (3 seeds) and by +2.0"
        in text
    )
    assert "from -1.0 ± 0.2 (LDAM-DRW with SLERP) to +2.0 ± 0.2 (" in text
    assert (
        "2 of the 95% intervals lie above zero, 1 below it, 12 hold it; 13 lie wholly below" in text
    )
    assert "the claimed +0.5 points and 2 at or above them." in text
    assert (
        "changes by +0.00 to +0.20 over the same pairs, and rises by more than its interval in 5 of"
        in text
    )
    assert SECTIONS["fashion_mnist/claim"](records[:-1]).startswith("Open: 16 of 17 rows")

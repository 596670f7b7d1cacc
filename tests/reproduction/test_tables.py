"""The plan of a table: its runs, what tuning chooses, and the page that is made of its records."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from spa_jax.reproduction.cells import TUNING, chosen_settings, tuning_cells
from spa_jax.reproduction.page import SECTIONS, methods_table, results_table
from spa_jax.reproduction.tables import TABLES
from spa_jax.training.config import check_config
from spa_jax.training.method import check_method

PLAN = TABLES["fashion_mnist"]


def record_of(cell, last, validation=None):
    """What the page reads of a record."""
    groups = {"many": 0.9, "medium": None, "few": last / 2}
    return {
        "cell": cell.name,
        **{name: getattr(cell, name) for name in ("stage", "method", "spa_method", "variant")},
        **{name: getattr(cell, name) for name in ("imbalance_factor", "seed", "class_order")},
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


def test_every_run_has_a_name_of_its_own_and_a_configuration_that_holds(tuned):
    cells = PLAN.cells(tuned)
    assert len({cell.name for cell in cells}) == len(cells) > 200
    for cell in cells[:: len(cells) // 40]:
        config = PLAN.config(cell)
        check_config(config)
        check_method(config)
        assert (config.method.name, config.seed) == (cell.method, cell.seed)
        assert config.data.imbalance_factor == cell.imbalance_factor
        assert config.data.class_order == cell.class_order
        assert config.data.validation is (cell.stage == "tune")


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
    assert by_variant["Proj (tuned)"]["last"] == "not run"
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

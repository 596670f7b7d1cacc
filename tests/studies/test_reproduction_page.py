"""The tables and sentences of the page that is made of the records."""

import functools
import re

import numpy as np
import pytest
from scipy.stats import ttest_rel

from spa_jax.reproduction.tables import ABLATION, TABLES, tuning_cells
from studies.reproduction.claims_table import claims_table
from studies.reproduction.feature_sections import controls, results
from studies.reproduction.pairing import TableRuns
from studies.reproduction.reproduction_figures import FIGURE_4
from studies.reproduction.results_tables import (
    methods_table,
    published_table,
    results_table,
)
from studies.reproduction.sections import SECTIONS
from tests.studies.made_records import record_of, section

CELLS = TABLES["fashion_mnist"].cells([])


def rows_of(table):
    """The cells of a Markdown table by column, a mapping for each row."""
    header, _, *rows = (
        [part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines()
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


def numbers_in(text):
    """The numbers of a sentence in their order."""
    return [float(number) for number in re.findall(r"[-+]?\d+(?:\.\d+)?", text)]


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
    table = results_table(lambda cell: cell.method == "arb", TableRuns("imagenet", records))
    differences = {(row["method"], row["SpA"]): row["last, minus none"] for row in rows_of(table)}
    assert differences["ARB", "Reg (default)"] == "+1.0 ± 0.0"
    assert differences["ARB, ResNet-50", "Reg (default)"] == "+2.0 ± 0.0"


def test_published_figures_stand_beside_what_came_out():
    cells = {cell.name: cell for cell in TABLES["cifar10"].cells([])}
    records = [
        record_of(cells[f"final-glmc-none-if200-label-seed{seed}"], 0.83 + seed / 100)
        for seed in range(3)
    ]
    rows = published_table(TableRuns("cifar10", records)).splitlines()
    none, proj = (next(row for row in rows if start in row) for start in ("| 83.4 |", "| 84.2 |"))
    assert none.endswith("| 3 | 84.0 ± 1.0 | 85.0 ± 1.0 |")
    how = "python -m spa_jax.reproduce cifar10 --only=final-glmc-proj-released-if200-label"
    assert f"| 0 of 3 | not run: `{how}` |" in proj


def test_a_row_has_mean_deviation_and_the_paired_interval():
    cells = [c for c in CELLS if c.stage == "final" and c.imbalance_factor == 100]
    wanted = [c for c in cells if c.method == "arb" and c.class_order == "reversed"]
    none = [c for c in wanted if c.spa_method == "none"]
    reg = [c for c in wanted if c.spa_method == "reg"]
    base, other = np.array([0.70, 0.72, 0.71]), np.array([0.75, 0.73, 0.74])
    records = [record_of(c, a) for c, a in zip(none + reg, [*base, *other], strict=True)]
    groups = {cell.group for cell in wanted}
    rows = rows_of(results_table(lambda c: c in groups, TableRuns("fashion_mnist", records)))
    by_variant = {row["SpA"]: row for row in rows}
    assert by_variant["none"]["last"] == "71.0 ± 1.0"
    assert by_variant["none"]["medium"] == "-"
    interval = ttest_rel(other, base).confidence_interval(0.95)
    half = 100 * (interval.high - interval.low) / 2
    assert by_variant["Reg (tuned)"]["last, minus none"] == f"+3.0 ± {half:.1f}"
    how = "`python -m spa_jax.reproduce fashion_mnist --only=final-arb-proj-tuned-if100-reversed`"
    assert by_variant["Proj (tuned)"]["last"] == f"not run: {how}"
    assert by_variant["Proj (tuned)"]["seeds"] == "0 of 3"


def test_the_methods_are_compared_with_cross_entropy_seed_by_seed():
    cells = {c.name: c for c in CELLS}
    records = [
        record_of(cells[f"final-{method}-none-if100-reversed-seed{seed}"], accuracy + seed / 100)
        for method, accuracy in (("cross_entropy", 0.6), ("arb", 0.64))
        for seed in range(3)
    ]
    line = methods_table(TableRuns("fashion_mnist", records)).splitlines()[-1]
    assert line.startswith("| ARB | 3 | 65.0 ± 1.0 |")
    assert line.endswith("| +4.0 ± 0.0 | +2.0 ± 0.0 |")


def test_every_section_can_be_made_of_nothing():
    nothing = {name: TableRuns(name, []) for name in (*TABLES, "imagenet_dry_run")}
    for name, make in SECTIONS.items():
        text = make(nothing[name.partition("/")[0]])
        assert text.strip(), name
        assert "nan" not in text


def test_glmcs_variants_are_compared_with_a_baseline_that_is_trained_alike():
    """With the same images for class means, and the same schedule of the learning rate."""
    cells = {c.name: c for c in CELLS}
    names = {
        "final-glmc-none-if100-reversed": ("auto", "cosine", 0.80),
        "ablation-glmc-none-means-of-mixed-if100-reversed": ("training", "cosine", 0.70),
        "ablation-glmc-none-released-schedule-if100-reversed": ("auto", "spa_released", 0.60),
        "final-glmc-proj-tuned-if100-reversed": ("auto", "cosine", 0.81),
        "ablation-glmc-proj-means-of-mixed-if100-reversed": ("training", "cosine", 0.72),
        "ablation-glmc-proj-released-schedule-if100-reversed": ("auto", "spa_released", 0.63),
    }
    records = [
        record_of(cells[f"{name}-seed{seed}"], last + seed / 1000)
        | {
            "config": {
                "spa": {"means_from": means, "classifier": "auto"},
                "optimizer": {"schedule": schedule},
            }
        }
        for name, (means, schedule, last) in names.items()
        for seed in range(3)
    ]
    rows = rows_of(
        results_table(lambda c: c.group_name in names, TableRuns("fashion_mnist", records))
    )
    differences = {row["SpA"]: row["last, minus none"] for row in rows}
    assert differences == {
        "none": "",
        "none (means-of-mixed)": "",
        "none (released-schedule)": "",
        "Proj (tuned)": "+1.0 ± 0.0",
        "Proj (means-of-mixed)": "+2.0 ± 0.0",
        "Proj (released-schedule)": "+3.0 ± 0.0",
    }


def test_what_diverged_is_not_called_open():
    cells = [
        c for c in TABLES["cifar10"].cells([]) if c.group_name == "final-glmc-none-if200-label"
    ]
    records = [record_of(cell, 0.5) | {"summary": None} for cell in cells]
    runs = TableRuns("cifar10", records)
    (row,) = (row for row in published_table(runs).splitlines() if "83.4" in row)
    assert "| diverged |" in row
    table = results_table(lambda cell: cell == cells[0].group, runs)
    assert "| 0 of 3, 3 diverged | diverged |" in table


def test_the_claim_is_put_into_words_of_the_intervals():
    """Of 15 pairs two rise by 2 points, one falls by 1, and the others do not move."""
    moved = {("arb", "reg"): 0.02, ("glmc", "proj"): 0.02, ("ldam_drw", "slerp"): -0.01}
    cells = [
        cell
        for cell in CELLS
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
    text = section("fashion_mnist/claim", records)
    own_pair, all_pairs, alignment = re.split(r"\. (?=[A-Z])", text)
    assert numbers_in(own_pair) == [2.0, 0.2, 3, 2.0, 0.2, 3]  # tuned, and as released
    lowest_and_highest, above_below_and_on_zero = [-1.0, 0.2, 2.0, 0.2], [2, 95, 1, 12]
    below_and_above_the_claim = [13, 0.5, 2]
    assert numbers_in(all_pairs) == [
        15,
        *lowest_and_highest,
        *above_below_and_on_zero,
        *below_and_above_the_claim,
    ]
    assert "-1.0 ± 0.2 (LDAM-DRW with SLERP)" in all_pairs
    assert numbers_in(alignment) == [0.0, 0.2, 5]
    assert numbers_in(section("fashion_mnist/claim", records[:-1])) == [16, 17]


def test_a_study_is_put_into_words_of_its_intervals():
    """Gamma's rows rise with it; before the last of their runs nothing is said."""
    base = [c for c in CELLS if c.group_name == "final-glmc-none-if100-reversed"]
    study = [c for c in CELLS if c.group_name.startswith("ablation-glmc-proj-gamma=")]
    jitter = np.array([0.001, -0.001, 0.0])
    records = [record_of(cell, 0.8) for cell in base]
    for cell in study:
        gamma = float(cell.variant.removeprefix("gamma="))
        record = record_of(cell, 0.8 + (gamma - 0.5) / 100 + jitter[cell.seed])
        record["summary"]["test_mean_cosine"] = 0.25 + (1 - gamma) / 2
        records.append(record)
    text = section("fashion_mnist/gamma_changes", records)
    assert re.findall(r"\((\S+ \(gamma=\S+\))\)", text) == ["Proj (gamma=0.1)", "Proj (gamma=0.9)"]
    changes, alignment = re.split(r"\. (?=[A-Z])", re.sub(r"gamma=\S+", "", text))
    assert numbers_in(changes) == [5, -0.4, 0.2, 0.4, 0.2, 1, 95, 1, 3]
    assert numbers_in(alignment) == [0.05, 0.45, 5]
    assert numbers_in(section("fashion_mnist/gamma_changes", records[:-1])) == [4, 5]


def test_cosines_of_different_classifiers_are_not_compared():
    """GLMC's baseline has those of the plain classifier."""
    names = ("final-glmc-none-if100-reversed", "ablation-glmc-proj-")
    cells = [c for c in CELLS if c.group_name.startswith(names) and c.seed < 3]
    records = []
    for cell in (c for c in cells if not c.variant.startswith("gamma=")):
        record = record_of(cell, 0.8 + cell.seed / 1000)
        head = cell.variant.startswith("head-")
        record["config"]["spa"]["classifier"] = "fc_cb/kernel" if head else "auto"
        record["summary"]["test_mean_cosine"] = 0.9 if head else 0.3
        records.append(record)
    text = section("fashion_mnist/ablation_changes", records)
    assert numbers_in(text) == [0, 6]  # tuned Proj is missing
    tuned = [c for c in CELLS if c.group_name == "final-glmc-proj-tuned-if100-reversed"]
    records += [record_of(cell, 0.8) for cell in tuned]
    text = section("fashion_mnist/ablation_changes", records)
    alignment = text[text.index("The mean cosine") : text.index("From tuned SpA")]
    assert numbers_in(alignment) == [0.0, 0.0, 4, 0]  # of the 6 rows


def test_ablations_are_compared_with_tuned_proj_of_the_same_seed():
    """Whose own change from seed to seed is no part of theirs."""
    wanted = {"radial-scale": -0.004, "uncentred": 0.0}
    cells = [c for c in CELLS if c.seed < 3 and c.class_order == "reversed"]
    by_seed, jitter = (0.0, 0.03, -0.02), (0.001, -0.001, 0.0)
    records = []
    for cell in cells:
        last = 0.8 + by_seed[cell.seed]
        if cell.group_name == "final-glmc-none-if100-reversed":
            records.append(record_of(cell, 0.8))
        elif cell.group_name == "final-glmc-proj-tuned-if100-reversed":
            records.append(record_of(cell, last))
        elif cell.variant in ABLATION and cell.spa_method == "proj":
            change = wanted.get(cell.variant, 0.01) + jitter[cell.seed]
            records.append(record_of(cell, last + change))
    changes = {row["SpA"]: row for row in rows_of(section("fashion_mnist/ablation", records))}
    own = changes["Proj (radial-scale)"]
    interval = ttest_rel([0.797, 0.825, 0.776], [0.8, 0.83, 0.78]).confidence_interval(0.95)
    half = 100 * (interval.high - interval.low) / 2
    assert own["last, minus tuned"] == f"-0.4 ± {half:.1f}"
    assert float(own["last, minus none"].split("±")[1]) > 5
    text = section("fashion_mnist/ablation_changes", records)
    _, _, beside_tuned = text.partition("From tuned SpA of the same seeds ")
    assert numbers_in(beside_tuned)[:2] == [5, 6]
    assert "Proj (radial-scale) by -0.4 ± 0.2," in beside_tuned
    assert "uncentred" not in beside_tuned


def test_a_row_counts_by_its_pairs_not_by_its_runs():
    """Its baseline may have fewer seeds."""
    cells = [c for c in CELLS if c.group_name.startswith("ablation-glmc-proj-gamma=")]
    base = [c for c in CELLS if c.group_name == "final-glmc-none-if100-reversed"]
    for pairs in (0, 2):
        records = [record_of(cell, 0.8) for cell in cells + base[:pairs]]
        assert numbers_in(section("fashion_mnist/gamma_changes", records)) == [0, 5]
    records = [record_of(cell, 0.8) for cell in cells + base]
    assert numbers_in(section("fashion_mnist/gamma_changes", records))[0] == 5
    records[0]["summary"] = None
    assert numbers_in(section("fashion_mnist/gamma_changes", records))[0] == 4
    assert "| 2 of 3, 1 diverged |" in section("fashion_mnist/gamma", records)


def test_the_chosen_strengths_are_bold():
    records = [
        record_of(cell, 0.1, validation=0.8 if place == 2 else 0.5)
        for method in ("cross_entropy", "glmc")
        for place, cell in enumerate(tuning_cells(method, "reversed", 100.0))
    ]
    rows = section("fashion_mnist/tuning", records).splitlines()[2:]
    bold = [i for i, row in enumerate(rows) if "**" in row]
    assert bold == [2, 4, 8]  # Reg's third, and of the other, equal ones the first
    assert rows[2].endswith("| **80.0** | **80.0** |")


def test_figure_4_is_shown_as_soon_as_it_can_be_drawn():
    figure_4 = "cifar100/figure_4"
    cells = [c for c in TABLES["cifar100"].cells([]) if c.group_name in FIGURE_4]
    assert [section(figure_4, []).count(f"--only={name}") for name in FIGURE_4] == [1, 1]
    assert section(figure_4, [record_of(cells[0], 0.4)]).startswith("Not run")
    assert section(figure_4, [record_of(cell, 0.4) for cell in cells]).endswith(
        "(reproduction/figure_4.png)"
    )


def test_rows_come_in_the_order_of_their_imbalance_factor():
    rows = section("fashion_mnist/imbalance", []).splitlines()[2:]
    factors = [float(row.split("|")[3]) for row in rows]
    assert factors == [f for f in (10, 20, 50, 100, 200, 500) for _ in range(2)]


def test_a_row_on_frozen_features_is_compared_with_its_method_as_tuned_and_controls_apart():
    own = {"epochs": 30, "schedule": "cosine", "learning_rate": 0.03, "weight_decay": 5e-3}
    spa = {"means_from": "dataset", "classifier": "auto"}
    strengths = {"slerp": {"alpha_max": 0.02, "threshold": 0.95}}
    means = {("final", "none"): 0.4, ("final", "slerp"): 0.43, ("control", "none"): 0.41}
    records = []
    for cell in TABLES["features_cifar10"].cells([]):
        place = (cell.stage, cell.spa_method)
        if (cell.method, cell.imbalance_factor) != ("cross_entropy", 100.0) or place not in means:
            continue
        if cell.stage == "final" or cell.variant == "decay=0.02":
            records.append(record_of(cell, means[place] + cell.seed / 500))
            config = {"optimizer": own, "epochs": 30, "spa": {**spa, **strengths}}
            records[-1]["config"] = config
    runs = TableRuns("features_cifar10", records)
    rows = results(100.0, runs).splitlines()
    assert "| cross-entropy | none | 30 epochs, rate 0.03, decay 0.005 | 20 | 41.9" in rows[2]
    assert "| cross-entropy | SLERP | alpha_max 0.02, threshold 0.95 | 20 | 44.9 ± 1.2" in rows[3]
    assert rows[3].endswith("| +3.00 ± 0.00 |")
    assert rows[5].startswith(
        "Not run: 18 of 20 rows. `python -m spa_jax.reproduce features_cifar10`"
    )
    assert "`--only=final-cross_entropy-reg-tuned-if100-label`" in rows[5]
    assert results(10.0, runs).startswith("Not run: 20 of 20 rows.")
    (decay,) = [row for row in controls(100.0, runs).splitlines() if "decay 0.02" in row]
    assert decay.endswith("| +1.00 ± 0.00 |")


@functools.cache
def nothing_of(table):
    return TableRuns(table, [])


@pytest.mark.parametrize(
    ("change", "wobble", "verdict"),
    [
        (0.02, 0.0005, "holds"),
        (0.002, 0.0005, "does not"),
        (-0.02, 0.0005, "does not"),
        (0.004, 0.005, "not told apart"),
    ],
)
def test_a_claim_holds_or_not_by_its_interval(change, wobble, verdict):
    """Accuracy is claimed to rise by half a point."""
    records = []
    for cell in TABLES["cifar10"].cells([]):
        if cell.group_name in {f"final-glmc-{x}-if200-label" for x in ("none", "proj-released")}:
            moved = change + wobble * (cell.seed - 1) if cell.spa_method == "proj" else 0.0
            records.append(record_of(cell, 0.8 + moved))
    runs = TableRuns("cifar10", records)
    table = claims_table(lambda name: runs if name == "cifar10" else nothing_of(name))
    (row,) = [line for line in table.splitlines() if "as published (83.4" in line]
    counts = dict(zip(("holds", "does not", "not told apart"), row.split(" | ")[-3:], strict=True))
    assert {name for name, count in counts.items() if count.strip(" |") == "1"} == {verdict}

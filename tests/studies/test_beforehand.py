"""The gain of a cell stands over the cosine of the same method without SpA."""

import pytest

from spa_jax.reproduction.tables import TABLES
from studies.reproduction.beforehand import correlations, points
from studies.reproduction.pairing import TableRuns
from tests.studies.made_records import record_of


def runs_of(table):
    """On CIFAR-100's features the more is gained the less was aligned; elsewhere nothing is."""
    records = []
    if table == "features_cifar100":
        cosines = {"cross_entropy": 0.5, "balanced_softmax": 0.6, "ldam_drw": 0.8, "crt": 0.7}
        cosines["arb"] = 0.9
        for cell in TABLES[table].cells([]):
            if cell.imbalance_factor != 100 or cell.method not in cosines or cell.seed > 2:
                continue
            if cell.stage == "final" and cell.spa_method in ("none", "reg"):
                cosine, with_spa = cosines[cell.method], cell.spa_method == "reg"
                record = record_of(cell, 0.5 + with_spa * (0.1 * (1 - cosine)) + cell.seed / 100)
                record["summary"]["test_mean_cosine"] = cosine + 0.05 * with_spa
                records.append(record)
    return TableRuns(table, records)


def test_a_point_has_the_plain_cosine_and_the_paired_gain():
    found = {round(point.cosine, 6): point for point in points(runs_of)}
    assert found.keys() == {0.5, 0.6, 0.7, 0.8, 0.9}
    assert {point.variant for point in found.values()} == {"reg"}
    assert found[0.5].gain == pytest.approx(0.05)
    assert found[0.5].half_width == pytest.approx(0, abs=1e-9)


def test_the_correlation_is_that_of_ranks():
    rows = correlations(runs_of).splitlines()
    assert "| Reg | 5 | too few | too few | +1.00 (p = 0.00) | +1.00 (p = 0.00) |" in rows
    assert "| SLERP | 0 | too few | too few | too few | too few |" in rows


def test_the_cosine_is_that_of_the_runs_that_the_gain_is_over():
    def without_a_plain_seed(table):
        records = runs_of(table).records
        for record in records:
            record["summary"]["test_mean_cosine"] += 0.3 * (record["seed"] == 2)
        lacking = ("none", 2)
        kept = [r for r in records if (r["spa_method"], r["seed"]) != lacking]
        return TableRuns(table, kept)

    found = sorted(point.cosine for point in points(without_a_plain_seed))
    assert found == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])

"""Records as the page reads them, for tests."""

from studies.reproduction.pairing import TableRuns
from studies.reproduction.sections import SECTIONS


def record_of(cell, last, validation=None):
    """What the page reads of a record."""
    groups = {"many": 0.9, "medium": None, "few": last / 2}
    return {
        "cell": cell.name,
        **{name: getattr(cell, name) for name in ("stage", "method", "spa_method", "variant")},
        **{name: getattr(cell, name) for name in ("imbalance_factor", "seed", "class_order")},
        "config": {
            "spa": {"means_from": "auto", "classifier": "auto"},
            "optimizer": {"schedule": "cosine"},
        },
        "summary": {
            "test_accuracy": {"last": last, "best": last + 0.01},
            "validation_accuracy": None if validation is None else {"last": validation},
            "shot_groups": groups,
            "mean_cosine": 0.5,
            "test_mean_cosine": 0.25,
        },
    }


def section(name, records):
    """What a section of the page says of these records of its table."""
    return SECTIONS[name](TableRuns(name.partition("/")[0], records))

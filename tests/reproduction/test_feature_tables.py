"""What the tables on frozen features train: first the tuning, then what it chose."""

import itertools

import pytest

from spa_jax.reproduction.feature_tables import BASE, SEEDS, TUNING_SEEDS
from spa_jax.reproduction.tables import TUNING, find_table
from spa_jax.training.config import flatten_config, resolve

PLAN = find_table("features_cifar100")
PLACE = ("crt", 50.0)


def cells_of(records, stage, spa_method):
    return [
        cell
        for cell in PLAN.cells(records)
        if (cell.stage, cell.spa_method, cell.method, cell.imbalance_factor)
        == (stage, spa_method, *PLACE)
    ]


def flat(config):
    return flatten_config(config.to_dict())


def recorded(cells, accuracy_of):
    """Records of tuning runs; the accuracy is a function of (seed, settings), None if diverged."""
    for cell in cells:
        accuracy = accuracy_of(cell.seed, cell.settings[:-1])
        summary = accuracy and {"validation_accuracy": {"last": accuracy}}
        yield {"cell": cell.name, "config": {}, "summary": summary}


def test_settings_are_those_of_the_best_mean_over_three_splits():
    tuning = cells_of([], "tune", "none")
    assert len(tuning) == len({cell.name for cell in tuning}) == len(BASE) * len(TUNING_SEEDS)
    best, lucky, diverging = BASE[5], BASE[7], BASE[2]

    def accuracy_of(seed, settings):
        if settings == diverging:
            return None if seed else 1.0
        return {best: 0.6, lucky: [0.9, 0.4, 0.4][seed]}.get(settings, 0.5)

    records = [*recorded(tuning, accuracy_of)]
    assert all(cell.settings is None for cell in cells_of(records[1:], "final", "none"))
    final = cells_of(records, "final", "none")
    assert [cell.settings for cell in final] == [best] * len(SEEDS)
    of_proj = cells_of(records, "tune", "proj")
    assert len(of_proj) == len(TUNING["proj"]) * len(TUNING_SEEDS)
    assert all(cell.settings[: len(best)] == best for cell in of_proj)
    strongest = TUNING["proj"][0]
    records += recorded(of_proj, lambda seed, settings: 0.7 if settings[-1:] == strongest else 0.6)
    assert {cell.settings for cell in cells_of(records, "final", "proj")} == {(*best, *strongest)}
    assert all(cell.settings is None for cell in cells_of(records, "final", "reg"))
    # No test accuracy was there to be looked at.
    assert not any("test_accuracy" in (record["summary"] or {}) for record in records)


def test_a_run_waits_for_the_tuning_of_its_own_method_variant_and_factor():
    (run,) = {cell.group for cell in cells_of([], "final", "slerp")}
    tuning = [cell for cell in PLAN.cells([]) if cell.stage == "tune"]
    waited = {cell.group_name for cell in tuning if PLAN.waits_for(run, cell)}
    own = [*cells_of([], "tune", "none"), *cells_of([], "tune", "slerp")]
    assert waited == {cell.group_name for cell in own}


def test_methods_differ_in_what_they_say_and_seeds_in_their_splits():
    of_method = {}
    for cell in PLAN.cells([]):
        if (cell.stage, cell.spa_method, cell.imbalance_factor) == ("final", "none", 50.0):
            of_method.setdefault(cell.method, []).append(cell)
    read = {
        name: [resolve(PLAN.config(cell)) for cell in cells] for name, cells in of_method.items()
    }
    for runs in read.values():
        assert [run.data.split_seed for run in runs] == [run.seed for run in runs] == [*SEEDS]
    assert {name: (runs[0].method.name, runs[0].data.sampler) for name, runs in read.items()} == {
        "cross_entropy": ("cross_entropy", "shuffle"),
        "balanced_softmax": ("balanced_softmax", "shuffle"),
        "ldam_drw": ("ldam_drw", "shuffle"),
        "crt": ("cross_entropy", "class_aware"),
        "arb": ("arb", "shuffle"),
        "normalised": ("cross_entropy", "shuffle"),
        "cosine": ("cross_entropy", "shuffle"),
    }
    heads = {name: runs[0].model.head for name, runs in read.items()}
    assert {name for name, head in heads.items() if head != "auto"} == {"normalised", "cosine"}


def test_controls_change_one_thing_of_what_was_tuned():
    place = ("cross_entropy", 100.0)
    tuned = [
        c for c in PLAN.cells([]) if c.stage == "tune" and (c.method, c.imbalance_factor) == place
    ]
    records = [*recorded(tuned[: len(BASE) * 3], lambda seed, settings: 0.5)]
    names = {cell.name for cell in tuned if cell.spa_method == "slerp"}
    slerp = [cell for cell in PLAN.cells(records) if cell.name in names]
    records += recorded(slerp, lambda *_: 0.5)
    configs = {}
    for cell in PLAN.cells(records):
        if (cell.method, cell.imbalance_factor, cell.seed) == (*place, 0) and cell.settings:
            configs[cell.stage, cell.spa_method, cell.variant] = flat(PLAN.config(cell))
    plain, slerp = configs["final", "none", "tuned"], configs["final", "slerp", "tuned"]
    decayed = configs["control", "none", "decay=0.05"]
    random = configs["control", "slerp", "random-directions"]
    assert {key for key in plain if plain[key] != decayed[key]} == {"optimizer.weight_decay"}
    assert {key for key in slerp if slerp[key] != random[key]} == {"spa.slerp.direction"}


@pytest.mark.parametrize("spa_method", ["none", "reg", "slerp", "proj"])
def test_all_methods_take_class_means_of_the_whole_training_set(spa_method):
    firsts = itertools.groupby(PLAN.cells([]), lambda cell: (cell.method, cell.spa_method))
    cells = [next(cells) for (_, spa), cells in firsts if spa == spa_method]
    assert {resolve(PLAN.config(cell)).spa.means_from for cell in cells} == {"dataset"}

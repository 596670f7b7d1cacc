"""Grouping: labels, baselines, pairs on shared seeds and splits, sweeps."""

import dataclasses

import pytest

from spa_jax.options import is_read
from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import (
    baseline_of,
    evaluations_of,
    find_sweeps,
    group_by,
    group_runs,
    label_of,
    paired,
    seed_and_split,
    why_not_paired,
)
from tests.refusals import refusal
from tests.reporting.made_runs import write_run


@pytest.fixture
def groups_of(tmp_path):
    """Groups of runs that are given by the changes of their configs."""

    def make(*changes, folder=""):
        runs = [
            read_run(write_run(tmp_path / folder / str(i), change, geometry=False, epochs=1))
            for i, change in enumerate(changes)
        ]
        return group_runs(runs)

    return make


def seeds_of(group):
    return [run.summary["seed"] for run in group.runs]


def test_runs_that_differ_in_the_seed_alone_are_one_group_by_seed(groups_of):
    (group,) = groups_of({"seed": 2}, {"seed": 0}, {"seed": 1})
    assert seeds_of(group) == [0, 1, 2]
    assert group.label == "spa.method=none"


def test_every_other_field_that_differs_is_in_the_label_and_no_other(groups_of):
    groups = groups_of(
        {"optimizer.learning_rate": 0.1},
        {"optimizer.learning_rate": 0.05, "seed": 1},
        {"optimizer.learning_rate": 0.05, "spa.method": "reg"},
    )
    assert [group.label for group in groups] == [
        "spa.method=none, optimizer.learning_rate=0.1",
        "spa.method=none, optimizer.learning_rate=0.05",
        "spa.method=reg, optimizer.learning_rate=0.05",
    ]


def test_fields_that_do_not_change_the_result_do_not_part_runs(groups_of):
    (group,) = groups_of({"seed": 0}, {"seed": 1, "logging.every_steps": 5, "checkpoint.keep": 1})
    assert seeds_of(group) == [0, 1]


def test_the_layout_over_devices_parts_runs_only_where_each_has_its_own_statistics(groups_of):
    (group,) = groups_of({"parallel": "jit"}, {"parallel": "pmap", "seed": 1})
    assert group.label == "spa.method=none"
    own = {"model.batch_norm": "per_device"}
    groups = groups_of(
        {"parallel": "pmap", **own}, {"parallel": "shard_map", "seed": 1, **own}, folder="own"
    )
    assert [group.label for group in groups] == ["parallel=pmap", "parallel=shard_map"]


def test_a_run_reads_the_options_of_what_it_uses_and_no_others():
    config = {"spa.method": "proj", "method.name": "glmc", "model.name": "vit_s16"}
    read = ("spa.proj.gamma", "method.glmc.label_power", "spa.method", "spa.center", "seed")
    unread = ("spa.reg.weight", "method.ldam_drw.margin", "model.vit.width")
    assert all(is_read(field, config) for field in (*read, "optimizer.name", "model.dtype"))
    assert not any(is_read(field, config) for field in unread)
    assert not is_read("spa.proj.gamma", {})


def test_the_strength_of_another_method_says_nothing_about_a_run(groups_of):
    groups = groups_of(
        {},
        {"spa.method": "reg", "spa.proj.gamma": 0.2},
        {"spa.method": "proj", "spa.proj.gamma": 0.2, "spa.reg.weight": 3.0},
        {"spa.method": "proj", "spa.proj.gamma": 0.4},
        {"spa.proj.gamma": 0.9, "seed": 1, "method.ldam_drw.margin": 0.1},
    )
    assert [group.label for group in groups] == [
        "spa.method=none",
        "spa.method=reg",
        "spa.method=proj, spa.proj.gamma=0.2",
        "spa.method=proj, spa.proj.gamma=0.4",
    ]
    assert seeds_of(groups[0]) == [0, 1]


def test_two_numbers_have_one_label_only_if_they_are_equal(groups_of):
    close = 0.1 + 1e-9
    groups = groups_of({}, {"optimizer.learning_rate": close})
    assert [group.label for group in groups][1] == f"optimizer.learning_rate={close!r}"
    assert label_of({"epochs": 30}) == label_of({"epochs": 30.0}) == "epochs=30"
    assert label_of({"a": [16, 32], "b": "", "c": True}) == "a=16,32, b='', c=True"


def test_the_same_configuration_and_seed_twice_is_refused(groups_of, tmp_path):
    message = refusal(groups_of, {}, {"spa.method": "reg"}, {})
    assert f"{tmp_path / '0'} and {tmp_path / '2'}" in message
    assert "same seed 0" in message


def test_the_baseline_is_the_group_without_alignment_that_is_otherwise_equal(groups_of):
    fast = {"optimizer.learning_rate": 0.5}
    reg, none, fast_reg, fast_none, lone = groups_of(
        {"spa.method": "reg"},
        {},
        {"spa.method": "reg", **fast},
        fast,
        {"spa.method": "reg", "optimizer.name": "adamw"},
    )
    groups = [reg, none, fast_reg, fast_none, lone]
    assert baseline_of(reg, groups) is none
    assert baseline_of(fast_reg, groups) is fast_none
    assert baseline_of(none, groups) is reg
    assert baseline_of(fast_none, groups) is reg
    assert baseline_of(lone, groups) is reg


def test_the_baseline_has_the_class_means_of_the_group_where_there_is_such_a_one(groups_of):
    training, auto = (
        {"method.name": "glmc", "spa.means_from": name} for name in ("training", "auto")
    )
    groups = groups_of(training, auto, auto | {"spa.method": "proj"})
    assert baseline_of(groups[2], groups) is groups[1]
    assert baseline_of(groups[2], [groups[0], groups[2]]) is groups[0]


def test_runs_that_were_evaluated_more_often_are_a_group_of_their_own(groups_of):
    """The best of many evaluations is not the best of one."""
    assert len(groups_of({"seed": 0}, {"seed": 1, "evaluate_every": 2})) == 2


def test_two_groups_without_alignment_are_not_compared_with_each_other(groups_of):
    groups = groups_of({"spa.method": "reg"}, {}, {"spa.center": False})
    assert all(baseline_of(group, groups) is groups[0] for group in groups[1:])
    assert baseline_of(groups[0], groups) is groups[1]


def test_without_such_a_group_the_first_is_the_baseline_and_has_none(groups_of):
    groups = groups_of({"spa.method": "reg"}, {"spa.method": "proj"})
    assert baseline_of(groups[1], groups) is groups[0]
    assert baseline_of(groups[0], groups) is None


def test_runs_are_paired_by_seed_and_split(tmp_path):
    runs = [write_run(tmp_path / f"none{seed}", {"seed": seed}) for seed in (0, 1, 2)]
    runs += [write_run(tmp_path / f"a{s}", {"seed": s, "spa.method": "reg"}) for s in (2, 1, 5)]
    runs += [write_run(tmp_path / "b", {"seed": 0, "spa.method": "reg"}, split="other")]
    none, reg = group_runs([read_run(run) for run in runs])
    pairs = paired(reg.runs, none.runs)
    assert [(a.folder.name, b.folder.name) for a, b in pairs] == [("a1", "none1"), ("a2", "none2")]
    of_reg, of_none = ([run.summary for run in group.runs] for group in (reg, none))
    assert paired(of_reg, of_none) == [(a.summary, b.summary) for a, b in pairs]
    reasons = "1 with another split or other data and 1 with another seed"
    assert why_not_paired(reg, none) == f"not paired: {reasons}"
    assert why_not_paired(none, none) == ""


def test_records_of_any_kind_are_grouped_and_paired_by_what_they_hold():
    records = [
        {"method": method, "seed": seed, "summary": {"seed": seed, "split_checksum": "a"}}
        for seed in (1, 0)
        for method in ("none", "reg")
    ]
    groups = group_by(records, lambda record: record["method"])
    assert list(groups) == ["none", "reg"]
    assert [record["seed"] for record in groups["reg"]] == [1, 0]

    def key(record):
        return seed_and_split(record["summary"])

    assert paired(groups["reg"], groups["none"][1:], key) == [(records[3], records[2])]


def gammas(*values, **changes):
    return [{"spa.method": "proj", "spa.proj.gamma": value, **changes} for value in values]


def test_a_numeric_field_with_three_values_is_a_sweep_with_its_baseline(groups_of):
    groups = groups_of({}, *gammas(0.8, 0.2, 0.4))
    (sweep,) = find_sweeps(groups)
    assert sweep.field == "spa.proj.gamma"
    assert sweep.values == [0.2, 0.4, 0.8]
    assert [group.fields["spa.proj.gamma"] for group in sweep.groups] == sweep.values
    assert sweep.fixed == "spa.method=proj"
    assert sweep.baseline is groups[0]


def test_two_values_names_and_seeds_are_no_sweep(groups_of):
    groups = groups_of({}, *gammas(0.2, 0.4), {"spa.method": "reg"}, {"seed": 1}, {"seed": 2})
    assert find_sweeps(groups) == []


def test_a_grid_has_a_sweep_for_each_value_of_the_other_field(groups_of):
    rates = (0.1, 0.2, 0.3)
    groups = groups_of(
        *(change for rate in rates for change in gammas(0, 0.5, 1, **{_RATE: rate})),
    )
    sweeps = find_sweeps(groups)
    found = {(sweep.field, sweep.fixed) for sweep in sweeps}
    assert found == {
        *(("spa.proj.gamma", f"{_RATE}={rate}") for rate in rates),
        *((_RATE, f"spa.proj.gamma={value}") for value in ("0", "0.5", "1")),
    }
    assert all(len(sweep.groups) == 3 for sweep in sweeps)
    assert all(sweep.baseline is None for sweep in sweeps)


_RATE = "optimizer.learning_rate"


def test_runs_of_one_configuration_on_other_data_are_other_groups(tmp_path):
    """As when an image was deleted between two seeds; each is compared on its own data alone."""
    content, runs = {0: "a" * 64, 1: "b" * 64}, []
    for method in ("none", "reg"):
        for seed, checksum in content.items():
            changes = {"seed": seed, "spa.method": method}
            folder = tmp_path / f"{method}{seed}"
            runs.append(read_run(write_run(folder, changes, content_checksum=checksum)))
    groups = group_runs(runs)
    assert [group.label for group in groups] == [
        f"spa.method={method}, data.content={checksum[:12]}"
        for method in ("none", "reg")
        for checksum in content.values()
    ]
    assert [baseline_of(group, groups) for group in groups[2:]] == groups[:2]


def test_runs_on_other_data_are_not_paired(tmp_path):
    """Those of an earlier version, which did not record the checksum, neither."""
    contents = {"none": "a" * 64, "reg": "b" * 64, "proj": None}
    none, reg, proj = group_runs(
        [
            read_run(write_run(tmp_path / name, {"spa.method": name}, content_checksum=content))
            for name, content in contents.items()
        ]
    )
    assert none.label == "spa.method=none"  # which the configuration tells apart already
    for group in (reg, proj):
        assert not paired(group.runs, none.runs)
        assert why_not_paired(group, none) == "not paired: 1 with another split or other data"


def start(checksum, run="runs/first"):
    """What a summary says of the run that another started from."""
    return {"run": run, "parts": "backbone", "step": 5, "params_checksum": checksum}


def test_runs_from_two_states_of_a_first_run_are_not_paired(tmp_path):
    """Those of two first runs, or of one and of none, differ in their configurations."""
    starts = {"none": start("a"), "reg": start("b"), "proj": start("b", "runs/two"), "slerp": None}
    none, reg, proj, slerp = group_runs(
        [
            read_run(write_run(tmp_path / name, {"spa.method": name}, init=init))
            for name, init in starts.items()
        ]
    )
    assert not paired(reg.runs, none.runs)
    assert not paired(reg.summaries, none.summaries)
    assert why_not_paired(reg, none) == "not paired: 1 with another state of its first run"
    assert len(paired(proj.runs, none.runs)) == len(paired(slerp.runs, none.runs)) == 1


def test_runs_of_one_configuration_from_two_states_of_a_first_run_are_two_groups(tmp_path):
    states = [character * 64 for character in "aabb"]
    runs = [
        read_run(write_run(tmp_path / str(i), {"seed": i}, init=start(state)))
        for i, state in enumerate(states)
    ]
    groups = group_runs(runs)
    assert [group.label for group in groups] == ["init.state=" + c * 12 for c in "ab"]
    assert [len(group.runs) for group in groups] == [2, 2]


def test_evaluations_on_other_examples_are_not_put_together(tmp_path):
    """As of two data sets in folders of one name."""

    def group_of(method, *evaluated):
        runs = [
            dataclasses.replace(
                read_run(write_run(tmp_path / f"{method}{s}", {"seed": s, "spa.method": method})),
                evaluations={
                    what: {"data_folder": folder, "examples_checksum": checksum * 64}
                    for what, folder, checksum in found
                },
            )
            for s, found in enumerate(evaluated)
        ]
        return group_runs(runs)

    test, shifted, noisy = ("test", None, "t"), ("data_v1", "/a/v1", "a"), ("data_v1", "/b/v1", "b")
    moved = ("data_v1", "/c/v1", "a")
    (mixed,) = group_of("none", [test, shifted], [test, noisy])
    (reg,) = group_of("reg", [test, shifted], [test, moved])
    (proj,) = group_of("proj", [test, noisy], [noisy])
    found = evaluations_of([mixed, reg])
    assert {what: [*shown] for what, shown in found.items()} == {
        "test": [mixed.label, reg.label],
        "data_v1": [reg.label],
    }
    found = evaluations_of([reg, proj])
    assert {what: [*shown] for what, shown in found.items()} == {
        "test": [reg.label],
        f"data_v1 {'a' * 12}": [reg.label],
        f"data_v1 {'b' * 12}": [proj.label],
    }

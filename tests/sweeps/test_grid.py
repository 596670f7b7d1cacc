"""The runs of a grid: which fields and values an axis may have, and a folder for each run."""

import pytest

from spa_jax.sweeps.grid import make_grid, parse_axes, parse_axis, parse_seeds
from spa_jax.sweeps.runner import Runner
from tests.refusals import refusal
from tests.training.small import small_config


def test_values_get_the_type_of_their_field():
    texts = ["config.spa.proj.gamma=1,0.5", "epochs=1", "spa.center=true,False"]
    axes = parse_axes([*texts, "spa.method=reg,none", "model.small.widths=8,16;32"])
    assert axes == {
        "spa.proj.gamma": (1.0, 0.5),
        "epochs": (1,),
        "spa.center": (True, False),
        "spa.method": ("reg", "none"),
        "model.small.widths": ((8, 16), (32,)),
    }
    assert type(axes["spa.proj.gamma"][0]) is float


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        (["spa.proj.gama=0.1"], ("spa.proj.gama is not a field", "spa.proj.gamma?")),
        (["spa.gamma=0.1"], ("spa.gamma has a new name", "spa.proj.gamma")),
        (["spa=1,2"], ("group of fields", "spa.method")),
        (["spa.proj.gamma"], ("lacks a value", "spa.proj.gamma=0.6")),
        (["spa.proj.gamma=0.1,,0.2"], ("lacks a value",)),
        (["spa.proj.gamma=low"], ("type float", "'low'")),
        (["spa.center=maybe"], ("type bool", "'maybe'")),
        (["epochs=2.5"], ("type int", "'2.5'")),
        (["model.small.widths=8,wide"], ("type tuple", "'8,wide'")),
        (["spa.proj.gamma=0.1,0.10"], ("0.1 twice",)),
        (["spa.center=true,1"], ("True twice",)),
        (["spa.proj.gamma=0.1", "spa.proj.gamma=0.2"], ("given twice",)),
        (["seed=1,2"], ("--seeds",)),
        (["logging.every_steps=1,2"], ("logging.every_steps", "would be the same")),
    ],
)
def test_axes_that_make_no_grid_are_refused_with_what_to_do(axes, parts):
    message = refusal(parse_axes, axes)
    for part in parts:
        assert part in message


def test_an_axis_may_go_by_another_flag():
    assert "--methods spa.method" in refusal(parse_axis, "spa.method=proj,proj", "--methods")


def test_seeds_are_a_number_of_them_or_a_list():
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("0,3") == (0, 3)
    assert parse_seeds("7,") == (7,)
    for wrong in ("", "0", "00", "a", "1,1", "-1,2", "1,,2", "2.5"):
        assert "--seeds" in refusal(parse_seeds, wrong)


def test_an_option_that_no_run_reads_is_refused_with_what_does(tmp_path):
    fields = {"proj.gamma": "proj", "reg.weight": "reg", "slerp.threshold": "slerp"}
    for field, method in fields.items():
        message = refusal(make_grid, small_config(), {f"spa.{field}": (0.1, 0.2)}, [0], tmp_path)
        assert f"--config.spa.method={method}" in message
    message = refusal(make_grid, small_config(), {"method.arb.counts": ("batch",)}, [0], tmp_path)
    assert "--config.method.name=arb" in message
    axes = {"spa.method": ("none", "proj"), "spa.proj.gamma": (0.1, 0.2)}
    assert len(make_grid(small_config(), axes, [0], tmp_path)) == 4


def test_every_combination_is_a_run_of_its_own_below_out_whatever_the_values(tmp_path):
    axes = {"data.folder": ("a/b", "../c", "a%2Fb"), "model.small.widths": ((8,), (8, 16))}
    members = make_grid(small_config(), axes, [0, 1], tmp_path)
    assert len({member.name for member in members}) == len(members) == 12
    assert {member.folder.parent for member in members} == {tmp_path}
    assert not any("/" in member.name for member in members)
    assert [member.seed for member in members[:2]] == [0, 1]
    for member in members:
        assert member.config.seed == member.seed
        assert member.config.data.folder == member.settings["data.folder"]
        assert member.config.model.small.widths == member.settings["model.small.widths"]


def test_runs_of_a_comparison_are_named_by_their_variant_and_seed(tmp_path):
    members = make_grid(small_config(), {"spa.method": ("none", "reg")}, [0, 3], tmp_path)
    assert [member.name for member in members] == [
        "none-seed0",
        "none-seed3",
        "reg-seed0",
        "reg-seed3",
    ]
    (alone,) = make_grid(small_config(), {}, [4], tmp_path)
    assert alone.name == "seed4"


def test_runs_that_differ_in_what_is_traced_have_one_program(tmp_path):
    axes = {
        "batch_size": (32, 64),
        "spa.proj.gamma": (0.1, 0.9),
        "optimizer.weight_decay": (0.0, 0.1),
    }
    members = make_grid(small_config(spa__method="proj"), axes, [0, 1], tmp_path)
    runner = Runner(tmp_path, together=True)
    for start, size in ((0, 32), (8, 64)):
        group = runner.next_group(members[start:])
        assert group == members[start : start + 8]
        assert {member.config.batch_size for member in group} == {size}
    variants = make_grid(small_config(), {"spa.method": ("none", "reg")}, [0], tmp_path)
    assert runner.next_group(variants) == variants[:1]


def test_runs_of_one_program_are_trained_after_one_another(tmp_path, monkeypatch):
    """Whatever stands between them in the grid, so that it is compiled once."""
    axes = {"spa.proj.gamma": (0.1, 0.9), "batch_size": (32, 64)}
    members, trained = make_grid(small_config(spa__method="proj"), axes, [0], tmp_path), []

    def finish(runner, group):
        trained.extend(member.config.batch_size for member in group)
        for member in group:
            member.fail("made")

    monkeypatch.setattr(Runner, "train_group", finish)
    Runner(tmp_path).train(members)
    assert trained == [32, 32, 64, 64]

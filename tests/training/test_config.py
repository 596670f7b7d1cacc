"""A configuration is checked before anything starts, and a workdir belongs to one of them."""

import importlib
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from spa_jax.longtail.registry import METHODS
from spa_jax.models.networks import NETWORKS
from spa_jax.options import defaults_of
from spa_jax.training.config import (
    check_field_name,
    default_config,
    flat_defaults,
    flatten_config,
    resolve,
    traced_fields,
)
from spa_jax.training.rundir.workdir import check_workdir, write_config
from spa_jax.training.variants import VARIANTS
from tests.refusals import refusal

FIELDS = flatten_config(default_config().to_dict())  # tuples are lists here
CONFIG_FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def split_field(values, field):
    """The dictionary that holds a dotted field, and the field's key in it."""
    *groups, key = field.split(".")
    for group in groups:
        values = values[group]
    return values, key


def with_value(field, value):
    """The default config with any value, of any type, in a field that need not exist."""
    values = default_config().to_dict()
    holder, key = split_field(values, field)
    holder[key] = value
    return ConfigDict(values)


def without(field):
    values = default_config().to_dict()
    holder, key = split_field(values, field)
    del holder[key]
    return ConfigDict(values)


def changed(**fields):
    config = default_config()
    config.update_from_flattened_dict({f.replace("__", "."): v for f, v in fields.items()})
    return config


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_config_file_resolves_and_has_the_fields_of_the_default(path):
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    resolve(config)
    assert flatten_config(config.to_dict()).keys() == FIELDS.keys()


def test_defaults_by_dotted_name_are_those_of_the_default_config():
    assert flat_defaults() == FIELDS


def test_what_a_registry_names_has_a_group_of_its_own_if_it_has_options():
    config = default_config()
    for group, registry in (("method", METHODS), ("model", NETWORKS), ("spa", VARIANTS)):
        for name, entry in registry.items():
            own = defaults_of(entry.options)
            assert (config[group][name].to_dict() if own else {}) == own
            assert own or name not in config[group]


def test_a_configuration_is_read_into_what_it_names():
    config = changed(spa__method="slerp", spa__slerp__alpha_max=0.25, epochs=7, seed=3)
    config.model.name, config.model.vit.width = "vit", 8
    config.spa.classifier = "one/kernel,two/kernel"
    options = resolve(config)
    assert (options.epochs, options.seed, options.network.width) == (7, 3, 8)
    assert options.aligned == {"classifier": ("one/kernel", "two/kernel"), "center": True}
    found = {name: float(value) for name, value in options.hyperparams.items()}
    assert found == pytest.approx(
        {"learning_rate": 0.1, "weight_decay": 5e-4, "alpha_max": 0.25, "threshold": 0.95}
    )
    assert traced_fields(config)["alpha_max"] == "spa.slerp.alpha_max"


MISSPELT = [
    ("spa.proj.gama", "config.spa.proj.gama is not a field.", "config.spa.proj.gamma?"),
    ("batchsize", "config.batchsize is not a field.", "config.batch_size?"),
    ("optimizer.weight_decy", "config.optimizer.weight_decy", "config.optimizer.weight_decay?"),
    ("optimiser", "config.optimiser is not a field.", "config.optimizer?"),
]


@pytest.mark.parametrize(("field", "what", "suggestion"), MISSPELT)
def test_a_misspelt_field_or_group_is_named_with_the_nearest_name(field, what, suggestion):
    for message in (
        refusal(resolve, with_value(field, {"momentum": 0.5})),
        refusal(check_field_name, field),
    ):
        assert what in message
        assert f"Did you mean {suggestion}" in message


def test_a_field_like_no_other_is_refused_with_the_fields_there_are():
    message = refusal(resolve, with_value("spa.zzz", 1))
    assert "config.spa.zzz is not a field" in message
    assert "Did you mean" not in message
    for known in default_config().spa:
        assert known in message


RENAMED = {
    "spa.gamma": "spa.proj.gamma",
    "method.drw_epoch": "method.ldam_drw.epoch",
    "model.widths": "model.small.widths",
}


@pytest.mark.parametrize("field", RENAMED)
def test_an_old_name_is_answered_with_the_new_one_which_is_a_field(field):
    for message in (refusal(resolve, with_value(field, 1)), refusal(check_field_name, field)):
        assert f"config.{field} has a new name: {RENAMED[field]}" in message
        for name in re.findall(r"(?:spa|method|model)\.\w+\.\w+", message):
            check_field_name(name)


def test_a_field_below_an_unknown_group_or_below_a_value_is_refused():
    assert "config.optimizer?" in refusal(check_field_name, "optimiser.momentum")
    assert "config.seed is a value" in refusal(check_field_name, "seed.first")
    check_field_name("spa.proj.gamma")


def test_a_group_in_place_of_a_value_and_a_value_in_place_of_a_group_are_refused():
    assert "config.spa is a group of fields, got 3." in refusal(resolve, with_value("spa", 3))
    message = refusal(resolve, with_value("method.glmc", "yes"))
    assert "config.method.glmc is a group of fields, got 'yes'." in message
    assert "config.seed is a value" in refusal(resolve, with_value("seed", {"first": 1}))


def test_an_empty_group_is_refused_as_any_other_that_is_no_field():
    assert "config.zzz is not a field" in refusal(resolve, with_value("zzz", {}))
    assert "config.optimizer is a group of fields" in refusal(resolve, with_value("optimizer", {}))


def test_a_missing_field_or_group_is_named():
    for field in ("seed", "spa.proj.gamma", "optimizer"):
        message = refusal(resolve, without(field))
        assert f"config lacks {field}" in message
        assert "default_config" in message


WRONG_TYPES = {
    "logging.plots": (1, "yes", None),
    "epochs": ("3", 1.5, True, float("nan"), None),
    "optimizer.momentum": ("0.1", True, None, (0.1,)),
    "data.folder": (3, True, (3,), None),
    "model.small.widths": ("16", 16, None, (), (8.0,), ("8",), (8, True)),
    "optimizer.step_epochs": (160, (160.0,)),
    "spa.classifier": (3, (), (3,)),
    # Of what this run does not use.
    "spa.proj.gamma": (True, None, "0.6"),
    "model.vit.heads": (True, 2.0),
}


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_a_value_of_another_type_is_refused(field):
    for value in WRONG_TYPES[field]:
        message = refusal(resolve, with_value(field, value))
        assert f"config.{field} must be of type" in message
        assert repr(value) in message


def test_an_integer_is_a_number_and_a_list_is_a_tuple():
    config = changed(optimizer__learning_rate=1, model__small__widths=(8, 4))
    assert resolve(config).network.widths == (8, 4)
    assert resolve(with_value("model.small.widths", [8, 4])).network.widths == (8, 4)


def test_one_classifier_path_and_several_pass_but_no_other_text_may_be_several():
    resolve(with_value("spa.classifier", ("head/kernel", "other/kernel")))
    for field in ("data.folder", "spa.method"):
        assert f"config.{field}" in refusal(resolve, with_value(field, ("proj", "none")))


CHOICES = {
    "parallel": "jit, pmap, shard_map",
    "data.profile": "exponential, step, pareto, natural",
    "augment.policy": "none, randaugment, autoaugment_cifar",
    "model.name": ", ".join(NETWORKS),
    "method.name": ", ".join(METHODS),
    "spa.method": "none, reg, slerp, proj",
    "method.arb.counts": "batch, global",
}


@pytest.mark.parametrize("field", CHOICES)
def test_an_unknown_choice_is_refused_with_the_choices(field):
    for value in ("unheard_of", ""):
        message = refusal(resolve, with_value(field, value))
        assert f"config.{field} must be one of {CHOICES[field]}; got {value!r}" in message


# Field -> what is said, values just outside its range, and ends of the range, which pass.
RANGES = {
    "epochs": ("at least 1", (0, -3), (1,)),
    "augment.mix_alpha": ("at least 0.001", (0.0,), ()),
    "spa.decay": ("at least 0 and below 1", (-0.01, 1, 1.0), (0, 0.999)),
    "spa.slerp.threshold": ("at least -1 and at most 1", (-1.01, 1.01), (-1, 1)),
    "optimizer.step_epochs": ("above 0", ((0, 5),), ((1, 5),)),
    "model.convnext.widths": ("at least 1", ((0,), (8, -1)), ((1,),)),
}


@pytest.mark.parametrize("field", RANGES)
def test_a_number_out_of_range_is_refused_and_the_ends_of_the_range_pass(field):
    words, outside, ends = RANGES[field]
    for value in outside:
        message = refusal(resolve, with_value(field, value))
        assert f"config.{field} must be {words}, got {value!r}" in message
    group, *names = field.split(".")
    for value in ends:
        config = with_value(field, value)
        if group == "model" and len(names) == 2:
            config.model.name = names[0]  # or it would do nothing
        if field.startswith("optimizer.step_"):
            config.optimizer.schedule = "steps"
        resolve(config)


@pytest.mark.parametrize("field", [f for f in FIELDS if type(FIELDS[f]) in (int, float)])
def test_no_number_may_be_huge_infinite_or_nan(field):
    is_int = type(FIELDS[field]) is int
    for value in (2**31, 10**400) if is_int else (1e300, float("inf"), float("nan")):
        assert f"config.{field} " in refusal(resolve, with_value(field, value))


def test_an_option_of_another_method_is_refused_with_those_of_this_one():
    message = refusal(resolve, changed(method__glmc__label_power=2.0))
    assert "config.method.glmc.label_power is no option of cross_entropy" in message
    assert "which has none: set it to 1.2" in message
    config = changed(method__name="arb", method__ldam_drw__margin=1.0)
    assert "no option of arb, which has arb.counts" in refusal(resolve, config)
    resolve(changed(method__name="glmc", method__glmc__label_power=2.0))
    message = refusal(resolve, changed(model__name="resnet18", model__small__widths=(8, 4)))
    assert "config.model.small.widths is no option of resnet18, which has none" in message
    assert "set it to [16, 32], as it is by default" in message
    message = refusal(resolve, changed(model__vit__width=8))
    assert "no option of small, which has small.widths, small.blocks, small.stem_stride" in message
    # A comparison sets the strengths of all variants, and each run reads its own.
    resolve(changed(spa__proj__gamma=0.1))


UNUSED = {
    "config.data.imbalance_factor=50.0 does nothing": changed(
        data__profile="natural", data__imbalance_factor=50.0
    ),
    "config.data.imbalance_factor=5.0 does nothing, as all images train": changed(
        data__train_list="train.txt", data__imbalance_factor=5.0
    ),
    "config.data.class_order_seed=1 does nothing": changed(data__class_order_seed=1),
    "config.data.sampler_power=0.5 does nothing": changed(
        data__sampler="square_root", data__sampler_power=0.5
    ),
    "config.augment.mix_alpha=0.2 does nothing": changed(augment__mix_alpha=0.2),
    "The method glmc mixes images itself, by glmc": changed(
        method__name="glmc", augment__mix="cutmix"
    ),
    "The method remix mixes images itself, by mixup": changed(
        method__name="remix", augment__mix="mixup"
    ),
    "config.optimizer.momentum=0.5 does nothing, as it is of config.optimizer.name=sgd": changed(
        optimizer__name="adamw", optimizer__momentum=0.5
    ),
    "config.optimizer.nesterov=True does nothing": changed(
        optimizer__name="adamw", optimizer__nesterov=True
    ),
    "config.optimizer.step_epochs=(3,) does nothing, as it is of config.optimizer": changed(
        optimizer__step_epochs=(3,)
    ),
    "config.optimizer.step_factor=0.1 does nothing": changed(optimizer__step_factor=0.1),
    "The method bcl is given two views of each image, which are not mixed": changed(
        method__name="bcl", augment__mix="mixup"
    ),
    "config.spa.means_from=clean asks for a second forward": changed(spa__means_from="clean"),
    "config.spa.method=proj has nothing to act on with the method etf": changed(
        method__name="etf", augment__mix="mixup", spa__method="proj"
    ),
    "needs config.parallel=pmap or shard_map": changed(model__batch_norm="per_device"),
    "config.method.ldam_drw.epoch=160 is not reached in config.epochs=30": changed(
        method__name="ldam_drw"
    ),
    "config.optimizer.step_epochs must be positive integers that ascend": changed(
        optimizer__step_epochs=(8, 5)
    ),
}


@pytest.mark.parametrize("message", UNUSED)
def test_what_would_do_nothing_or_does_not_go_together_is_refused(message):
    assert message in refusal(resolve, UNUSED[message])


def other_value(value):
    """A value of the same type that is not the given one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str | list):
        return value + type(value)("x")
    return value + 1


def differing_fields(workdir, config):
    """The fields that the refusal of a workdir names."""
    return re.findall(r"(?<![\w.])([\w.]+) \(", refusal(check_workdir, workdir, config))


FREE = (
    "eval_batch_size",
    "parallel",
    "mesh",
    "checkpoint",
    "loader",
    "logging",
    "data.folder",
    "data.verify",
)


def test_a_workdir_of_another_config_is_refused_with_the_field_that_differs(tmp_path):
    """A run may go on with fields that change nothing of what is computed."""
    write_config(tmp_path, default_config())
    for field, value in FIELDS.items():
        config = with_value(field, other_value(value))
        if {field, field.split(".")[0]} & {*FREE}:
            check_workdir(tmp_path, config)
        else:
            assert differing_fields(tmp_path, config) == [field]


def test_all_fields_that_differ_are_named_with_both_values(tmp_path):
    write_config(tmp_path, default_config())
    config = changed(spa__proj__gamma=0.25, seed=7, model__small__widths=(4,))
    assert differing_fields(tmp_path, config) == ["model.small.widths", "seed", "spa.proj.gamma"]
    message = refusal(check_workdir, tmp_path, config)
    for part in ("0.6 there, 0.25 now", "0 there, 7 now", "[16, 32] there, [4] now", "--workdir"):
        assert part in message


def test_devices_decide_what_is_computed_where_each_has_its_own_statistics(tmp_path):
    write_config(tmp_path, changed(model__batch_norm="per_device", parallel="pmap"))
    config = changed(model__batch_norm="per_device", parallel="shard_map")
    assert differing_fields(tmp_path, config) == ["parallel"]


def test_a_field_that_no_longer_exists_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(with_value("spa.old", 1).to_dict()))
    assert differing_fields(tmp_path, default_config()) == ["spa.old"]


def test_a_run_that_did_not_know_a_field_is_of_an_earlier_version(tmp_path):
    for field in ("seed", "spa.proj.gamma"):
        (tmp_path / "config.json").write_text(json.dumps(without(field).to_dict()))
        message = refusal(check_workdir, tmp_path, default_config())
        assert f"earlier version of spa_jax, which did not know {field}:" in message


@pytest.mark.parametrize("content", [b"", b"{", b"seed: 0", b"\xff\xfe\x00", b"[]", b"3", b"null"])
def test_an_unreadable_config_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    message = refusal(check_workdir, tmp_path, default_config())
    assert str(path) in message
    assert "choose another workdir" in message
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints"])
def test_files_of_a_run_without_a_config_are_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    message = refusal(check_workdir, tmp_path, default_config())
    assert str(tmp_path) in message
    assert "no config.json" in message


def test_a_folder_that_is_empty_or_does_not_exist_is_free(tmp_path):
    check_workdir(tmp_path, default_config())
    check_workdir(tmp_path / "new", default_config())
    assert not list(tmp_path.iterdir())

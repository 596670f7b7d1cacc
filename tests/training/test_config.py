"""A configuration is checked before anything starts, and a workdir belongs to one of them."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from spa_jax.training.config import check_config, check_field_name, default_config
from spa_jax.training.rundir.workdir import check_workdir, flatten_config, write_config
from tests.refusals import refusal

FIELDS = flatten_config(default_config().to_dict())  # tuples are lists here
NUMBERS = [field for field, value in FIELDS.items() if type(value) in (int, float)]
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


def config_of(path):
    """The config that a file in `configs/` builds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_the_default_config_passes_and_holds_every_field_that_other_code_sets():
    check_config(default_config())
    documented = "method gamma weight alpha_max threshold decay center classifier radial acts_on"
    assert {f"spa.{name}" for name in documented.split()} <= FIELDS.keys()
    assert {"seed", "epochs", "batch_size", "parallel"} <= FIELDS.keys()


MISSPELT = [
    ("spa.gama", "config.spa.gama is not a field.", "config.spa.gamma?"),
    ("batchsize", "config.batchsize is not a field.", "config.batch_size?"),
    ("optimizer.weight_decy", "config.optimizer.weight_decy", "config.optimizer.weight_decay?"),
    ("optimiser", "config.optimiser is not a field.", "config.optimizer?"),
]


@pytest.mark.parametrize(("field", "what", "suggestion"), MISSPELT)
def test_a_misspelt_field_or_group_is_named_with_the_nearest_name(field, what, suggestion):
    for message in (
        refusal(check_config, with_value(field, {"momentum": 0.5})),
        refusal(check_field_name, field),
    ):
        assert what in message
        assert f"Did you mean {suggestion}" in message


def test_a_field_like_no_other_is_refused_with_the_fields_there_are():
    message = refusal(check_config, with_value("spa.zzz", 1))
    assert "config.spa.zzz is not a field" in message
    assert "Did you mean" not in message
    for known in default_config().spa:
        assert known in message


def test_a_field_below_an_unknown_group_or_below_a_value_is_refused():
    assert "config.optimizer?" in refusal(check_field_name, "optimiser.momentum")
    assert "config.seed is a value" in refusal(check_field_name, "seed.first")


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_known_by_its_dotted_name(field):
    check_field_name(field)


WRONG_TYPES = {
    bool: (1, "yes", None),
    int: ("3", 1.5, True, float("nan")),
    float: ("0.1", True, None, (0.1,)),
    str: (3, True, (3,)),
    list: ("16", 16, None),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_of_another_type_is_refused_in_every_field(field):
    for value in WRONG_TYPES[type(FIELDS[field])]:
        message = refusal(check_config, with_value(field, value))
        assert f"config.{field} " in message
        assert repr(value) in message


@pytest.mark.parametrize("field", ["seed", "spa.gamma", "model.widths", "data.folder"])
def test_a_missing_field_is_named(field):
    group, _, key = f"config.{field}".rpartition(".")
    message = refusal(check_config, without(field))
    assert f"{group} lacks {key}" in message
    assert "default_config" in message


def test_a_missing_group_and_a_group_that_is_a_value_are_refused():
    assert "config lacks optimizer" in refusal(check_config, without("optimizer"))
    assert "config.spa must be of type dict" in refusal(check_config, with_value("spa", 3))


CHOICES = {
    "parallel": ("jit", "pmap", "shard_map"),
    "data.profile": ("exponential", "step", "pareto", "natural"),
    "data.protocol": ("ldam", "glmc"),
    "data.class_order": ("label", "reversed", "permuted"),
    "data.sampler": ("shuffle", "class_aware", "square_root", "reversed", "power"),
    "data.feed": ("auto", "device", "stream"),
    "augment.policy": ("none", "randaugment", "autoaugment_cifar"),
    "augment.mix": ("none", "mixup", "cutmix"),
    "model.dtype": ("float32", "bfloat16"),
    "model.batch_norm": ("global", "per_device"),
    "method.name": (
        "cross_entropy",
        "balanced_softmax",
        "logit_adjustment",
        "post_hoc_logit_adjustment",
        "arb",
        "ldam_drw",
    ),
    "method.arb_counts": ("batch", "global"),
    "optimizer.schedule": ("cosine", "steps"),
    "optimizer.name": ("sgd", "adamw"),
    "spa.method": ("none", "reg", "slerp", "proj"),
    "spa.radial": ("keep", "scale"),
    "spa.acts_on": ("gradients", "updates"),
}


@pytest.mark.parametrize("field", CHOICES)
@pytest.mark.parametrize("value", ["unheard_of", ""])
def test_an_unknown_choice_is_refused_with_the_choices(field, value):
    message = refusal(check_config, with_value(field, value))
    assert f"config.{field} must be one of {', '.join(CHOICES[field])}" in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in CHOICES.items() for value in values]
)
def test_every_choice_passes(field, value):
    check_config(with_value(field, value))


def test_one_classifier_path_and_several_pass_but_no_other_text_may_be_several():
    check_config(with_value("spa.classifier", ("head/kernel", "other/kernel")))
    for field in ("data.folder", "spa.method"):
        assert f"config.{field}" in refusal(check_config, with_value(field, ("proj", "none")))


def test_the_released_schedule_needs_more_epochs_than_its_warm_up():
    values = default_config()
    values.optimizer.schedule, values.epochs = "spa_released", 10
    assert "config.epochs=10" in refusal(check_config, values)
    values.epochs = 11
    check_config(values)
    values.optimizer.warmup_epochs = 1.0
    assert "warm-up of its own" in refusal(check_config, values)


def test_a_warm_up_of_half_an_epoch_is_refused_where_the_rate_changes_between_epochs():
    values = default_config()
    values.optimizer.per_epoch, values.optimizer.warmup_epochs = True, 1.5
    assert "warmup_epochs=1.5 must be whole" in refusal(check_config, values)


# Field -> values just outside its range, and its ends, which pass.
RANGES = {
    "seed": ((-1, 2**31), (0, 2**31 - 1)),
    "epochs": ((0,), (1,)),
    "batch_size": ((0,), (1,)),
    "eval_batch_size": ((0,), (1,)),
    "data.n_max": ((-1,), (0,)),
    "data.imbalance_factor": ((0.99,), (1, 1.0)),
    "data.class_order_seed": ((-1, 2**31), (0, 2**31 - 1)),
    "data.split_seed": ((-2, 2**31), (-1, 2**31 - 1)),
    "data.sampler_power": ((-10.1, 10.1), (-10, 10)),
    "augment.crop_padding": ((-1,), (0,)),
    "augment.randaugment_layers": ((0, 101), (1, 100)),
    "augment.randaugment_magnitude": ((-1, 31), (0, 30)),
    "augment.cutout": ((-1,), (0,)),
    "augment.mix_alpha": ((0.0, 1001.0), (0.001, 1000.0)),
    "augment.image_size": ((0,), (1,)),
    "augment.resize": ((0,), (1,)),
    "augment.min_area": ((0.0, 1.01), (0.001, 1)),
    "augment.color_jitter": ((-0.1,), (0,)),
    "augment.grey": ((-0.1, 1.1), (0, 1)),
    "augment.blur": ((-0.1, 1.1), (0, 1)),
    "model.blocks": ((0,), (1,)),
    "model.depth": ((0,), (1,)),
    "model.width_factor": ((0,), (1,)),
    "loader.workers": ((-1,), (0,)),
    "model.stem_stride": ((0,), (1,)),
    "model.heads": ((0,), (1,)),
    "method.tau": ((-0.1,), (0,)),
    "method.ldam_margin": ((-0.1,), (0,)),
    "method.ldam_scale": ((0.0,), (0.001,)),
    "method.drw_beta": ((-0.1, 1.0, 1.1), (0, 0.999)),
    "method.drw_epoch": ((-1,), (0,)),
    "method.glmc_label_power": ((-10.1, 10.1), (-10, 10)),
    "method.glmc_sampler_power": ((-10.1, 10.1), (-10, 10)),
    "method.glmc_similarity_weight": ((-0.1,), (0,)),
    "method.glmc_projection_dim": ((0,), (1,)),
    "optimizer.learning_rate": ((-1e-6,), (0,)),
    "optimizer.warmup_epochs": ((-0.1,), (0,)),
    "optimizer.step_factor": ((-0.01, 1.01), (0, 1)),
    "optimizer.momentum": ((-0.01, 1.01), (0, 1)),
    "optimizer.weight_decay": ((-1e-6,), (0,)),
    "spa.gamma": ((-1e-6, 1.000001), (0, 1)),
    "spa.weight": ((-1e-6,), (0,)),
    "spa.alpha_max": ((-1e-6, 1.000001), (0, 1)),
    "spa.threshold": ((-1.01, 1.01), (-1, 1)),
    "spa.decay": ((-0.01, 1, 1.01), (0, 0.999)),
    "checkpoint.every_epochs": ((-1,), (0,)),
    "checkpoint.keep": ((0,), (1,)),
    "logging.every_steps": ((-1,), (0,)),
}


def test_every_number_has_a_range():
    assert RANGES.keys() == set(NUMBERS)


@pytest.mark.parametrize("field", RANGES)
def test_a_number_out_of_range_is_refused_and_the_ends_of_the_range_pass(field):
    outside, ends = RANGES[field]
    for value in outside:
        assert f"config.{field} " in refusal(check_config, with_value(field, value))
    for value in ends:
        check_config(with_value(field, value))


@pytest.mark.parametrize("field", NUMBERS)
def test_no_number_may_be_huge_infinite_or_nan(field):
    is_int = type(FIELDS[field]) is int
    for value in (10**20, 10**400) if is_int else (1e300, float("inf"), float("nan")):
        assert f"config.{field} " in refusal(check_config, with_value(field, value))


@pytest.mark.parametrize("widths", [(), (0,), (8, -1), (8.0,), ("8",)])
def test_widths_must_be_positive_integers(widths):
    message = refusal(check_config, with_value("model.widths", widths))
    assert "config.model.widths must be positive integers" in message


def test_a_vision_transformer_has_one_width():
    config = with_value("model.name", "vit")
    assert "tokens of one width, got config.model.widths=(16, 32)" in refusal(check_config, config)
    config.model.widths = (32,)
    check_config(config)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_config_file_builds_passes_and_has_the_known_fields(path):
    config = config_of(path)
    check_config(config)
    assert flatten_config(config.to_dict()).keys() == FIELDS.keys()
    assert {"digits_lt", "fashion_mnist_lt"} <= {file.stem for file in CONFIG_FILES}


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


FREE = [
    field
    for field in FIELDS
    if field.split(".")[0] in ("parallel", "checkpoint", "loader", "logging")
    or field in ("data.folder", "data.verify")
]


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in FREE])
def test_a_workdir_of_another_config_is_refused_with_the_field_that_differs(tmp_path, field):
    write_config(tmp_path, default_config())
    changed = with_value(field, other_value(FIELDS[field]))
    assert differing_fields(tmp_path, changed) == [field]


@pytest.mark.parametrize("field", FREE)
def test_a_run_may_go_on_with_fields_that_change_nothing_of_what_is_computed(tmp_path, field):
    write_config(tmp_path, default_config())
    check_workdir(tmp_path, with_value(field, other_value(FIELDS[field])))


def test_all_fields_that_differ_are_named_with_both_values(tmp_path):
    write_config(tmp_path, default_config())
    changed = with_value("spa.gamma", 0.25)
    changed.seed, changed.model.widths = 7, (4,)
    assert differing_fields(tmp_path, changed) == ["model.widths", "seed", "spa.gamma"]
    message = refusal(check_workdir, tmp_path, changed)
    for part in ("0.6 there, 0.25 now", "0 there, 7 now", "[16, 32] there, [4] now", "--workdir"):
        assert part in message


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_a_run_may_go_on_with_the_same_config(tmp_path, path):
    write_config(tmp_path, config_of(path))
    check_workdir(tmp_path, config_of(path))


def test_a_field_that_no_longer_exists_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(with_value("spa.old", 1).to_dict()))
    assert differing_fields(tmp_path, default_config()) == ["spa.old"]


@pytest.mark.parametrize("field", ["seed", "spa.gamma"])
def test_a_run_that_did_not_know_a_field_is_of_an_earlier_version(tmp_path, field):
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

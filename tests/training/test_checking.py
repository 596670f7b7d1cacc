"""What would stop a run is refused by `check_run`, before anything is trained or written."""

import pytest

from spa_jax.training.checking import check_run, check_runs
from spa_jax.training.loop import run
from tests.refusals import refusal
from tests.training.small import small_config

# What is wrong, and what its refusal says.
WRONG = {
    "a classifier that does not exist": (
        {"spa__method": "proj", "spa__classifier": "top/kernel"},
        ("config.spa.classifier", "top/kernel", "head/kernel"),
    ),
    "a classifier that holds no class weights": (
        {"method__name": "glmc", "spa__classifier": "projector/kernel"},
        ("projector/kernel", "no class weights", "fc/kernel, fc_cb/kernel"),
    ),
    "one of several classifiers": (
        {"method__name": "glmc", "spa__classifier": "fc/kernel,projector/kernel"},
        ("config.spa.classifier", "projector/kernel"),
    ),
    "an alignment of fixed weights": (
        {"method__name": "etf", "model__small__widths": (12,), "spa__method": "slerp"},
        ("config.spa.method=slerp", "method etf", "fixed", "stops the gradient"),
    ),
    "features too narrow for a frame": (
        {"method__name": "etf"},
        ("9 or more, got 8", "config.model.small.widths"),
    ),
    "a batch that the devices cannot share": (
        {"batch_size": 60},
        ("config.batch_size=60", "8 devices", "multiple of 8"),
    ),
    "a batch larger than the training set": (
        {"batch_size": 400},
        ("config.batch_size=400", "369 images", "lower it"),
    ),
    "a field of streams, on images in memory": (
        {"augment__image_size": 32},
        ("config.augment.image_size", "live in memory", "leave it at 224"),
    ),
    "a normalisation of colours, on grey images": (
        {"augment__normalization": "imagenet"},
        ("config.augment.normalization=imagenet", "3 channels", "have 1", "leave it at dataset"),
    ),
    "statistics of a device where no device has a batch": (
        {"model__batch_norm": "per_device"},
        ("config.model.batch_norm=per_device", "config.parallel=pmap or shard_map"),
    ),
    "a dtype that the network has not": (
        {"model__dtype": "bfloat16"},
        ("config.model.name", "config.model.dtype=bfloat16"),
    ),
    "class weights after the end": (
        {"method__name": "ldam_drw"},
        ("config.method.ldam_drw.epoch=160", "config.epochs=2", "set it lower"),
    ),
    "a best checkpoint that nothing but the test set could choose": (
        {"checkpoint__keep_best": True},
        ("config.checkpoint.keep_best", "config.data.validation=true", "leave keep_best out"),
    ),
    "data that are not there": (
        {"data__name": "fashion_mnist", "data__folder": "no/such/folder"},
        ("no/such/folder",),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_stop_a_run_is_refused_by_the_check(case):
    changes, parts = WRONG[case]
    message = refusal(check_run, small_config(**changes))
    for part in parts:
        assert part in message


def test_a_run_refuses_it_before_it_writes_anything(tmp_path):
    config = small_config(spa__method="proj", spa__classifier="top/kernel")
    message = refusal(run, config, tmp_path / "run")
    assert message == refusal(check_run, config)
    assert not (tmp_path / "run").exists()


def test_of_several_runs_the_last_is_checked_too():
    fine, wrong = small_config(), small_config(spa__method="reg", spa__classifier="top/kernel")
    check_runs([fine, small_config(seed=1)])
    assert "top/kernel" in refusal(check_runs, [fine, fine, wrong])

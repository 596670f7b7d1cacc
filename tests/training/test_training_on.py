"""A run with more epochs than its folder has: it goes on from there, or is refused."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from spa_jax.options import defaults_of
from spa_jax.training.config import resolve
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.rundir.checkpoints import read_record
from spa_jax.training.rundir.json_lines import JsonLines
from spa_jax.training.rundir.workdir import read_summary, write_config
from spa_jax.training.variants import VARIANTS
from tests.data.test_features import write_npz
from tests.refusals import refusal
from tests.training.small import small_config, small_program
from tests.training.test_feature_banks import bank_config
from tests.training.test_resume import metrics, without_those

# With an average, and a rate that falls after the shorter run.
STEPS = {
    "model__name": "adapter",
    "optimizer__name": "sgd",
    "optimizer__schedule": "steps",
    "optimizer__step_epochs": (4,),
    "optimizer__step_factor": 0.1,
    "optimizer__warmup_epochs": 1.0,
    "optimizer__ema": 0.9,
    "spa__method": "proj",
    "evaluate_every": 2,
    "logging__every_steps": 1,
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("bank"))


def config_of(bank, epochs, **changes):
    return bank_config(bank, **STEPS | {"epochs": epochs} | changes)


def train(config, workdir, **options):
    return run(config, workdir, small_program(config), lambda line: None, **options)


@pytest.fixture(scope="module")
def finished(bank, tmp_path_factory):
    """A run of three epochs, whose last is evaluated because it is the last."""
    folder = tmp_path_factory.mktemp("finished")
    train(config_of(bank, 3), folder)
    assert [line["epoch"] for line in metrics(folder)] == [2, 3]
    return folder


@pytest.fixture(scope="module")
def whole(bank, tmp_path_factory):
    """A run of six epochs."""
    folder = tmp_path_factory.mktemp("whole")
    train(config_of(bank, 6), folder)
    return folder


def assert_same(folder, whole):
    names = [max(path.name for path in (of / "checkpoints").iterdir()) for of in (folder, whole)]
    assert names[0] == names[1]
    one, other = (read_record(of / "checkpoints" / names[0]) for of in (folder, whole))
    assert one["checksum"] == other["checksum"]
    assert without_those(read_summary(folder)) == without_those(read_summary(whole))
    assert metrics(folder) == metrics(whole)
    assert (folder / "steps.jsonl").read_bytes() == (whole / "steps.jsonl").read_bytes()
    configs = [json.loads((of / "config.json").read_text()) for of in (folder, whole)]
    assert configs[0] == configs[1]


def test_a_finished_run_that_is_trained_on_ends_as_one_of_that_length(bank, whole, tmp_path):
    train(config_of(bank, 3), tmp_path)
    train(config_of(bank, 6), tmp_path)
    assert_same(tmp_path, whole)
    # What it is then is not undone.
    assert "epochs (6 there, 3 now)" in refusal(run, config_of(bank, 3), tmp_path)


@pytest.mark.thorough
def test_so_does_one_that_was_stopped(bank, whole, tmp_path):
    with pytest.raises(RunStopped):
        train(config_of(bank, 5), tmp_path, keep_going=lambda: False)
    train(config_of(bank, 6), tmp_path)
    assert_same(tmp_path, whole)


def test_a_crash_as_it_begins_leaves_a_run_that_the_old_command_finishes_again(
    bank, finished, tmp_path, monkeypatch
):
    train(config_of(bank, 3), tmp_path)
    write = JsonLines.write

    def crash(self, records):
        write(self, records)
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "write", crash)
        with pytest.raises(OSError, match="power"):
            train(config_of(bank, 6), tmp_path)
    train(config_of(bank, 3), tmp_path)
    assert metrics(tmp_path) == metrics(finished)


WRONG = {
    "a cosine": (
        {
            "optimizer__schedule": "cosine",
            "optimizer__step_epochs": (160, 180),
            "optimizer__step_factor": 0.01,
        },
        "the rate of config.optimizer.schedule=cosine",
    ),
    "a warm-up that was cut short": (
        {"optimizer__warmup_epochs": 2.5},
        "config.optimizer.warmup_epochs=2.5 do not fit",
    ),
    "SLERP": ({"spa__method": "slerp"}, "what config.spa.method=slerp does"),
    "other data": ({"batch_size": 4}, "these fields differ: batch_size (8 there, 4 now)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_run_that_is_no_beginning_of_the_longer_one_is_refused_and_stays(
    bank, finished, case, tmp_path
):
    changes, part = WRONG[case]
    folder = shutil.copytree(finished, tmp_path / "run")
    write_config(folder, config_of(bank, 3, **({} if case == "other data" else changes)))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    message = refusal(run, config_of(bank, 6, **changes), folder)
    assert part in message
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_finished_run_without_a_checkpoint_is_not_begun_anew(bank, tmp_path):
    train(config_of(bank, 1, optimizer__warmup_epochs=0.0), tmp_path)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    message = refusal(run, config_of(bank, 2, optimizer__warmup_epochs=0.0), tmp_path)
    assert "has no checkpoint to train on from" in message
    assert read_summary(tmp_path)


def test_glmc_whose_loss_changes_over_the_whole_run_is_not_trained_on():
    options = resolve(small_config(method__name="glmc", optimizer__schedule="steps", epochs=20))
    assert "the loss of config.method.name=glmc" in refusal(options.check_longer, 10)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_says_whether_it_depends_on_the_number_of_steps(name):
    """By the programs of its links, of a short run and of a long one."""
    options = VARIANTS[name].options
    variant, defaults = VARIANTS[name].make(options()), defaults_of(options)
    strengths = {key: jnp.float32(defaults[key]) for key in variant.traced}
    params, aligned = {"head": {"kernel": jnp.ones((6, 4))}}, {"classifier": "head/kernel"}
    programs = []
    for steps in (4, 400):
        for make in filter(None, (variant.first_link, variant.last_link)):
            link = make(strengths, aligned | {"center": True}, steps)
            update = partial(link.update, class_means=jnp.ones((4, 6)))
            text = str(jax.make_jaxpr(update)(params, link.init(params), params))
            programs.append(re.sub(r"0x[0-9a-f]+", "", text))
    assert (len({*programs}) > 1) == variant.needs_end

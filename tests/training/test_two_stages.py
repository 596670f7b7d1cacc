"""Runs that start from another: whole, or with the classifier alone trained on its features."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from spa_jax.models import import_weights
from spa_jax.models.peer_names import Naming
from spa_jax.training import evaluation, recipes
from spa_jax.training.checking import check_run, check_runs, prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.devices import Layout
from spa_jax.training.loop import RunStopped, run
from spa_jax.training.metrics import fetch
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import array_shapes, read_arrays, read_record
from spa_jax.training.rundir.first_run import FirstRun
from spa_jax.training.rundir.run_record import RunRecord
from spa_jax.training.rundir.workdir import read_summary
from tests import parameters
from tests.refusals import refusal
from tests.training.small import small_config, small_program, take_steps

STEPS = 80  # of the first run, five an epoch
PLAIN = {
    "model__small__widths": (32,),
    "model__small__stem_stride": 2,
    "augment__crop_padding": 0,
    "augment__flip": False,
}


def silent(line):
    del line


def second_config(first, **changes):
    """Classifier re-training: four epochs of the head alone, on draws of all classes alike."""
    crt = {
        "init__run": str(first),
        "init__parts": "backbone",
        "optimizer__train_only": "head",
        "data__sampler": "class_aware",
        "epochs": 4,
        "evaluate_every": 4,
        "seed": 1,
    }
    return small_config(**PLAIN | crt | changes)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a run that is finished."""
    folder = tmp_path_factory.mktemp("first")
    config = small_config(epochs=STEPS // 5, evaluate_every=STEPS // 5, **PLAIN)
    run(config, folder, small_program(config), silent)
    return folder


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """The folder of a run of the second stage."""
    folder = tmp_path_factory.mktemp("second")
    config = second_config(first)
    run(config, folder, small_program(config), silent)
    return folder


def array_paths(tree):
    """The arrays of a tree by their paths."""
    return dict(zip(array_shapes(tree), jax.tree.leaves(tree), strict=True))


def last_state(workdir, step):
    """The arrays of a checkpoint, by their paths."""
    return read_arrays(workdir / "checkpoints" / str(step))


def test_the_second_stage_trains_the_classifier_alone_and_names_the_first_run(first, second):
    before, after, summary = last_state(first, STEPS), last_state(second, 20), read_summary(second)
    frozen = [path for path in before if path.startswith(("params/backbone/", "batch_stats/"))]
    assert len(frozen) > 10
    for path in frozen:
        np.testing.assert_array_equal(after[path], before[path])
    assert not np.allclose(after["params/head/kernel"], before["params/head/kernel"])
    assert not any("backbone" in path for path in after if path.startswith("opt_state/"))
    assert summary["test_accuracy"]["last"] > 0.4  # four times chance
    checksum = read_summary(first)["params_checksum"]
    expected = {"run": str(first), "parts": "backbone", "step": STEPS, "params_checksum": checksum}
    assert summary["init"] == expected


def test_scales_of_classes_are_learned_and_all_else_stays(first):
    """At first the run predicts as the first one has; then one scale a class moves, by its slope.

    That of the loss is the mean over examples of (p_c - y_c) <w_c, f>.
    """
    lws = {"init__parts": "all", "optimizer__train_only": "scales", "optimizer__weight_decay": 0.01}
    config = second_config(first, **lws)
    program = small_program(config)
    start, there = program.init_state(config), last_state(first, STEPS)
    batch = program.feed.batch(start, next(program.batches(start, seed=0, epoch=0)))
    model = prepare_run(resolve(config)).model
    images = program.feed.normalize(batch.images)
    features, logits = map(np.float64, model.apply(start.variables, images, train=False))
    kernel, bias = (there[f"params/head/{name}"].astype(np.float64) for name in ("kernel", "bias"))
    np.testing.assert_allclose(logits, features @ kernel + bias, atol=1e-4)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    slope = np.mean((shares - np.eye(10)[batch.labels]) * (features @ kernel), axis=0)
    (before, after, last), _ = take_steps(program, start, 2)
    rate = config.optimizer.learning_rate
    assert np.abs(slope).max() > 1e-4
    expected = 1 - rate * (slope + 0.01)
    np.testing.assert_allclose(after.params["head"]["scales"], expected, atol=1e-5)
    assert [leaf.shape for leaf in jax.tree.leaves(last.opt_state) if leaf.ndim] == [(10,)]
    for path, array in array_paths(last.variables).items():
        if path != "params/head/scales":
            np.testing.assert_array_equal(array, there[path])
    np.testing.assert_array_equal(before.params["head"]["scales"], 1)
    weights, _ = evaluation.tested_classifier(last.variables, program.method)
    scaled = kernel * np.asarray(last.params["head"]["scales"])
    np.testing.assert_allclose(weights, scaled.T, rtol=1e-5)


@pytest.mark.thorough
def test_a_run_that_goes_on_ends_as_without_a_stop_and_its_first_run_may_be_gone(
    first, second, tmp_path
):
    copy, workdir = tmp_path / "first", tmp_path / "second"
    shutil.copytree(first, copy)
    config = second_config(copy)
    with pytest.raises(RunStopped):
        run(config, workdir, small_program(config), silent, keep_going=lambda: False)
    shutil.rmtree(copy)
    summary = run(config, workdir, small_program(config), silent)
    checksums = [read_record(of / "checkpoints/20")["checksum"] for of in (second, workdir)]
    assert checksums[0] == checksums[1]
    assert summary["init"] == read_summary(second)["init"] | {"run": str(copy)}
    assert "is no folder" in refusal(check_run, config)
    check_runs([], continued=[config])


@pytest.mark.parametrize("variant", parameters.first(1, ["proj", "reg", "slerp"]))
def test_every_variant_aligns_the_classifier_with_features_of_evaluation_mode(first, variant):
    config = second_config(first, spa__method=variant)
    program = small_program(config)
    start = program.init_state(config)
    batch = program.feed.batch(start, next(program.batches(start, seed=0, epoch=0)))
    images, labels = program.feed.normalize(batch.images), np.asarray(batch.labels)
    model = prepare_run(resolve(config)).model
    features = np.asarray(model.apply(start.variables, images, train=False)[0])
    (before, _, after), _ = take_steps(program, start, 2, at=0, measured=True)
    seen = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in seen])
    np.testing.assert_allclose(after.class_means.mean[seen], means, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(after.params["head"]["kernel"], before.params["head"]["kernel"])
    for now, then in (
        (after.params["backbone"], before.params["backbone"]),
        (after.batch_stats, before.batch_stats),
    ):
        jax.tree.map(np.testing.assert_array_equal, now, then)


def test_a_checkpoint_can_be_named_and_all_of_it_is_taken(first):
    checkpoint = first / "checkpoints" / str(STEPS)
    config = small_config(init__run=str(checkpoint), seed=1, **PLAIN)
    state, there = fetch(small_program(config).init_state(config)), last_state(first, STEPS)
    found = array_paths(state.variables)
    assert found.keys() == {path for path in there if path.startswith(("params/", "batch_stats/"))}
    for path, array in found.items():
        np.testing.assert_array_equal(array, there[path])


def test_members_of_one_program_start_from_one_run_with_classifiers_of_their_own(first):
    configs = [second_config(first, seed=seed) for seed in (0, 1)]
    program = Program(configs[0], layout=Layout("vmap", jax.devices()[:1], members=2))
    params = fetch(program.init_state(*configs).params)
    there = last_state(first, STEPS)
    for path in array_shapes(params["backbone"]):
        array = params["backbone"]
        for key in path.split("/"):
            array = array[key]
        for member in array:
            np.testing.assert_array_equal(member, there[f"params/backbone/{path}"])
    assert not np.allclose(*params["head"]["kernel"])


@pytest.fixture(scope="module")
def imported(first, tmp_path_factory):
    """The folder of an import of the first run's network, from a file of another library."""
    folder, arrays = tmp_path_factory.mktemp("imported"), last_state(first, STEPS)
    own = {path: path.replace("/backbone/", "/") for path in arrays if "/backbone/" in path}
    own = {path: name for path, name in own.items() if path.startswith(("params/", "batch_stats/"))}
    naming = Naming("of a test", (), "fc")
    tensors = {
        naming.name(name): np.ascontiguousarray(
            arrays[path].transpose(3, 2, 0, 1) if arrays[path].ndim == 4 else arrays[path]
        )
        for path, name in own.items()
    }
    save_file(tensors, folder / "weights.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        shapes = {name: arrays[path].shape for path, name in own.items()}
        patch.setattr(import_weights, "network_shapes", lambda *_: shapes)
        patch.setattr(import_weights, "PEER_NAMES", {"small": (naming,)})
        import_weights.import_weights(folder / "weights.safetensors", "small", folder)
    return folder


def test_imported_weights_are_a_start_and_the_record_names_their_file(first, imported):
    config = second_config(imported)
    program, there = small_program(config), last_state(first, STEPS)
    state = fetch(program.init_state(config))
    paths = array_shapes(state.variables)
    compared = 0
    for path, array in zip(paths, jax.tree.leaves(state.variables), strict=True):
        if "/backbone/" in path:
            np.testing.assert_array_equal(array, there[path])
            compared += 1
    assert compared > 10
    record, file = program.first_run.record, imported / "weights.safetensors"
    assert (record["step"], record["model"], record["file"]) == (0, "small", file.name)
    assert record["file_checksum"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_imported_weights_are_of_one_network_without_a_classifier(imported):
    message = refusal(check_run, second_config(imported, init__parts="all"))
    assert "without its classifier: set config.init.parts=backbone" in message
    message = refusal(check_run, second_config(imported, model__small__widths=(4,)))
    for part in ("which is [32] there and [4] here", "Set config.model.name=small"):
        assert part in message


@pytest.mark.parametrize("recipe", ["crt", "lws"])
def test_the_recipes_of_second_stages_train_and_test_on_less(first, recipe, tmp_path):
    """With the network and the images of the first run in place of CIFAR's."""
    config = small_config(**PLAIN)
    recipes.CIFAR_RECIPES[recipe](config)
    config.model.name, config.batch_size, config.epochs = "small", 64, 1
    config.augment.crop_padding, config.augment.flip = 0, False
    config.init.run = str(first)
    summary = run(config, tmp_path, small_program(config), silent)
    assert summary["init"]["step"] == STEPS and summary["steps"] == 5
    assert summary["test_accuracy"]["last"] > 0.3


WRONG = {
    "no such run": ({"init__run": "no/such/run"}, ("config.init.run=no/such/run is no folder",)),
    "a folder without a checkpoint": (
        {"init__run": str(Path(__file__).parent)},
        ("has no checkpoint to start from", "each does at its end"),
    ),
    "another network": (
        {"model__small__widths": (4,)},
        (
            "another network or of another number of classes",
            "batch_stats/backbone/",
            "which is [32] there and [4] here",
            "Set config.model",
        ),
    ),
    "another head": (
        {"method__name": "glmc", "init__parts": "all"},
        ("the first params/head/bias, which is [10] there and missing here", "parts=backbone"),
    ),
    "images held out that the first run has learned": (
        {"data__validation": True},
        ("trained on another part of digits", "this run validates or tests on", "its config.json"),
    ),
    "test images that the first run has learned": (
        {"data__split_seed": 1},
        ("trained on another part of digits", "config.data.split_seed"),
    ),
    "parts of no run": (
        {"init__run": "", "optimizer__train_only": "all"},
        ("config.init.parts=backbone needs config.init.run", "at all"),
    ),
    "features of no run": (
        {"init__run": "", "init__parts": "all"},
        ("config.optimizer.train_only=head", "config.init.run"),
    ),
    "a classifier that is fixed": (
        {"method__name": "etf", "model__small__widths": (12,)},
        ("config.optimizer.train_only=head", "fixed class weights"),
    ),
    "alignment of weights whose directions stay": (
        {"optimizer__train_only": "scales", "init__parts": "all", "spa__method": "proj"},
        ("config.spa.method=proj has nothing to act on", "keeps where they point"),
    ),
    "scales of random class weights": (
        {"optimizer__train_only": "scales"},
        ("config.optimizer.train_only=scales", "config.init.parts=all", "random"),
    ),
    "scales of no class weights": (
        {"optimizer__train_only": "scales", "init__parts": "all", "model__head": "cosine"},
        ("lengths of the class weights of a linear head", "config.model.head=cosine"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_run_cannot_start_from_is_refused_before_anything_is_written(first, tmp_path, case):
    changes, parts = WRONG[case]
    config, workdir = second_config(first, **changes), tmp_path / "run"
    message = refusal(check_run, config)
    for part in parts:
        assert part in message
    assert refusal(run, config, workdir, say=silent) == message
    assert not workdir.exists()


def test_a_classifier_of_classes_of_other_names_is_not_taken(first, tmp_path):
    there = shutil.copytree(first, tmp_path / "first")
    summary = read_summary(first)
    name = summary["class_names"][3]
    summary["class_names"][3] = "cat"
    (there / "summary.json").write_text(json.dumps(summary))
    for run_or_checkpoint in (there, there / "checkpoints" / str(STEPS)):
        message = refusal(check_run, second_config(run_or_checkpoint, init__parts="all"))
        assert f"1 of 10 differ, class 3 is 'cat' there and {name!r} here" in message
        assert "config.init.parts=backbone" in message
        check_run(second_config(run_or_checkpoint))
    (there / "summary.json").unlink()  # as of a run that is not finished
    check_run(second_config(there, init__parts="all"))


def test_a_run_that_has_saved_nothing_refuses_a_first_run_that_has_changed(first, tmp_path):
    config = second_config(first)
    program = small_program(config)
    earlier = program.first_run.record | {"step": 5, "params_checksum": "of before"}
    RunRecord(config, tmp_path).claim(program.data, FirstRun({}, earlier))
    message = refusal(run, config, tmp_path, program, say=silent)
    for part in ("step 5", "of before", f"step {STEPS}", "choose another folder"):
        assert part in message

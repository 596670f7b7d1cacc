"""Finished runs evaluated from their checkpoints: against their records, and what is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from sklearn import metrics

from spa_jax import evaluate as command
from spa_jax.data.sources.opening import load_data
from spa_jax.evaluate import evaluate, open_runs
from spa_jax.report import PARTS, report_page
from spa_jax.reporting.evaluation_tables import evaluation_rows
from spa_jax.reporting.figures.style import Drawing, save
from spa_jax.reporting.finished_runs import read_run
from spa_jax.reporting.grouping import group_runs
from spa_jax.training.checking import prepare_run
from spa_jax.training.config import resolve
from spa_jax.training.loop import run
from spa_jax.training.rundir.checkpoints import read_arrays
from tests.refusals import refusal
from tests.training.small import small_config, small_program

pytestmark = pytest.mark.usefixtures("one_device")

# More devices than one could not train it, as a batch is cut into so many parts already.
CHANGES = {"model__small__widths": (4,), "data__validation": True, "accumulation_steps": 16}
CONFIG = small_config(**CHANGES)


@pytest.fixture(scope="module")
def program(one_device):
    """What trains the runs of one configuration."""
    return small_program(CONFIG)


@pytest.fixture(scope="module")
def finished(program, tmp_path_factory):
    """The folder of a run on digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run(CONFIG, folder, program, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """What the command wrote for its test set."""
    out = tmp_path_factory.mktemp("evaluated")
    assert command.main([str(finished), f"--out={out}", "--taus", "0", "0.5", "1"]) == 0
    return out / "digits" / "test"


@pytest.fixture
def copy(finished, evaluated, tmp_path):
    """A copy of the evaluated run, to be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


def numbers_of(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_a_run_is_evaluated_where_there_are_more_devices_than_could_train_it(
    finished, evaluated, tmp_path, monkeypatch
):
    monkeypatch.setattr(jax, "devices", jax.local_devices)
    (found,) = evaluate([finished], out=tmp_path).values()
    assert found["accuracy"] == numbers_of(evaluated)["accuracy"]


def test_the_checkpoint_predicts_what_the_run_recorded(finished, evaluated):
    summary = json.loads((finished / "summary.json").read_text())
    found, test = numbers_of(evaluated), load_data(resolve(CONFIG).data).test
    with np.load(evaluated / "predictions.npz") as made:
        logits, labels, ids = made["logits"], made["labels"], made["ids"]
    assert logits.shape == (600, 10) and logits.dtype == np.float32
    np.testing.assert_array_equal(labels, test.labels)
    np.testing.assert_array_equal(ids, np.arange(600))
    predicted = logits.argmax(axis=1)
    assert found["accuracy"]["all"] == summary["test_accuracy"]["last"]
    assert found["accuracy"]["few"] == summary["shot_groups"]["few"]
    assert found["per_class"]["recall"] == pytest.approx(summary["per_class_accuracy"])
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found["balanced"] and found["accuracy"] == pytest.approx(found["class_accuracy"])
    assert found["tau_sweep"]["accuracy"]["0"] == found["accuracy"]["all"]


def test_tau_is_chosen_on_the_validation_part(finished, evaluated, tmp_path):
    chosen, taus = numbers_of(evaluated)["chosen_tau"], (0.0, 0.5, 1.0)
    held_out = evaluate([finished], tmp_path, "validation", taus=taus, say=lambda line: None)
    sweep, count = held_out["digits"]["tau_sweep"]["class_accuracy"], held_out["digits"]["examples"]
    assert held_out["digits"]["chosen_tau"] is None
    assert count == len(load_data(resolve(CONFIG).data).validation)
    assert sweep[f"{chosen['tau']:g}"] == max(sweep.values())
    on_test = numbers_of(evaluated)["tau_sweep"]["class_accuracy"]
    assert chosen["class_accuracy"] == on_test[f"{chosen['tau']:g}"]


def test_class_weights_are_normalised_by_a_tau_of_the_validation_part(program, finished, tmp_path):
    """Predictions are those of the features and of the weights over a power of their lengths."""
    taus = (0.0, 0.5, 1.0, 2.0)
    arguments = [str(finished), f"--out={tmp_path}", "--tau-normalisation", "--taus"]
    assert command.main([*arguments, *map(str, taus)]) == 0
    found = numbers_of(tmp_path / "digits" / "test")
    arrays = read_arrays(finished / "checkpoints" / "10")
    run_of = prepare_run(resolve(CONFIG), program.data)
    variables = unflatten_dict(
        {tuple(path.split("/")): array for path, array in arrays.items() if "opt_state" not in path}
    )
    kernel = variables["params"]["head"]["kernel"].astype(np.float64)
    sweeps = {}
    for part in ("validation", "test"):
        examples = getattr(program.data, part)
        images = program.feed.normalize(jnp.asarray(examples.images))
        applied = {name: variables[name] for name in ("params", "batch_stats")}
        features = np.float64(run_of.model.apply(applied, images, train=False)[0])
        for tau in taus:
            scaled = kernel / np.linalg.norm(kernel, axis=0) ** tau
            right = (features @ scaled).argmax(axis=1) == examples.labels
            recalls = [right[examples.labels == c].mean() for c in np.unique(examples.labels)]
            sweeps[part, f"{tau:g}"] = np.mean(recalls)
    for tau in taus:
        there = found["tau_normalisation_sweep"]["class_accuracy"][f"{tau:g}"]
        assert there == pytest.approx(sweeps["test", f"{tau:g}"], abs=0.005)
    chosen = found["tau_normalisation"]
    best = max(taus, key=lambda tau: sweeps["validation", f"{tau:g}"])
    assert chosen["tau"] == best and chosen["on"] == "validation"
    assert (
        chosen["class_accuracy"] == found["tau_normalisation_sweep"]["class_accuracy"][f"{best:g}"]
    )
    (row,) = evaluation_rows("tau", {"digits": [found]})
    assert row["tau-normalised"] == f"{100 * chosen['class_accuracy']:.1f}"


def of_cosines(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model"]["head"] = "cosine"
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "part", "parts"),
    [
        (lambda folder: without_validation(folder, None), "test", ("config.data.validation=True",)),
        (of_cosines, "test", ("all have one length, or no linear head",)),
        (lambda folder: None, "validation", ("is shown on the test set", "--part=validation")),
    ],
)
def test_what_has_no_tau_of_normalisation_is_refused(change, part, parts, copy, tmp_path):
    change(copy)
    message = refusal(evaluate, [copy], tmp_path / "out", part, normalise=True)
    for text in ("--tau-normalisation", *parts):
        assert text in message
    assert not (tmp_path / "out").exists()


def test_another_data_set_takes_the_place_of_the_test_set(finished, evaluated, tmp_path):
    shifted, out = data_of_digits(tmp_path / "shifted" / "v1", 0, 300), tmp_path / "out"
    evaluate([finished], out, other=shifted, taus=(0.0,), say=lambda line: None)
    folder = out / "digits" / "data_v1"
    assert numbers_of(folder)["data_folder"] == str(shifted)
    with (
        np.load(folder / "predictions.npz") as here,
        np.load(evaluated / "predictions.npz") as there,
    ):
        np.testing.assert_allclose(here["logits"], there["logits"][:300], rtol=1e-4, atol=1e-4)
    # Another of that name does not take its place, neither here nor in the run's folder.
    noisy = data_of_digits(tmp_path / "noisy" / "v1", 300, 600)
    for place in (out, tmp_path / "elsewhere"):
        message = refusal(evaluate, [finished], place, other=noisy)
        assert "evaluation_data_v1.json" in message or str(folder) in message
        assert f"other examples, of {shifted}" in message and "Rename the folder" in message
    assert not (tmp_path / "elsewhere").exists()
    assert numbers_of(folder) == read_run(finished).evaluations["data_v1"]


def data_of_digits(folder, start, stop):
    """The digits as npz files, with some of the test images."""
    folder.mkdir(parents=True)
    data = load_data(resolve(CONFIG).data)
    for part, examples in (
        ("train", data.train),
        ("test", data.test.take(np.arange(start, stop))),
    ):
        np.savez(folder / f"{part}.npz", image=examples.images, label=examples.labels)
    return folder


def test_the_report_shows_what_was_found_with_words(finished, evaluated, tmp_path):
    groups = group_runs([read_run(finished)])
    names = ("evaluation", "calibration", "tau", "reliability", "confusion")
    contents = {name: list(PARTS[name](groups)) for name in names}
    for item in (item for items in contents.values() for item in items):
        if isinstance(item, Drawing):
            save(item, tmp_path)
    page = report_page(groups, contents, [], "", tmp_path)
    found = numbers_of(evaluated)
    for title in ("Evaluation", "Calibration", "Post-hoc logit adjustment", "Reliability"):
        assert f"<h2>{title}: test</h2>" in page
    assert f"{100 * found['macro_f1']:.1f}" in page
    assert f"Lowest recall of a class: spa.method=none: {found['lowest_recall']:.3f}" in page
    assert "chosen on the examples that it is measured on" in page


def test_an_evaluation_of_other_weights_is_not_the_run_s(copy):
    path = copy / "evaluation_test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"params_checksum": "other"}))
    assert "test" not in read_run(copy).evaluations


def test_the_weights_of_another_run_are_not_evaluated_as_the_run_s(program, copy, tmp_path):
    other, config = tmp_path / "other", small_config(**CHANGES, seed=1)
    summary = run(config, other, program, say=lambda line: None)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    before = (copy / "evaluation_test.json").read_bytes()
    message = refusal(evaluate, [copy], tmp_path / "out", say=lambda line: None)
    assert f"weights of the run: their checksum is {summary['params_checksum']} there" in message
    assert "back from a copy" in message
    assert (copy / "evaluation_test.json").read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_fields_that_came_after_a_run_have_their_defaults(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    del config["init"], config["optimizer"]["train_only"]
    path.write_text(json.dumps(config))
    (opened,) = open_runs([copy], "test")
    assert opened.config.to_dict() == CONFIG.to_dict()


def without_summary(folder, bank):
    (folder / "summary.json").unlink()
    return ("is not finished", "goes on from its last checkpoint"), {}


def without_checkpoints(folder, bank):
    shutil.rmtree(folder / "checkpoints")
    return ("no checkpoint of its last step", "train the run again in another folder"), {}


def without_validation(folder, bank):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["data"]["validation"] = False
    path.write_text(json.dumps(config))
    (folder / "data.json").unlink()
    summary = json.loads((folder / "summary.json").read_text())
    del summary["content_checksum"]
    (folder / "summary.json").write_text(json.dumps(summary))
    return ("has no validation part", "config.data.validation=True"), {"part": "validation"}


def on_other_data(folder, bank):
    path = folder / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content_checksum": "other"}))
    return ("was begun on other data", "Put the data back"), {}


def on_other_classes(folder, bank):
    return ("has 3 classes (0, 1, 2, ...)", "trained on 10", "same classes"), {"other": bank}


def on_validation_of_another(folder, bank):
    return ("--data has a test part only",), {"part": "validation", "other": bank}


def of_another_version(folder, bank):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["spa"]["gamma"] = config["spa"]["proj"].pop("gamma")
    path.write_text(json.dumps(config))
    return (str(folder), "another version of spa_jax", "has a new name: spa.proj.gamma"), {}


WRONG = (
    without_summary,
    without_checkpoints,
    without_validation,
    on_other_data,
    on_other_classes,
    on_validation_of_another,
    of_another_version,
)


@pytest.mark.parametrize("change", WRONG)
def test_what_cannot_be_evaluated_is_refused_at_the_start(change, copy, tmp_path):
    bank = tmp_path / "three"
    bank.mkdir()
    for part in ("train", "test"):
        np.savez(bank / f"{part}.npz", image=np.zeros((3, 8, 8, 1), np.uint8), label=np.arange(3))
    parts, changes = change(copy, bank)
    message = refusal(open_runs, [copy], **{"part": "test"} | changes)
    for part in parts:
        assert part in message


def test_runs_of_one_name_are_refused(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / finished.name)
    assert "same folder" in refusal(open_runs, [finished, other], "test")


def test_a_damaged_checkpoint_is_refused_and_stays_where_it_is(copy, tmp_path, capsys):
    steps = sorted(path.name for path in (copy / "checkpoints").iterdir())
    for file in (copy / "checkpoints" / max(steps, key=int)).rglob("*"):
        if file.is_file() and "/d/" in file.as_posix():
            file.unlink()
    assert command.main([str(copy), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "cannot be read" in error and "put it back from a copy" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == steps
    assert not (tmp_path / "out").exists()

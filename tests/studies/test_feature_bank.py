"""The bank of CIFAR's features: interpolation, order, and going on where it was stopped."""

import json

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from studies import feature_bank
from studies.feature_bank import cubic_matrix, main, make_bank
from tests.data.tiny import random_images, write_cifar
from tests.models.peer_weights import RECORDED, uniform
from tests.refusals import refusal

NAMES = [f"kind_{label}" for label in range(10)]
MADE_OF = {"model": "none", "verified": False}


def test_images_are_enlarged_as_pytorch_does():
    image, enlarge = uniform("bicubic", (6, 6), 0, 255), cubic_matrix(6, 24)
    with np.load(RECORDED / "imports.npz") as file:
        expected = file["bicubic"]
    np.testing.assert_allclose(enlarge @ image @ enlarge.T, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(cubic_matrix(32, 128).sum(axis=1), 1, rtol=1e-6)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of official files, shortened, with 13 images to train and 5 to test on."""
    monkeypatch.setattr(feature_bank, "_CHUNK", 4)
    monkeypatch.setattr(feature_bank, "_BATCH", 2)
    parts = [(random_images(count, count), np.arange(count) % 10) for count in (13, 5)]
    write_cifar(tmp_path / "cifar", "cifar10", True, *parts, NAMES)
    return tmp_path / "cifar"


class Means:
    """Channel means as features; stops at one of its calls."""

    def __init__(self, stop=None):
        self.calls, self.stop = 0, stop

    def __call__(self, images):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return images.mean(axis=(1, 2)).astype(np.float16)


def test_a_bank_that_was_stopped_goes_on_and_trains_in_the_files_order(data, tmp_path, capsys):
    out = tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        make_bank("cifar10", data, Means(stop=5), MADE_OF, out)
    assert not (out / "train.npz").exists()
    rest = Means()
    make_bank("cifar10", data, rest, MADE_OF, out)
    assert rest.calls == 3 + 3  # of 7 and 3 batches, all but those of two whole chunks
    assert "cifar10 train: 13 of 13 images" in capsys.readouterr().out
    loaded = load_data(DataOptions(name="features", folder=str(out), profile="natural"))
    assert list(loaded.class_names) == NAMES
    for part, count in ((loaded.train, 13), (loaded.test, 5)):
        expected = random_images(count, count).mean(axis=(1, 2)).astype(np.float16)
        np.testing.assert_array_equal(part.images[:], expected)
        np.testing.assert_array_equal(part.labels, np.arange(count) % 10)
    with np.load(out / "test.npz") as file:  # the same on every machine, whoever read the images
        origin = json.loads(file["made_of"].item())
    assert origin.keys() == {"model", "images_checksum", "part"}
    whole = Means(stop=0)
    make_bank("cifar10", data, whole, MADE_OF, out)  # computes nothing
    message = refusal(make_bank, "cifar10", data, whole, MADE_OF | {"model": "other"}, out)
    assert "made of other weights or images" in message


def test_what_there_is_no_bank_of_is_refused(data, tmp_path, capsys):
    out = tmp_path / "banks"
    assert main([str(data), f"--weights={tmp_path}", f"--out={out}"]) == 2
    assert "import the weights again" in capsys.readouterr().err
    assert not out.exists()


def test_all_data_sets_are_looked_at_before_any_bank_is_made(data, tmp_path, capsys, monkeypatch):
    images = Means()
    record = {"model": "efficientnet_lite0", "file_checksum": "0"}
    monkeypatch.setattr(feature_bank, "make_extract", lambda weights: (images, record))
    out = tmp_path / "banks"
    given = [str(data), f"--weights={tmp_path}", f"--out={out}", "--no-verify"]
    assert main(given) == 2  # CIFAR-100, the second of them, is not there
    assert "cifar100" in capsys.readouterr().err.lower().replace("-", "")
    assert images.calls == 0 and not out.exists()
    assert main([*given, "--names=cifar10"]) == 0

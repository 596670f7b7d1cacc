"""CIFAR-10 from TFDS and from its official files trains on the same batches, bit for bit."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.tiny import random_images, write_cifar
from tests.data.tiny_tfds import CIFAR10_CLASSES, write_tiny_cifar10
from tests.training.feeds.feeding import batches_of
from tests.training.small import small_config, small_program


def first_batches(folder, **changes):
    """The split's record and the batches of the first epochs, as the step gets them."""
    config = small_config(data__name="cifar10", data__folder=str(folder), **changes)
    program = small_program(config)
    return program.data.split, batches_of(program.feed, range(3))


def assert_equal(one, other):
    (split, batches), (other_split, other_batches) = one, other
    assert split == other_split
    assert split["order"] == "official"
    np.testing.assert_array_equal(batches.images, other_batches.images)
    np.testing.assert_array_equal(batches.labels, other_batches.labels)


@pytest.mark.parametrize("protocol", ["ldam", "glmc"])
def test_tfds_and_both_official_layouts_give_the_same_split_and_batches(tmp_path, protocol):
    images, test_images = random_images(200, seed=1), random_images(20, seed=2)
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 20))
    test_labels = np.repeat(np.arange(10), 2)
    write_tiny_cifar10(tmp_path / "tfds", images, labels, test_images, test_labels)
    train, test = (images, labels), (test_images, test_labels)
    for layout in ("binary", "pickled"):
        write_cifar(tmp_path / layout, "cifar10", layout == "pickled", train, test, CIFAR10_CLASSES)
    settings = {
        "data__verify": False,
        "data__protocol": protocol,
        "data__imbalance_factor": 10.0,
        "batch_size": 16,
    }
    prepared, *official = (
        first_batches(tmp_path / layout, **settings) for layout in ("tfds", "binary", "pickled")
    )
    assert len({batch.tobytes() for batch in prepared[1].images}) == 3 * 4
    for other in official:
        assert_equal(prepared, other)


@pytest.mark.skipif(
    not {"SPA_JAX_CIFAR", "SPA_JAX_TFDS"} <= os.environ.keys(),
    reason="set SPA_JAX_CIFAR (folder of cifar10/*.npz) and SPA_JAX_TFDS (TFDS's data_dir)",
)
def test_the_whole_of_cifar10_gives_the_same_batches_from_tfds_and_the_binary_files(tmp_path):
    folder = Path(os.environ["SPA_JAX_CIFAR"]) / "cifar10"
    parts = []
    for part in ("train", "test"):
        with np.load(folder / f"{part}.npz") as arrays:
            parts.append((arrays["image"], arrays["label"]))
    write_cifar(tmp_path / "binary", "cifar10", False, *parts, CIFAR10_CLASSES)
    settings = {"data__imbalance_factor": 100.0, "batch_size": 128}
    assert_equal(
        first_batches(os.environ["SPA_JAX_TFDS"], **settings),
        first_batches(tmp_path / "binary", **settings),
    )

"""Prepared TFDS data sets, read without TensorFlow."""

import concurrent.futures
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from spa_jax.data.sources import tfds_source
from spa_jax.data.sources.tfds_records import TfdsImages
from spa_jax.data.sources.tfds_source import is_tfds_dir, prepared_folder, read_tfds
from tests.data.tiny_tfds import (
    CIFAR10_CLASSES,
    TinySplit,
    by_tfds,
    cifar10_examples,
    cifar10_features,
    encode,
    random_images,
    simple_set,
    tiny_cifar10,
    tiny_fashion_mnist,
    tiny_imagenet2012,
    write_tfds,
    write_versions,
)
from tests.refusals import refusal


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A folder with a prepared cifar10, and what was written."""
    folder = tmp_path_factory.mktemp("cifar")
    return folder, *tiny_cifar10(folder)


@pytest.fixture
def imagenet(tmp_path):
    """A folder with a prepared imagenet2012, and what was written."""
    return tmp_path, *tiny_imagenet2012(tmp_path)


def equal(examples, written):
    """Whether examples are what was written, in that order."""
    np.testing.assert_array_equal(examples.images, written.images, strict=True)
    np.testing.assert_array_equal(examples.labels, written.labels.astype(np.int32), strict=True)


def test_cifar10_comes_in_its_official_order(cifar):
    folder, train, test = cifar
    source = read_tfds("cifar10", str(folder))
    equal(source.train, train)
    equal(source.test, test)
    assert (source.name, source.order, source.class_names) == (
        "cifar10",
        "official",
        CIFAR10_CLASSES,
    )
    assert source.train.names is None


def test_cifar10_is_stored_in_another_order_in_several_files(cifar):
    """What the test above relies on."""
    folder, train, _ = cifar
    stored = by_tfds(folder, "cifar10", "train")
    ids = [each["id"].decode() for each in stored]
    assert ids != sorted(ids)
    assert len(list((folder / "cifar10" / "3.0.2").glob("*train*"))) == 3
    for each in stored:
        place = int(each["id"].decode().removeprefix("train_"))
        np.testing.assert_array_equal(each["image"], train.images[place])
        assert each["label"] == train.labels[place]


def test_fashion_mnist_comes_as_it_is_stored(tmp_path):
    train, test = tiny_fashion_mnist(tmp_path)
    source = read_tfds("fashion_mnist", str(tmp_path))
    assert source.order == "stored"
    for split, found, written in (("train", source.train, train), ("test", source.test, test)):
        stored = by_tfds(tmp_path, "fashion_mnist", split)
        images = np.stack([each["image"] for each in stored])
        assert images.shape == written.images.shape
        assert (images != written.images).any()
        equal(found, TinySplit(images, np.array([each["label"] for each in stored])))


@pytest.mark.parametrize("shards", [1, 7])
def test_the_number_of_files_does_not_matter(tmp_path, shards):
    train, test = tiny_cifar10(tmp_path, counts=(3,) * 10, test_counts=(1,) * 10, shards=shards)
    source = read_tfds("cifar10", str(tmp_path))
    equal(source.train, train)
    equal(source.test, test)


def test_an_imbalanced_set_of_more_than_one_chunk_comes_whole(tmp_path):
    counts = (190, 60, 20, 9, 5, 3, 2, 2, 1, 1)
    train, _ = tiny_cifar10(tmp_path, counts=counts, test_counts=(1,) * 10)
    source = read_tfds("cifar10", str(tmp_path))
    equal(source.train, train)
    assert tuple(np.bincount(source.train.labels)) == counts


def test_cifar100_has_the_fine_labels(tmp_path):
    labels = np.arange(100)
    images = random_images(100, (32, 32, 3), seed=1)
    examples = {
        split: [
            each | {"coarse_label": each["label"] % 20}
            for each in cifar10_examples(split, images, labels)
        ]
        for split in ("train", "test")
    }
    features = cifar10_features() | {
        "label": tfds.features.ClassLabel(num_classes=100),
        "coarse_label": tfds.features.ClassLabel(num_classes=20),
    }
    write_tfds(tmp_path, "cifar100:3.0.2", features, examples)
    source = read_tfds("cifar100", str(tmp_path))
    np.testing.assert_array_equal(source.train.labels, labels)
    assert (len(source.class_names), source.order) == (100, "official")


def test_images_of_varying_size_stay_encoded_and_keep_their_names(imagenet):
    folder, train, validation = imagenet
    source = read_tfds("imagenet2012", str(folder))
    assert source.class_names == ("n00000000", "n00000001", "n00000002", "n00000003")
    assert source.order == "stored"
    for found, written in ((source.train, train), (source.test, validation)):
        assert isinstance(found.images, TfdsImages)
        assert found.labels.dtype == np.int32
        places = [written.names.index(name) for name in found.names]
        assert sorted(places) == list(range(len(written.names)))
        assert places != sorted(places)
        np.testing.assert_array_equal(found.labels, written.labels[places])
        assert [found.images[i] for i in range(len(found))] == [written.images[i] for i in places]


def test_chosen_encoded_images_are_those_that_were_chosen(imagenet):
    folder, train, _ = imagenet
    source = read_tfds("imagenet2012", str(folder))
    chosen = source.train.take(np.array([5, 2, 9, 2])).take(np.array([2, 0, 3]))
    assert len(chosen.images) == 3
    expected = [train.images[train.names.index(source.train.names[i])] for i in (9, 5, 2)]
    assert [chosen.images[i] for i in range(3)] == expected
    with pytest.raises(IndexError):
        chosen.images[3]


def test_threads_may_share_encoded_images(imagenet):
    images = read_tfds("imagenet2012", str(imagenet[0])).train.images
    fresh = images.take(np.arange(len(images)))
    one_by_one = [images[i] for i in range(len(images))]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fresh.__getitem__, range(len(fresh)))) == one_by_one


def run(script, *arguments, folder):
    """What a script prints in a fresh process."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_ANOTHER_PROCESS = """
import pickle, resource, sys
from pathlib import Path
from spa_jax.data.sources.tfds_source import read_tfds
from spa_jax.errors import InputError

def read(folder, name):
    images = read_tfds(name, folder).train.images
    return images, [images[i] for i in range(len(images))]

read("prepared", "cifar10")
images, _ = read("prepared", "imagenet2012")
assert "tensorflow" not in sys.modules
Path("images.pickle").write_bytes(pickle.dumps(images))

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 5000))
images, found = read("many", "imagenet2012")
print(len(found), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
resource.setrlimit(resource.RLIMIT_NOFILE, (90, 100))
try:
    pickle.loads(pickle.dumps(images))[0]
except InputError as error:
    print(error)
"""


def test_another_process_reads_without_tensorflow_and_more_files_than_it_may_open(tmp_path):
    tiny_cifar10(tmp_path / "prepared", counts=(1,) * 10, test_counts=(1,) * 10)
    tiny_imagenet2012(tmp_path / "prepared")
    tiny_imagenet2012(tmp_path / "many", (40, 30, 20, 10), (20,) * 4, shards=80)
    numbers, message = run(IN_ANOTHER_PROCESS, folder=tmp_path).split("\n", 1)
    read, limit = numbers.split()
    assert int(read) == 100
    assert 80 < int(limit) < 5000
    assert "80 files" in message
    assert "ulimit -n" in message
    images = pickle.loads((tmp_path / "images.pickle").read_bytes())
    here = read_tfds("imagenet2012", str(tmp_path / "prepared")).train.images
    assert [images[i] for i in range(len(images))] == [here[i] for i in range(len(here))]


@pytest.mark.parametrize("room", [0, 1])
def test_images_of_one_size_are_decoded_only_below_the_limit(cifar, monkeypatch, room):
    folder, train, test = cifar
    size = (len(train.labels) + len(test.labels)) * 32 * 32 * 3
    copy = folder / "cifar10" / "3.0.2"
    monkeypatch.setattr(tfds_source, "MAX_DECODED_BYTES", size + room)
    source = read_tfds("cifar10", str(folder))
    for index in copy.glob("spa_jax-*.npz"):
        index.unlink()
    if room:
        equal(source.train, train)
    else:
        assert source.order == "official"
        np.testing.assert_array_equal(source.train.labels, train.labels)
        encoded = [source.train.images[i] for i in range(len(train.labels))]
        assert encoded == [encode(image) for image in train.images]


# --- names, versions, configurations and places ------------------------------------------------


def test_the_newest_version_is_read_unless_another_is_named(tmp_path):
    colours = write_versions(tmp_path, "own:1.9.0", "own:1.10.0", "own:1.2.3")
    for name, version in {
        "own": "own:1.10.0",
        "own:1.2.3": "own:1.2.3",
        "own:1.9.0": "own:1.9.0",
        "own:1.*.*": "own:1.10.0",
        "own:*.2.*": "own:1.2.3",
    }.items():
        assert read_tfds(name, str(tmp_path)).train.images[0, 0, 0, 0] == colours[version], name


def test_a_configuration_is_read_by_its_name(tmp_path):
    colours = write_versions(tmp_path, "own/small:1.0.0", "own/large:1.0.0")
    for config in ("small", "large"):
        source = read_tfds(f"own/{config}", str(tmp_path))
        assert source.train.images[0, 0, 0, 0] == colours[f"own/{config}:1.0.0"]
        assert source.name == f"own/{config}"
    message = refusal(read_tfds, "own", str(tmp_path))
    assert "2 configurations (large, small)" in message
    assert "own/large" in message


def test_the_only_configuration_needs_no_name(tmp_path):
    write_versions(tmp_path, "own/small:1.0.0")
    assert read_tfds("own", str(tmp_path)).name == "own/small"


def test_what_a_folder_holds_is_told(tmp_path):
    write_versions(tmp_path, "own/small:1.0.0", "cifar10:3.0.2")
    for name in ("own", "own/small", "own:1.0.0", "own/small:1.0.0", "cifar10", "cifar10:3.0.2"):
        assert is_tfds_dir(tmp_path, name), name
    for name in ("cifar100", "cifar", "own/large", "own:1.0.1", "cifar10:3.0.1", "..", "", "a b"):
        assert not is_tfds_dir(tmp_path, name), name
    assert not is_tfds_dir(tmp_path / "cifar10", "cifar10")
    assert not is_tfds_dir(tmp_path / "nowhere", "cifar10")


def test_a_preparation_that_was_broken_off_does_not_count(tmp_path):
    write_versions(tmp_path, "cifar10:3.0.2")
    whole = tmp_path / "cifar10" / "3.0.2"
    whole.rename(whole.with_name("incomplete.ABCDEF_3.0.2"))
    assert not is_tfds_dir(tmp_path, "cifar10")
    assert "is not prepared" in refusal(read_tfds, "cifar10", str(tmp_path))


def test_without_a_folder_the_place_of_tfds_is_read(tmp_path, monkeypatch):
    write_versions(tmp_path, "cifar10:3.0.2")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert read_tfds("cifar10", "").train.images.shape == (10, 32, 32, 3)
    monkeypatch.delenv("TFDS_DATA_DIR")
    (tmp_path / "tensorflow_datasets").symlink_to(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_tfds("cifar10", "").train.images.shape == (10, 32, 32, 3)
    monkeypatch.chdir(tmp_path)
    assert prepared_folder("cifar10", ".") == tmp_path / "cifar10" / "3.0.2"


# --- which features count ----------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["file_name", "filename", "image/filename"])
def test_file_names_are_found_under_each_of_their_names(tmp_path, feature):
    features, examples = simple_set({"train": 6, "test": 4}, extra={feature: tfds.features.Text()})
    for split, part in examples.items():
        for place, each in enumerate(part):
            each[feature] = f"{split}/{place % 2}/bild-ä{place}.png"
    write_tfds(tmp_path, "own:1.0.0", features, examples)
    source = read_tfds("own", str(tmp_path))
    assert sorted(source.train.names) == [
        f"train/{n % 2}/bild-ä{n}.png" for n in (0, 2, 4, 1, 3, 5)
    ]
    assert [int(name[6]) for name in source.train.names] == source.train.labels.tolist()


def test_features_of_other_names_are_found_by_the_supervised_keys(tmp_path):
    features, examples = simple_set({"train": 6, "test": 4})
    renamed = {"photo": features["image"], "kind": features["label"]}
    splits = {
        split: [{"photo": each["image"], "kind": each["label"]} for each in part]
        for split, part in examples.items()
    }
    write_tfds(tmp_path, "own:1.0.0", renamed, splits, supervised_keys=("photo", "kind"))
    assert read_tfds("own", str(tmp_path)).train.images.shape == (6, 4, 5, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_usual_number_of_channels_is_decoded(tmp_path, channels):
    features, examples = simple_set({"train": 6, "test": 4}, shape=(4, 5, channels))
    write_tfds(tmp_path, "own:1.0.0", features, examples)
    stored = by_tfds(tmp_path, "own:1.0.0", "train")
    found = read_tfds("own", str(tmp_path)).train.images
    np.testing.assert_array_equal(found, np.stack([each["image"] for each in stored]))


def test_a_grey_file_in_a_set_of_coloured_images_gets_three_channels(tmp_path):
    features, examples = simple_set({"train": 6, "test": 4})
    grey = random_images(1, (4, 5, 1), seed=3)[0]
    examples["train"] = [each | {"image": encode(grey)} for each in examples["train"]]
    write_tfds(tmp_path, "own:1.0.0", features, examples)
    found = read_tfds("own", str(tmp_path)).train.images
    np.testing.assert_array_equal(found, np.broadcast_to(grey, (6, 4, 5, 3)))


@pytest.mark.parametrize("label", [-1, 0])
def test_a_test_split_counts_only_if_it_has_labels(tmp_path, label):
    features, examples = simple_set({"train": 6, "validation": 2, "test": 4})
    examples["test"] = [each | {"label": label} for each in examples["test"]]
    write_tfds(tmp_path, "own:1.0.0", features, examples)
    assert len(read_tfds("own", str(tmp_path)).test) == (2 if label == -1 else 4)


# --- a data set of full size -------------------------------------------------------------------


@pytest.mark.skipif(
    not {"SPA_JAX_TFDS", "SPA_JAX_CIFAR"} <= set(os.environ),
    reason="SPA_JAX_TFDS (a folder with a prepared cifar10) and SPA_JAX_CIFAR are not both set",
)
def test_the_whole_of_cifar10_comes_in_its_official_order():
    source = read_tfds("cifar10", os.environ["SPA_JAX_TFDS"])
    assert (source.order, source.class_names) == ("official", CIFAR10_CLASSES)
    for part, examples in (("train", source.train), ("test", source.test)):
        with np.load(Path(os.environ["SPA_JAX_CIFAR"]) / "cifar10" / f"{part}.npz") as arrays:
            np.testing.assert_array_equal(examples.images, arrays["image"])
            np.testing.assert_array_equal(examples.labels, arrays["label"])

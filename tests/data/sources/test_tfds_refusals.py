"""TFDS data sets that cannot be read, and what is said about them."""

import pickle
import re
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from spa_jax.data.data_options import SplitOptions
from spa_jax.data.sources.tfds_source import read_tfds
from spa_jax.data.splits.splitting import make_split
from tests.data.tiny_tfds import (
    damage,
    encode,
    random_images,
    shards_of,
    simple_set,
    tiny_cifar10,
    tiny_imagenet2012,
    write_tfds,
    write_versions,
)
from tests.refusals import refusal

SAYS_WHAT_TO_DO = re.compile(
    r"(?i)\b(prepare|restore|remove|choose|complete|check|update|mount|raise the limit)\b"
)


@pytest.fixture
def imagenet(tmp_path):
    """A folder with a prepared imagenet2012, and what was written."""
    return tmp_path, *tiny_imagenet2012(tmp_path)


def test_a_set_that_is_not_prepared_is_named_with_the_command(tmp_path, monkeypatch):
    message = refusal(read_tfds, "cifar10", str(tmp_path))
    assert f"python -m spa_jax.data.prepare cifar10 --data_dir={tmp_path}" in message
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    message = refusal(read_tfds, "cifar100:3.0.2", "")
    assert message.endswith("python -m spa_jax.data.prepare cifar100:3.0.2")
    assert str(tmp_path / "own") in message


def test_a_folder_with_a_space_is_quoted_in_the_command(tmp_path):
    message = refusal(read_tfds, "cifar10", str(tmp_path / "a b"))
    assert f"--data_dir='{tmp_path}/a b'" in message


def test_another_version_than_the_prepared_one_is_named_with_it(tmp_path):
    write_versions(tmp_path, "cifar10:3.0.2")
    message = refusal(read_tfds, "cifar10:2.0.0", str(tmp_path))
    assert "only cifar10/3.0.2 is" in message
    assert "python -m spa_jax.data.prepare cifar10:2.0.0" in message


def test_an_unknown_name_is_refused_with_near_ones(tmp_path):
    message = refusal(read_tfds, "cifar_10", str(tmp_path))
    assert "'cifar_10'" in message
    assert "did you mean cifar10" in message
    assert "check the name" in refusal(read_tfds, "zzzzzz", str(tmp_path))


@pytest.mark.parametrize("name", ["", "a b", "../cifar10", "cifar10/", "cifar10:3", "a/b/c"])
def test_a_name_of_another_form_is_refused(tmp_path, name):
    message = refusal(read_tfds, name, str(tmp_path))
    assert repr(name) in message
    assert "cifar10:3.0.2" in message


def test_a_bucket_is_refused(tmp_path):
    del tmp_path
    assert "gs://bucket/tfds" in refusal(read_tfds, "cifar10", "gs://bucket/tfds")


NOT_IMAGES_AND_LABELS = {
    "no label": {"image": tfds.features.Image(shape=(4, 5, 3))},
    "no image": {"label": tfds.features.ClassLabel(num_classes=2)},
    "label without classes": {
        "image": tfds.features.Image(shape=(4, 5, 3)),
        "label": tfds.features.Text(),
    },
    "image as an array": {
        "image": tfds.features.Tensor(shape=(), dtype=np.int64),
        "label": tfds.features.ClassLabel(num_classes=2),
    },
}


@pytest.mark.parametrize("case", NOT_IMAGES_AND_LABELS)
def test_a_set_without_images_and_labels_is_refused(tmp_path, case):
    features = NOT_IMAGES_AND_LABELS[case]
    values = {"image": encode(random_images(1, (4, 5, 3), 0)[0]), "label": 1}
    if case == "label without classes":
        values["label"] = "one"
    if case == "image as an array":
        values["image"] = 3
    examples = [{key: values[key] for key in features}] * 2
    splits = {"train": examples, "test": examples}
    write_tfds(tmp_path, "own:1.0.0", features, splits, 1, supervised_keys=None)
    message = refusal(read_tfds, "own", str(tmp_path))
    assert "image classification" in message
    for key, feature in features.items():
        assert f"{key} ({type(feature).__name__})" in message


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def own(tmp_path):
    """The folder of a prepared set of two classes, which a test may break."""
    features, examples = simple_set({"train": 30, "test": 10})
    return write_tfds(tmp_path, "own:1.0.0", features, examples)


def refused(own, name="own"):
    """The message for a broken set, which names its folder and says what to do."""
    message = refusal(read_tfds, name, str(own.parent.parent))
    assert str(own) in message
    assert SAYS_WHAT_TO_DO.search(message), message
    return message


def test_another_file_format_is_refused_with_the_command(own):
    edit(own / "dataset_info.json", "array_record", "tfrecord")
    message = refused(own)
    assert "tfrecord" in message
    assert "array_record" in message
    assert "python -m spa_jax.data.prepare own --data_dir=" in message


def test_array_record_files_beside_another_format_are_read(own):
    before = read_tfds("own", str(own.parent.parent)).train
    both = '"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]'
    edit(own / "dataset_info.json", '"fileFormat": "array_record"', both)
    after = read_tfds("own", str(own.parent.parent)).train
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.labels, before.labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file_is_named(own, split):
    gone = shards_of(own, split)[1]
    gone.unlink()
    message = refused(own)
    assert f"{gone.name} is missing" in message
    assert "1 of the 2 files" in message


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kept", [0, 100, 40_000])
def test_a_file_that_was_cut_off_is_named(own, split, kept):
    path = shards_of(own, split)[0]
    path.write_bytes(path.read_bytes()[:kept])
    message = refused(own)
    expected = 15 if split == "train" else 5
    assert f"{path.name} holds 0 of {expected} records" in message


def test_a_file_of_another_set_is_named(own):
    path, other = shards_of(own, "train")[0], shards_of(own, "test")[0]
    path.write_bytes(other.read_bytes())
    assert f"{path.name} holds 5 of 15 records" in refused(own)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_record_is_refused(own, split):
    path = shards_of(own, split)[0]
    content = path.read_bytes()
    # Each of a file's records ends in its image; the image's PNG signature shows where one is.
    place = content.index(b"\x89PNG") + 30
    path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
    message = refused(own)
    assert "damaged" in message
    assert f"split '{split}'" in message
    assert re.search(r"Record \d+ ", message)


def test_a_damaged_encoded_image_is_named_when_it_is_read(imagenet):
    folder, _, _ = imagenet
    images = read_tfds("imagenet2012", str(folder)).train.images
    for path in shards_of(folder, "train"):
        damage(path, keep_time=False)
    fresh = pickle.loads(pickle.dumps(images))
    message = refusal(lambda: [fresh[i] for i in range(len(fresh))])
    assert str(folder) in message
    assert "'train'" in message


def test_an_encoded_image_whose_set_is_gone_is_named_when_it_is_read(imagenet):
    folder, _, _ = imagenet
    images = read_tfds("imagenet2012", str(folder)).train.images
    fresh = pickle.loads(pickle.dumps(images))
    (folder / "imagenet2012").rename(folder / "elsewhere")
    assert str(folder / "imagenet2012") in refusal(lambda: fresh[0])


def test_an_image_of_another_shape_is_refused(tmp_path):
    features, examples = simple_set({"train": 6, "test": 4})
    examples["train"][3]["image"] = encode(random_images(1, (5, 4, 3), 0)[0])
    message = refused(write_tfds(tmp_path, "own:1.0.0", features, examples))
    assert "(5, 4, 3)" in message
    assert "(4, 5, 3)" in message
    assert "split 'train'" in message


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_image_that_cannot_be_decoded_is_refused(tmp_path, content):
    features, examples = simple_set({"train": 6, "test": 4})
    half = encode(random_images(1, (4, 5, 3), 0)[0])[:60]
    examples["train"][3]["image"] = half if content == "half" else content
    message = refused(write_tfds(tmp_path, "own:1.0.0", features, examples))
    assert "cannot be decoded" in message
    assert "split 'train'" in message


def test_images_of_more_than_eight_bits_are_refused(tmp_path):
    features, examples = simple_set(
        {"train": 6, "test": 4}, image=tfds.features.Image(shape=(4, 5, 3), dtype=np.uint16)
    )
    message = refused(write_tfds(tmp_path, "own:1.0.0", features, examples))
    assert "uint16" in message


def test_a_class_without_a_training_image_is_named(tmp_path):
    tiny_cifar10(tmp_path, counts=(2, 2, 0, 2, 2, 2, 2, 0, 2, 2))
    message = refusal(make_split, read_tfds("cifar10", str(tmp_path)), SplitOptions())
    assert "bird (2), horse (7)" in message
    assert str(tmp_path) in message


def test_a_training_image_without_a_label_is_refused(tmp_path):
    features, examples = simple_set({"train": 6, "test": 4})
    examples["train"][2]["label"] = -1
    write_tfds(tmp_path, "own:1.0.0", features, examples)
    assert "-1" in refusal(read_tfds, "own", str(tmp_path))


@pytest.mark.parametrize("sizes", [{"train": 4}, {"train": 4, "extra": 4}])
def test_a_set_without_a_test_split_is_refused(tmp_path, sizes):
    message = refused(write_tfds(tmp_path, "own:1.0.0", *simple_set(sizes)))
    assert "`validation`" in message
    assert ", ".join(sizes) in message


def test_a_set_whose_test_images_all_lack_labels_is_refused(tmp_path):
    features, examples = simple_set({"train": 6, "test": 4})
    examples["test"] = [each | {"label": -1} for each in examples["test"]]
    assert "with labels" in refused(write_tfds(tmp_path, "own:1.0.0", features, examples))


def test_a_set_without_a_training_split_is_refused(tmp_path):
    message = refused(write_tfds(tmp_path, "own:1.0.0", *simple_set({"test": 4, "validation": 4})))
    assert "`train`" in message
    assert "test, validation" in message


BROKEN_DESCRIPTIONS = {
    "empty": ("dataset_info.json", lambda text: ""),
    "cut off": ("dataset_info.json", lambda text: text[:50]),
    "a field of the future": ("dataset_info.json", lambda text: text.replace("splits", "parts")),
    "cut off features": ("features.json", lambda text: text[:50]),
    "unknown feature": (
        "features.json",
        lambda text: text.replace("tensorflow_datasets.core.features.image_feature", "no.such"),
    ),
}


@pytest.mark.parametrize("case", BROKEN_DESCRIPTIONS)
def test_a_broken_description_is_refused(own, case):
    name, change = BROKEN_DESCRIPTIONS[case]
    (own / name).write_text(change((own / name).read_text()))
    message = refused(own)
    assert "description" in message
    assert "update tensorflow-datasets" in message
    assert "python -m spa_jax.data.prepare own" in message


def test_features_that_are_not_there_are_refused(own):
    (own / "features.json").unlink()
    assert "description" in refused(own)


@pytest.mark.parametrize(
    "module", ["array_record.python.array_record_data_source", "tensorflow_datasets"]
)
def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch, tmp_path, module):
    monkeypatch.setitem(sys.modules, module, None)
    message = refusal(read_tfds, "cifar10", str(tmp_path))
    assert module in message
    assert "pip install tensorflow-datasets array_record importlib_resources" in message

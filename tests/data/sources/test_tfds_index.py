"""The index file of a TFDS data set, and the order that its ids give."""

import io
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spa_jax.data.sources.tfds_records import official_order
from spa_jax.data.sources.tfds_source import read_tfds
from tests.data.tiny_tfds import (
    cifar10_examples,
    cifar10_features,
    damage,
    imagenet_examples,
    imagenet_features,
    random_images,
    shards_of,
    tiny_imagenet2012,
    write_tfds,
)
from tests.refusals import refusal

SAYS_WHAT_TO_DO = re.compile(
    r"(?i)\b(prepare|restore|remove|choose|complete|check|update|mount|raise the limit)\b"
)


@pytest.fixture
def imagenet(tmp_path):
    """A folder with a prepared imagenet2012, and what was written."""
    return tmp_path, *tiny_imagenet2012(tmp_path)


def labels_by_name(examples):
    return dict(zip(examples.names.tolist(), examples.labels.tolist(), strict=True))


def test_labels_and_names_are_read_from_the_index_the_second_time(imagenet):
    folder, train, _ = imagenet
    first = read_tfds("imagenet2012", str(folder)).train
    for path in shards_of(folder, "train"):
        damage(path, keep_time=True)  # so that records which are read after all are noticed
    second = read_tfds("imagenet2012", str(folder)).train
    assert labels_by_name(second) == labels_by_name(first)
    assert labels_by_name(second) == dict(zip(train.names, train.labels.tolist(), strict=True))
    assert second.names.dtype == first.names.dtype
    assert second.labels.dtype == np.int32


def test_a_file_that_was_written_again_makes_the_index_void(imagenet):
    folder, _, _ = imagenet
    read_tfds("imagenet2012", str(folder))
    damage(shards_of(folder, "train")[0], keep_time=False)
    message = refusal(read_tfds, "imagenet2012", str(folder))
    assert "damaged" in message
    assert "'train'" in message
    assert SAYS_WHAT_TO_DO.search(message), message


def test_another_preparation_makes_the_index_void(imagenet):
    folder, train, validation = imagenet
    place = folder / "imagenet2012" / "5.1.0"
    read_tfds("imagenet2012", str(folder))
    indices = {path.name: path.read_bytes() for path in place.glob("spa_jax-*.npz")}
    assert sorted(indices) == ["spa_jax-train.npz", "spa_jax-validation.npz"]
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    relabelled = train._replace(labels=(train.labels + 1) % 4)
    splits = {"train": relabelled, "validation": validation}
    examples = {split: imagenet_examples(part) for split, part in splits.items()}
    write_tfds(folder, "imagenet2012:5.1.0", imagenet_features(4), examples)
    for name, content in indices.items():
        (place / name).write_bytes(content)
    found = read_tfds("imagenet2012", str(folder)).train
    expected = dict(zip(train.names, relabelled.labels.tolist(), strict=True))
    assert labels_by_name(found) == expected


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


BROKEN_INDICES = {
    "empty": lambda content: b"",
    "not an archive": lambda content: b"labels",
    "cut off": lambda content: content[: len(content) // 2],
    "pickled": lambda content: pickle.dumps(content),
    "a single array": lambda content: npy_bytes(np.arange(22)),
    "flipped bits": lambda content: content[:200] + bytes([content[200] ^ 0xFF]) + content[201:],
}


@pytest.mark.parametrize("case", BROKEN_INDICES)
def test_a_broken_index_is_written_again(imagenet, case):
    folder, train, _ = imagenet
    read_tfds("imagenet2012", str(folder))
    index = folder / "imagenet2012" / "5.1.0" / "spa_jax-train.npz"
    whole = index.read_bytes()
    index.write_bytes(BROKEN_INDICES[case](whole))
    found = read_tfds("imagenet2012", str(folder)).train
    assert labels_by_name(found) == dict(zip(train.names, train.labels.tolist(), strict=True))
    with np.load(index) as arrays:
        np.testing.assert_array_equal(arrays["labels"], found.labels)


def test_a_folder_where_no_index_can_be_written_is_read_without_one(imagenet):
    folder, train, _ = imagenet
    place = folder / "imagenet2012" / "5.1.0"
    for split in ("train", "validation"):
        (place / f"spa_jax-{split}.npz").mkdir()  # a file cannot take a folder's place
    found = read_tfds("imagenet2012", str(folder)).train
    assert labels_by_name(found) == dict(zip(train.names, train.labels.tolist(), strict=True))
    assert not list(place.glob(".spa_jax*"))


def test_no_temporary_file_stays_next_to_the_index(imagenet):
    read_tfds("imagenet2012", str(imagenet[0]))
    assert not list(imagenet[0].rglob(".*.tmp"))


# --- the official order ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(23)), st.sampled_from(["train", "test"]))
def test_ids_give_the_order_that_sorts_them(places, split):
    ids = [f"{split}_{place:05d}" for place in places]
    order = official_order(ids, split, "split")
    assert order is not None
    assert [ids[i] for i in order] == sorted(ids)


@pytest.mark.parametrize("ids", [[], ["a", "b"], ["42", "0"], ["train42"], ["test_00000"]])
def test_ids_of_another_form_give_no_order(ids):
    assert official_order(ids, "train", "split") is None


BROKEN_IDS = {
    "a gap": (["train_00000", "train_00002", "train_00001", "train_00004"], "train_00003"),
    "twice": (["train_00000", "train_00001", "train_00001"], "train_00001"),
    "from one": (["train_00001", "train_00002"], "train_00000"),
    "another form": (["train_00000", "other", "train_00001"], "other"),
}


@pytest.mark.parametrize("case", BROKEN_IDS)
def test_ids_with_gaps_or_duplicates_are_refused(case):
    ids, offender = BROKEN_IDS[case]
    message = refusal(official_order, ids, "train", "split 'train' in folder")
    assert offender in message
    assert "split 'train' in folder" in message
    assert f"train_{len(ids) - 1:05d}" in message
    assert SAYS_WHAT_TO_DO.search(message), message


def test_many_wrong_ids_are_counted_and_three_are_named():
    message = refusal(official_order, [f"train_{2 * n:05d}" for n in range(20)], "train", "split")
    assert "10 missing (train_00001, train_00003, train_00005, ...)" in message
    assert "10 outside that range (train_00020, train_00022, train_00024, ...)" in message


def test_a_training_set_with_a_duplicate_id_is_refused(tmp_path):
    examples = cifar10_examples("train", random_images(20, (32, 32, 3), 0), np.arange(20) % 10)
    examples[7]["id"] = "train_00008"
    splits = {"train": examples, "test": examples[:3]}
    write_tfds(tmp_path, "cifar10:3.0.2", cifar10_features(), splits)
    message = refusal(read_tfds, "cifar10", str(tmp_path))
    assert "1 missing (train_00007)" in message
    assert "1 there more than once (train_00008)" in message
    assert str(tmp_path) in message

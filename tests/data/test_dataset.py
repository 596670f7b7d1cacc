"""What a data set is told apart from others by: the checksum of what is trained and tested on."""

import re

import jax
import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import LabelledImages
from spa_jax.data.sources.opening import load_data
from tests.data.sources.test_idx import tiny_part, write_part
from tests.data.tiny_tfds import tiny_imagenet2012

FILES = ["train/ant/1.jpg", "train/ant/2.jpg", "train/bee/1.jpg", "val/ant/1.jpg", "val/bee/1.jpg"]


def checksum(folder, **options):
    return load_data(
        DataOptions(**{"folder": str(folder), "name": "mine", "profile": "natural", **options})
    ).content_checksum


def write_npz(folder, **changes):
    """Ten images of each of two classes, and four to test on; `test_x` changes x of the tests."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 20), ("test", 4)):
        images = np.random.default_rng(count).integers(0, 256, (count, 4, 4, 1), np.uint8)
        arrays = {"image": images, "label": np.arange(count) % 2}
        for key, change in changes.items():
            if key.startswith(part):
                change(arrays[key.partition("_")[2]])
        np.savez(folder / f"{part}.npz", **arrays)
    return folder


@pytest.fixture
def images(tmp_path):
    """A folder of five files that begin as images do."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    return tmp_path


def test_the_same_data_have_the_same_checksum_wherever_they_lie(tmp_path):
    found = {checksum(write_npz(tmp_path / place)) for place in ("here", "there")}
    assert len(found) == 1
    assert re.fullmatch("[0-9a-f]{64}", *found)


def flip(position):
    def change(array):
        array[position] ^= 1

    return change


def swap(array):
    array[[0, 2]] = array[[2, 0]]  # of one class: the labels and all counts stay


CHANGES = {
    "a pixel": {"train_image": flip((5, 3, 3, 0))},
    "a pixel of a test image": {"test_image": flip((3, 0, 0, 0))},
    "two images of a class exchanged": {"train_image": swap},
    "two test images exchanged": {"test_image": swap},
    "a label": {"train_label": flip(7)},
    "a test label": {"test_label": flip(0)},
}


@pytest.mark.parametrize("case", CHANGES)
def test_whatever_changes_in_an_array_changes_the_checksum(tmp_path, case):
    before = checksum(write_npz(tmp_path))
    assert checksum(write_npz(tmp_path, **CHANGES[case])) != before


def test_what_is_chosen_counts_and_what_is_held_out(tmp_path):
    write_npz(tmp_path)
    split = {"profile": "exponential", "imbalance_factor": 2.0}
    settings = [{}, split, split | {"split_seed": 1}, {"validation": True}]
    assert len({checksum(tmp_path, **each) for each in settings}) == len(settings)


def test_an_image_that_is_not_chosen_does_not_count(tmp_path):
    split = {"profile": "exponential", "imbalance_factor": 10.0}
    before = checksum(write_npz(tmp_path), **split)
    trained = load_data(DataOptions(name="mine", folder=str(tmp_path), **split)).train.images
    with np.load(tmp_path / "train.npz") as arrays:
        chosen = {image.tobytes() for image in trained}
        left_out = [i for i, x in enumerate(arrays["image"]) if x.tobytes() not in chosen]
    assert checksum(write_npz(tmp_path, train_image=flip(left_out[0])), **split) == before


def test_exchanged_idx_files_change_the_checksum(tmp_path):
    write_part(tmp_path, "train", *tiny_part(4, seed=1))
    write_part(tmp_path, "t10k", *tiny_part(2, seed=2))
    before = checksum(tmp_path)
    images, labels = tiny_part(4, seed=1)
    write_part(tmp_path, "train", images + 1, labels)
    assert checksum(tmp_path) != before


def remove(folder):
    (folder / FILES[1]).unlink()


def rename(folder):
    (folder / FILES[1]).rename(folder / "train/ant/3.jpg")


def lengthen(folder):
    with (folder / FILES[1]).open("ab") as file:
        file.write(b"x")


def rewrite(folder):
    content = (folder / FILES[4]).read_bytes()
    (folder / FILES[4]).write_bytes(content[:-1] + b"x")


@pytest.mark.parametrize("change", [remove, rename, lengthen, rewrite])
def test_whatever_changes_in_a_folder_of_files_changes_the_checksum(images, change):
    before = checksum(images)
    assert checksum(images) == before
    change(images)
    assert checksum(images) != before


def test_a_list_that_was_edited_under_its_path_changes_the_checksum(images):
    lists = {"train_list": str(images / "train.txt"), "test_list": str(images / "test.txt")}
    (images / "train.txt").write_text(f"{FILES[0]} 0\n{FILES[2]} 1\n")
    (images / "test.txt").write_text(f"{FILES[3]} 0\n{FILES[4]} 1\n")
    before = checksum(images, **lists)
    (images / "train.txt").write_text(f"{FILES[1]} 0\n{FILES[2]} 1\n")
    assert checksum(images, **lists) != before


def test_a_set_that_tfds_prepared_has_one_of_its_own(tmp_path):
    found = []
    for place, counts in (("a", (12, 6, 3, 1)), ("b", (12, 6, 3, 1)), ("c", (11, 7, 3, 1))):
        tiny_imagenet2012(tmp_path / place, counts)
        found.append(checksum(tmp_path / place, name="imagenet2012"))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16", "int32", "int64", "uint64"])
def test_labels_of_any_integers_count_for_their_own_class_alone(kind):
    """Of 300 classes, where an 8-bit 5 would be 261 too."""
    images = np.zeros((2, 4, 4, 1), np.uint8)
    labels = LabelledImages(images, np.array([5, 100], kind)).labels
    counted = jax.nn.one_hot(labels, 300).sum(axis=0)
    assert np.flatnonzero(counted).tolist() == [5, 100]
    assert labels.dtype == np.int32

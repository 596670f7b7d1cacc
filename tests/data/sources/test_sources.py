"""Every kind of source is told from what a folder holds, and what is none of them is refused."""

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions, SplitOptions
from spa_jax.data.dataset import EncodedImages, LabelledImages, Source
from spa_jax.data.sources.opening import SOURCES, SourceKind, load_data, read_source
from spa_jax.data.splits.splitting import make_split
from tests.data.sources.test_idx import idx_bytes, tiny_part, write_part
from tests.data.tiny import BATCHES, cifar_record, random_images
from tests.data.tiny_tfds import encode, tiny_cifar10, tiny_imagenet2012
from tests.refusals import refusal


def open_source(name, folder, verify=True, train_list="", test_list=""):
    return read_source(
        DataOptions(
            name=name, folder=folder, verify=verify, train_list=train_list, test_list=test_list
        )
    )


def write_npz(folder, shape=(4, 3, 3)):
    images = random_images(12, seed=1, shape=shape)
    np.savez(folder / "train.npz", image=images, label=np.arange(12) % 3)
    np.savez(folder / "test.npz", image=images[:3], label=np.arange(3))
    return images


def write_cifar10(folder):
    """Two images a batch, in the binary form; returns the training images."""
    images = random_images(12, seed=2)
    for number, file in enumerate((*BATCHES, "test_batch")):
        records = [cifar_record(images[2 * number + i], (2 * number + i) % 10) for i in range(2)]
        (folder / f"{file}.bin").write_bytes(b"".join(records))
    names = [f"class {label}" for label in range(10)]
    (folder / "batches.meta.txt").write_text("\n".join(names))
    return images[:10]


def write_image_folder(folder):
    content = encode(np.zeros((9, 7, 3), np.uint8), "JPEG")
    for path in ("train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg", "val/dog/a.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def test_idx_files_are_read(tmp_path):
    images, labels = tiny_part(3, seed=1)
    write_part(tmp_path, "train", images, labels)
    write_part(tmp_path, "t10k", *tiny_part(1, seed=2))
    source = open_source("fashion_mnist", str(tmp_path))
    np.testing.assert_array_equal(source.train.images[..., 0], images)
    np.testing.assert_array_equal(source.train.labels, labels)
    assert (source.name, source.order) == ("fashion_mnist", "official")
    assert source.class_names[9] == "Ankle boot"
    assert open_source("mnist", str(tmp_path)).class_names == tuple("0123456789")


def test_numpy_archives_are_read_even_under_the_name_of_a_published_set(tmp_path):
    images = write_npz(tmp_path)
    for name in ("mine", "cifar10", "my set"):
        source = open_source(name, str(tmp_path))
        np.testing.assert_array_equal(source.train.images, images)
        assert (source.name, len(source.test), len(source.class_names)) == (name, 3, 3)


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_official_cifar_files_are_read(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    images = write_cifar10(tmp_path / inner)
    source = open_source("cifar10", str(tmp_path), verify=False)
    np.testing.assert_array_equal(source.train.images, images)
    assert source.train.labels.tolist() == list(range(10))
    assert source.class_names[3] == "class 3"
    assert source.order == "official"


def test_official_cifar_files_are_verified_unless_that_is_switched_off(tmp_path):
    write_cifar10(tmp_path)
    message = refusal(open_source, "cifar10", str(tmp_path))
    assert "data_batch_1.bin is not the official file" in message
    assert "config.data.verify=False" in message


def test_official_cifar_files_are_those_of_cifar_alone(tmp_path):
    write_cifar10(tmp_path)
    write_npz(tmp_path)
    assert len(open_source("mine", str(tmp_path)).train) == 12
    assert len(open_source("cifar10", str(tmp_path), verify=False).train) == 10


def test_an_image_folder_is_read(tmp_path):
    write_image_folder(tmp_path)
    source = open_source("pets", str(tmp_path))
    assert isinstance(source.train.images, EncodedImages)
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 1]
    assert source.train.names.tolist() == ["train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg"]
    assert source.test.names.tolist() == ["val/dog/a.jpg"]


def test_sets_that_tfds_prepared_are_read(tmp_path, monkeypatch):
    train, test = tiny_cifar10(tmp_path, counts=(3,) * 10, test_counts=(1,) * 10)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for folder in (str(tmp_path), ""):
        source = open_source("cifar10", folder)
        np.testing.assert_array_equal(source.train.images, train.images)
        np.testing.assert_array_equal(source.train.labels, train.labels)
        np.testing.assert_array_equal(source.test.labels, test.labels)
        assert source.order == "official"


def test_what_tfds_prepared_comes_before_what_lies_beside_it(tmp_path):
    train, _ = tiny_cifar10(tmp_path, counts=(3,) * 10, test_counts=(1,) * 10)
    write_npz(tmp_path)
    np.testing.assert_array_equal(open_source("cifar10", str(tmp_path)).train.images, train.images)
    assert len(open_source("mine", str(tmp_path)).train) == 12


def test_one_protocol_takes_the_same_images_whatever_form_a_set_has(tmp_path):
    """Positions in the official order: TFDS stores its examples shuffled."""
    prepared, archives = tmp_path / "tfds", tmp_path / "npz"
    prepared.mkdir()
    archives.mkdir()
    parts = tiny_cifar10(prepared, counts=(20,) * 10, test_counts=(1,) * 10)
    for file, part in zip(("train.npz", "test.npz"), parts, strict=True):
        np.savez(archives / file, image=part.images, label=part.labels)
    options = SplitOptions(imbalance_factor=10)
    one, other = (
        make_split(open_source("cifar10", str(folder)), options) for folder in (prepared, archives)
    )
    assert one.split == other.split
    np.testing.assert_array_equal(one.train.images, other.train.images)


def test_a_split_list_is_joined_to_tfds_by_file_name(tmp_path):
    train, _ = tiny_imagenet2012(tmp_path)
    chosen = [list(train.labels).index(label) for label in range(4)][::-1]
    lines = [f"train/some/folder/{train.names[i]} {train.labels[i]}" for i in chosen]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(lines))
    source = open_source("imagenet2012", str(tmp_path))
    data = make_split(source, SplitOptions(train_list=str(listed)))
    assert data.train.names.tolist() == [train.names[i] for i in chosen]
    assert data.train.labels.tolist() == [3, 2, 1, 0]
    assert [data.train.images[i] for i in range(4)] == [train.images[i] for i in chosen]


def test_a_split_list_is_joined_to_an_image_folder_by_path(tmp_path):
    write_image_folder(tmp_path)
    listed = tmp_path / "list.txt"
    listed.write_text("train/dog/a.jpg 1\ntrain/cat/b.jpg 0\n")
    source = open_source("pets", str(tmp_path))
    data = make_split(source, SplitOptions(train_list=str(listed)))
    assert data.train.names.tolist() == ["train/dog/a.jpg", "train/cat/b.jpg"]


def test_a_home_sign_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sets").mkdir()
    write_npz(tmp_path / "sets")
    assert len(open_source("mine", "~/sets").train) == 12


def test_a_missing_folder_and_a_file_are_named_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    for place in ("nowhere", "file"):
        message = refusal(open_source, "cifar10", str(tmp_path / place))
        assert f"There is no folder {tmp_path / place}" in message
        assert "config.data.folder" in message
        assert "python -m spa_jax.data.prepare cifar10" in message


def test_without_a_folder_a_set_that_is_not_prepared_is_refused_with_the_command(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    message = refusal(open_source, "cifar100", "")
    assert str(tmp_path) in message
    assert "python -m spa_jax.data.prepare cifar100" in message


@pytest.mark.parametrize("other", [None, "notes.txt", "cifar100/3.0.2/dataset_info.json"])
def test_a_folder_of_something_else_is_refused_with_what_is_read(tmp_path, other):
    if other:
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("{}")
    message = refusal(open_source, "cifar10", str(tmp_path))
    assert f"{tmp_path} holds nothing that can be read as cifar10" in message
    for kind in (f"--data_dir={tmp_path}", "CIFAR", "idx", "train.npz", "train/CLASS/"):
        assert kind in message


def test_half_a_set_is_refused_by_the_name_of_what_is_missing(tmp_path):
    parts = {
        "train.npz": ("mine", "test.npz"),
        "data_batch_2.bin": ("cifar10", "data_batch_1.bin"),
        "t10k-images-idx3-ubyte": ("mnist", "train-images-idx3-ubyte"),
        "train/cat/a.jpg": ("pets", "val"),
    }
    for number, (path, (name, missing)) in enumerate(parts.items()):
        place = tmp_path / str(number) / path
        place.parent.mkdir(parents=True)
        place.write_bytes(idx_bytes(np.zeros((1, 2, 2))))
        if path == "train.npz":
            write_npz(place.parent)
            (place.parent / "test.npz").unlink()
        message = refusal(open_source, name, str(tmp_path / str(number)))
        assert missing in message


def test_two_lists_make_a_data_set_of_any_folder_of_images(tmp_path):
    for name in (
        "all/Aves/17/a.jpg",
        "all/Aves/17/b.jpg",
        "all/Fungi/3/c.jpg",
        "all/Fungi/3/d.jpg",
    ):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + name.encode())
    lists = {
        "train": ["all/Fungi/3/c.jpg 1", "all/Aves/17/b.jpg 0"],
        "test": ["all/Fungi/3/d.jpg 1"],
    }
    for part, lines in lists.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(lines))
    paths = [str(tmp_path / f"{part}.txt") for part in lists]
    source = open_source("photographs", str(tmp_path / "images"), True, *paths)
    assert source.class_names == ("17", "3")
    data = make_split(source, SplitOptions(train_list=paths[0], test_list=paths[1]))
    assert data.train.names.tolist() == ["all/Fungi/3/c.jpg", "all/Aves/17/b.jpg"]
    assert data.train.labels.tolist() == [1, 0]
    assert data.test.images[0].endswith(b"Fungi/3/d.jpg")
    assert data.split["protocol"] == "list"


def test_a_list_of_files_that_are_not_there_is_refused_with_how_many(tmp_path):
    (tmp_path / "images").mkdir()
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"train/{number}.jpg 0\n" for number in range(7)))
    message = refusal(
        open_source, "photographs", str(tmp_path / "images"), True, str(listed), str(listed)
    )
    assert "7 of the 7 images" in message
    assert "train/0.jpg, train/1.jpg, train/2.jpg" in message


def test_test_images_of_another_shape_are_refused(tmp_path):
    for part, side in (("train", 8), ("test", 9)):
        arrays = {"image": np.zeros((4, side, side, 3), np.uint8), "label": np.arange(4) % 2}
        np.savez(tmp_path / f"{part}.npz", **arrays)
    message = refusal(open_source, "squares", str(tmp_path))
    assert "8, 8, 3" in message
    assert "9, 9, 3" in message


def test_lists_that_label_a_folder_differently_are_refused(tmp_path):
    for name in ("one/a.jpg", "two/b.jpg", "one/c.jpg", "two/d.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"\xff\xd8\xff")
    (tmp_path / "train.txt").write_text("one/a.jpg 0\ntwo/b.jpg 1\n")
    (tmp_path / "test.txt").write_text("one/c.jpg 0\ntwo/d.jpg 0\n")
    paths = [str(tmp_path / f"{part}.txt") for part in ("train", "test")]
    message = refusal(open_source, "photographs", str(tmp_path / "images"), True, *paths)
    assert f"1 labels in {paths[1]} are not those" in message
    assert "two/d.jpg has 0 in the list, 1 there" in message
    assert paths[0] in message


def test_a_source_of_ones_own_is_a_function_and_a_line(monkeypatch):
    def read_squares(options, folder):
        images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1) ** 2
        part = LabelledImages(images, np.arange(12, dtype=np.int32) % 2)
        return Source(options.name, part, part, ("even", "odd"), "official")

    monkeypatch.setitem(SOURCES, "squares", SourceKind(read_squares))
    data = load_data(DataOptions(name="squares", imbalance_factor=3))
    assert (data.name, data.class_counts) == ("squares", (6, 2))

"""Folders of image files: classes, order, split lists, and what is wrong with them."""

import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from spa_jax.data.data_options import DataOptions, SplitOptions
from spa_jax.data.sources.image_folder import (
    ImageFiles,
    read_image_folder,
    read_listed_files,
)
from spa_jax.data.sources.opening import SOURCES
from spa_jax.data.splits.splitting import make_split
from tests.data.tiny import random_images
from tests.refusals import refusal

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"
TRAIN = ["train/ant/2.jpg", "train/ant/10.jpg", "train/bee/a.PNG", "train/cicada/n1_7.JPEG"]
TEST = ["test/ant/x.jpeg", "test/cicada/a.jpg", "test/cicada/b.jpg"]


def write(folder, *names, content=None):
    """Files that begin as an image does and then hold their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        signature = PNG if name.lower().endswith("png") else JPEG
        path.write_bytes(signature + name.encode() if content is None else content)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, *TRAIN, *TEST)
    return tmp_path


def check(examples, names, labels):
    """Names, labels and contents, which hold the names, agree."""
    assert examples.names.tolist() == names
    assert len(examples) == len(examples.images) == len(names)
    np.testing.assert_array_equal(examples.labels, np.array(labels, np.int32), strict=True)
    for position, name in enumerate(names):
        assert examples.images[position].endswith(name.encode())


def test_classes_are_the_sorted_subfolders_and_files_are_sorted_within(folder):
    source = read_image_folder("insects", folder)
    assert (source.name, source.order) == ("insects", "official")
    assert source.class_names == ("ant", "bee", "cicada")
    by_code_point = ["train/ant/10.jpg", "train/ant/2.jpg", *TRAIN[2:]]
    check(source.train, by_code_point, [0, 0, 1, 2])
    check(source.test, TEST, [0, 2, 2])


def test_the_order_is_by_class_first(tmp_path):
    """`a-b` comes after `a`, though "a-b/" sorts before "a/"."""
    names = ["train/a/1.jpg", "train/a-b/1.jpg", "train/a0/1.jpg", "test/a/1.jpg"]
    write(tmp_path, *names)
    check(read_image_folder("x", tmp_path).train, names[:3], [0, 1, 2])


def test_files_may_lie_deeper(tmp_path):
    names = ["train/a/b/c/1.jpg", "train/a/images/2.jpg", "train/a/z.jpg", "val/a/images/1.jpg"]
    write(tmp_path, *names)
    source = read_image_folder("x", tmp_path)
    check(source.train, names[:3], [0, 0, 0])
    check(source.test, names[3:], [0])


def test_other_files_and_hidden_ones_are_passed_over(folder):
    write(
        folder,
        "train/notes.jpg",  # no class
        "train/ant/readme.txt",
        "train/ant/thumbs.jpg.db",
        "train/ant/._2.jpg",
        "train/ant/.cache/1.jpg",
        "train/.ipynb_checkpoints/1.jpg",
        "test/.ipynb_checkpoints/1.jpg",
    )
    (folder / "train/bee/folder.jpg").mkdir()
    source = read_image_folder("insects", folder)
    assert source.class_names == ("ant", "bee", "cicada")
    assert len(source.train) == 4
    assert len(source.test) == 3


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["test", "val", "validation"], "test"),
        (["val", "validation"], "val"),
        (["validation"], "validation"),
    ],
)
def test_the_test_images_are_those_of_the_first_of_test_val_validation(tmp_path, present, chosen):
    write(tmp_path, "train/a/1.jpg", *(f"{part}/a/1.jpg" for part in present))
    check(read_image_folder("x", tmp_path).test, [f"{chosen}/a/1.jpg"], [0])


def test_a_test_folder_without_classes_gives_way_to_val(tmp_path):
    """As in ImageNet, whose test labels are not public."""
    write(tmp_path, "train/a/1.jpg", "test/ILSVRC2012_test_00000001.JPEG", "val/a/1.jpg")
    check(read_image_folder("x", tmp_path).test, ["val/a/1.jpg"], [0])


def test_links_to_files_and_folders_are_followed(tmp_path):
    write(tmp_path, "elsewhere/a/1.jpg", "elsewhere/2.jpg", "train/b/1.jpg", "test/b/1.jpg")
    (tmp_path / "train/b/deeper").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "train/a").symlink_to(tmp_path / "elsewhere/a")
    (tmp_path / "train/b/2.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    source = read_image_folder("x", tmp_path)
    names = ["train/a/1.jpg", "train/b/1.jpg", "train/b/2.jpg", "train/b/deeper/1.jpg"]
    assert np.asarray(source.train.names).tolist() == names
    assert source.train.images[2].endswith(b"elsewhere/2.jpg")
    listed = np.array(["train/b/2.jpg", "train/a/1.jpg"])
    assert read_listed_files(tmp_path, listed)[0].endswith(b"elsewhere/2.jpg")


def test_a_pipe_with_the_name_of_an_image_is_passed_over_and_a_link_to_nothing_is_told(folder):
    """Reading the one would wait for ever; without the other a class would be smaller unseen."""
    os.mkfifo(folder / "train" / "ant" / "pipe.jpg")
    (folder / "train" / "ant" / "link.jpg").symlink_to("pipe.jpg")
    assert read_image_folder("insects", folder).train.names.tolist()[:2] == [
        "train/ant/10.jpg",
        "train/ant/2.jpg",
    ]
    (folder / "train" / "ant" / "0.jpg").symlink_to(folder / "nowhere.jpg")
    images = read_image_folder("insects", folder).train.images
    assert "cannot be read" in refusal(images.__getitem__, 0)


def is_image_folder(folder):
    return SOURCES["image_folder"].fits(DataOptions(), folder)


def test_a_folder_train_makes_an_image_folder(folder, tmp_path):
    assert is_image_folder(folder)
    assert not is_image_folder(tmp_path / "test")
    assert not is_image_folder(tmp_path / "nowhere")
    (tmp_path / "test/train").write_bytes(b"a file, as CIFAR-100 has one")
    assert not is_image_folder(tmp_path / "test")


# What is wrong with a folder


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    def closed(place):
        raise PermissionError(13, "Permission denied", os.fspath(place))

    monkeypatch.setattr(os, "scandir", closed)
    for read in (read_image_folder, lambda _, place: read_listed_files(place, np.array(TRAIN))):
        message = refusal(read, "x", folder)
        assert str(folder / "train") in message
        assert "permissions" in message


def test_a_class_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(folder, monkeypatch):
    scandir = os.scandir

    def closed(place):
        if os.fspath(place).endswith("bee"):
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    message = refusal(read_image_folder, "x", folder)
    assert str(folder / "train/bee") in message
    assert "permissions" in message


@pytest.mark.parametrize("made", [[], ["train/1.jpg"]])
def test_a_training_folder_without_classes_is_refused(tmp_path, made):
    write(tmp_path, *made, "test/a/1.jpg")
    message = refusal(read_image_folder, "x", tmp_path)
    assert f"{tmp_path / 'train'} has no subfolders" in message


@pytest.mark.parametrize("made", [[], ["test/1.jpg", "val/2.jpg"]])
def test_a_folder_without_test_classes_is_refused(tmp_path, made):
    write(tmp_path, "train/a/1.jpg", *made)
    message = refusal(read_image_folder, "x", tmp_path)
    assert str(tmp_path) in message
    assert "test, val, validation" in message


def test_test_classes_that_the_training_set_lacks_are_counted_and_named(folder):
    write(folder, *(f"test/{name}/1.jpg" for name in ("wasp", "dor", "fly", "moth")))
    message = refusal(read_image_folder, "x", folder)
    assert f"{folder / 'test'} has 4 subfolders that {folder / 'train'} lacks" in message
    assert "(dor, fly, moth, ...)" in message


def test_a_class_without_a_training_image_is_named(folder):
    write(folder, "train/dor/readme.txt")
    message = refusal(make_split, read_image_folder("x", folder), SplitOptions())
    assert str(folder / "train") in message
    assert "1 of the 4 classes" in message
    assert "dor (2" not in message
    assert "dor (3)" in message


def test_a_class_without_a_test_image_is_admitted(folder):
    (folder / "test/bee").mkdir()
    assert 1 not in read_image_folder("x", folder).test.labels


def test_a_test_folder_without_images_is_refused(tmp_path):
    write(tmp_path, "train/a/1.jpg", "test/a/1.bmp")
    message = refusal(read_image_folder, "x", tmp_path)
    assert f"No subfolder of {tmp_path / 'test'} with the name of a class (a) holds" in message
    assert ".jpg, .jpeg, .png" in message


# Reading


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P")],
)
def test_what_an_encoder_wrote_is_given_back_byte_for_byte(tmp_path, form, mode):
    Image.fromarray(random_images(1, 0, (7, 5, 3))[0]).convert(mode).save(tmp_path / "a", form)
    files = ImageFiles(tmp_path, np.array(["a"]))
    assert files[0] == (tmp_path / "a").read_bytes()
    assert Image.open(io.BytesIO(files[0])).size == (5, 7)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"GIF89a...", "0x474946383961"),
        (b"\xff\xd8", "0xffd8"),
        (b"\x89PNG\r\r\n\x1a\n", "0x89504e47"),
        (b"<html>429</html>", "neither JPEG nor PNG"),
        (b" \xff\xd8\xff", "neither JPEG nor PNG"),
    ],
)
def test_a_file_that_is_no_image_is_named_when_it_is_read(folder, content, says):
    write(folder, "train/bee/a.PNG", content=content)
    images = read_image_folder("x", folder).train.images
    message = refusal(images.__getitem__, 2)
    assert str(folder / "train/bee/a.PNG") in message
    assert says in message


def test_a_file_that_vanished_is_named_when_it_is_read(folder):
    images = read_image_folder("x", folder).train.images
    (folder / "train/bee/a.PNG").unlink()
    assert str(folder / "train/bee/a.PNG") in refusal(images.__getitem__, 2)
    assert images[3].endswith(b"n1_7.JPEG")


def test_a_selection_keeps_the_asked_order_and_reads_nothing(folder):
    train = read_image_folder("x", folder).train
    (folder / "train/cicada/n1_7.JPEG").unlink()
    chosen = train.take(np.array([3, 1, 1, 0]))
    assert isinstance(chosen.images, ImageFiles)
    assert chosen.labels.tolist() == [2, 0, 0, 0]
    names = ["train/cicada/n1_7.JPEG", "train/ant/2.jpg", "train/ant/2.jpg", "train/ant/10.jpg"]
    assert np.asarray(chosen.names).tolist() == names
    assert [chosen.images[i][4:].decode() for i in (1, 2, 3)] == names[1:]
    assert "n1_7.JPEG" in refusal(chosen.images.__getitem__, 0)
    assert len(train) == 4


def test_files_are_found_by_a_worker_process_that_gets_them_pickled(folder):
    images = pickle.loads(pickle.dumps(read_image_folder("x", folder).train.images))
    assert len(images) == 4
    assert [images[np.int64(i)] for i in range(4)] == [
        (folder / name).read_bytes() for name in images.names
    ]


def test_a_position_beyond_the_end_is_an_index_error(folder):
    images = read_image_folder("x", folder).train.images
    with pytest.raises(IndexError):
        images[4]


# Split lists


def test_listed_files_stand_in_the_order_of_the_list(folder):
    listed = np.array([TRAIN[3], TEST[0], TRAIN[0], TRAIN[3]])
    files = read_listed_files(folder, listed)
    assert len(files) == 4
    assert [files[i][4:].decode() for i in range(4)] == listed.tolist()
    inner = read_listed_files(folder / "train", np.array(["bee/a.PNG", "./ant/2.jpg"]))
    assert [inner[i][-8:] for i in range(2)] == [b"ee/a.PNG", b"nt/2.jpg"]


def test_listed_files_may_lie_in_the_folder_itself(tmp_path):
    write(tmp_path, "1.jpg")
    assert read_listed_files(tmp_path, np.array(["1.jpg"]))[0] == JPEG + b"1.jpg"


def test_missing_files_are_counted_and_the_first_three_named(folder):
    missing = ["train/ant/3.jpg", "train/dor/1.jpg", "nowhere/1.jpg", "train/bee/a.png"]
    message = refusal(read_listed_files, folder, np.array([*TRAIN, *missing]))
    assert f"4 of the 8 images of the split list are not below {folder}: " in message
    assert f"{', '.join(missing[:3])}, ...." in message
    assert "config.data.folder" in message
    assert missing[3] not in message


def test_a_path_that_leaves_the_folder_is_not_below_it(folder):
    listed = f"../{folder.name}/train/ant/2.jpg"
    assert (folder / listed).is_file()
    assert f"{folder}: {listed}." in refusal(read_listed_files, folder, np.array([listed]))


@pytest.mark.parametrize(
    "listed", ["train/ant", "train/ant/", "train/link.jpg", "train/ant/2.jpg/x"]
)
def test_a_folder_or_a_broken_link_is_no_file(folder, listed):
    (folder / "train/link.jpg").symlink_to(folder / "gone")
    assert "1 of the 1 images" in refusal(read_listed_files, folder, np.array([listed]))


def test_each_directory_is_listed_once(folder, monkeypatch):
    listings = []
    scandir = os.scandir

    def counted(place):
        listings.append(os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", counted)
    read_listed_files(folder, np.array([*TRAIN, *TEST] * 50))
    places = {os.path.dirname(folder / name) for name in [*TRAIN, *TEST]}
    assert sorted(listings) == sorted(places)

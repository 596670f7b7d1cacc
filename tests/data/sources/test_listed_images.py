"""Data sets that lists make of a folder: what is read, whatever the folder looks like.

Each group is a kind of fault that users of other projects have reported; the last case of a group
is one of our own finding.
"""

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError
from tests.refusals import refusal


@pytest.fixture
def folder(tmp_path):
    """A function that writes files which begin as images do; the folder may hold anything else."""

    def write(*names):
        for name in names:
            (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / name).write_bytes(b"\xff\xd8\xff" + name.encode())
        return tmp_path / "images"

    return write


def load(folder, **lists):
    """The data set that lists, given as (name, label) pairs, make of a folder."""
    options = {"name": "mine", "folder": str(folder), "profile": "natural"}
    for part, lines in lists.items():
        path = folder.parent / f"{part}.txt"
        path.write_text("".join(f"{name} {label}\n" for name, label in lines))
        options[f"{part}_list"] = str(path)
    return load_data(DataOptions(**options))


def read(examples):
    """Labels by the name that stands in each file."""
    contents = [examples.images[i][3:].decode() for i in range(len(examples))]
    return dict(zip(contents, examples.labels.tolist(), strict=True))


# --- the lists say what is read -----------------------------------------------------------------

CLASSED = [f"train/{kind}/{n}.jpg" for kind in ("ant", "bee", "cat", "dog", "eel") for n in (1, 2)]


def five(part="train"):
    return [(name, number // 2) for number, name in enumerate(CLASSED)]


LAYOUTS = {
    "a flat val": (five(), [("val/x.JPEG", 3), ("val/y.JPEG", 0)]),
    "both in train": (
        [pair for pair in five() if "/1" in pair[0]],
        [pair for pair in five() if "/2" in pair[0]],
    ),
    "both flat": (
        [("train/a.jpg", 1), ("train/b.jpg", 0), ("train/c.jpg", 1)],
        [("val/x.JPEG", 0), ("val/y.JPEG", 1)],
    ),
    "three of five classes": (
        [("train/eel/1.jpg", 0), ("train/bee/1.jpg", 1), ("train/ant/2.jpg", 2)],
        [("train/bee/2.jpg", 1), ("train/eel/2.jpg", 0)],
    ),
    "beside files of another form": (five(), [("val/x.JPEG", 3), ("train.npz.jpg", 0)]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_lists_say_what_is_read_whatever_the_folder_looks_like(folder, case):
    train, test = LAYOUTS[case]
    place = folder(*CLASSED, *(name for name, _ in (*train, *test)), "test/fly/1.jpg")
    (place / "train.npz").write_bytes(b"another data set")
    data = load(place, train=train, test=test)
    assert read(data.train) == dict(train)
    assert read(data.test) == dict(test)


def test_classes_are_named_after_their_folders_and_numbered_where_folders_hold_several(folder):
    train, test = LAYOUTS["three of five classes"]
    assert load(folder(*CLASSED), train=train, test=test).class_names == ("eel", "bee", "ant")
    train, test = LAYOUTS["both flat"]
    names = [name for name, _ in (*train, *test)]
    assert load(folder(*names), train=train, test=test).class_names == ("0", "1")


@pytest.mark.parametrize("spell", ["{root}/{name}", "./{name}", "{root}//./{name}"])
def test_paths_may_be_whole(folder, spell):
    place = folder(*CLASSED, "val/x.JPEG")
    spelt = [(spell.format(root=place, name=name), label) for name, label in five()]
    data = load(place, train=spelt, test=[(spell.format(root=place, name="val/x.JPEG"), 2)])
    assert data.train.names.tolist() == CLASSED
    assert data.test.names.tolist() == ["val/x.JPEG"]


def test_whole_paths_may_lie_elsewhere(folder, tmp_path):
    place = folder(*CLASSED)
    (tmp_path / "other.jpg").write_bytes(b"\xff\xd8\xffother")
    data = load(place, train=five(), test=[(tmp_path / "other.jpg", 4)])
    assert read(data.test) == {"other": 4}


def test_one_list_takes_its_classes_from_the_test_folder(folder):
    """Of our own finding: a list of some classes alone, with the labels that it gives them."""
    place = folder(*CLASSED, *(f"val/{kind}/x.jpg" for kind in ("ant", "bee", "cat", "dog", "eel")))
    data = load(place, train=LAYOUTS["three of five classes"][0])
    assert read(data.test) == {"val/eel/x.jpg": 0, "val/bee/x.jpg": 1, "val/ant/x.jpg": 2}
    data = load(place, test=[("val/eel/x.jpg", 4)])
    assert (read(data.test), data.num_classes, len(data.train)) == ({"val/eel/x.jpg": 4}, 5, 10)


# --- one image once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "train/ant/1.jpg",
        "./train/ant/1.jpg",
        "train\\ant\\1.jpg",
        "{root}/train/ant/1.jpg",
        "train/bee/../ant//1.jpg",
    ],
)
def test_an_image_is_known_however_it_is_spelt(folder, spelling):
    place = folder(*CLASSED, "val/x.JPEG")
    again = (spelling.format(root=place), 0)
    message = refusal(load, place, train=[*five(), again], test=[("val/x.JPEG", 0)])
    assert f"{place.parent / 'train.txt'} lists images more than once" in message
    assert "train/ant/1.jpg" in message
    message = refusal(load, place, train=five(), test=[("val/x.JPEG", 0), again])
    assert "1 images of " in message
    assert str(place.parent / "train.txt") in message
    assert str(place.parent / "test.txt") in message
    assert "train/ant/1.jpg" in message


def test_a_training_list_may_not_take_what_the_test_folder_holds(folder):
    """Of our own finding: one list, and the other part from the folder."""
    place = folder(*CLASSED, "val/ant/x.jpg")
    message = refusal(load, place, train=[*five(), ("val/ant/x.jpg", 0)])
    assert "val/ant/x.jpg" in message
    assert "be tested on" in message


@pytest.mark.parametrize("part", ["train", "test", "both"])
def test_an_image_is_known_through_a_link_to_its_folder(folder, part):
    place = folder(*CLASSED, "val/x.JPEG")
    link = place.parent / "link"
    link.symlink_to(place)
    again = (f"{place}/train/ant/1.jpg", 0)
    train, test = five(), [("val/x.JPEG", 0)]
    if part == "train":
        train.append(again)
    elif part == "test":
        test += [again, ("train/ant/1.jpg", 0)]
    else:
        test.append(again)
    message = refusal(load, link, train=train, test=test)
    assert f"{place}/train/ant/1.jpg" in message
    assert ("be tested on" if part == "both" else "more than once") in message


@pytest.mark.parametrize("link", ["test", "test/ant"])
def test_a_test_folder_that_is_a_link_to_training_images_is_refused(folder, link):
    place = folder(*CLASSED)
    (place / link).parent.mkdir(exist_ok=True)
    (place / link).symlink_to(place / link.replace("test", "train"))
    message = refusal(load, place)
    assert f"{place}/train/ant/1.jpg" in message
    assert "be tested on" in message


# --- labels -------------------------------------------------------------------------------------


def many(classes=13, images=3):
    """Lists of 13 classes in folders of their own, of which the last is 12."""
    names = [f"train/n{label:02d}/{n}.jpg" for label in range(classes) for n in range(images)]
    return [(name, number // images) for number, name in enumerate(names)], [("val/x.jpg", 0)]


@pytest.mark.parametrize(("images", "cut"), [(3, 38), (3, 36), (2, 25)])
def test_a_label_that_was_cut_off_disagrees_with_its_folder(folder, images, cut):
    train, test = many(images=images)
    place = folder(*(name for name, _ in (*train, *test)))
    assert load(place, train=train, test=test).class_names[12] == "n12"
    name = train[cut][0]
    train[cut] = (name, 1)
    message = refusal(load, place, train=train, test=test)
    assert f"1 labels in {place.parent / 'train.txt'} are not those" in message
    assert f"{name} has 1 in the list, 12 there" in message


def test_several_labels_that_were_cut_off_disagree_with_their_folder(folder):
    train, test = many(images=5)
    place = folder(*(name for name, _ in (*train, *test)))
    for cut in (60, 62):
        train[cut] = (train[cut][0], 1)
    message = refusal(load, place, train=train, test=test)
    assert "2 labels in" in message
    assert f"{train[60][0]} has 1 in the list, 12 there" in message


def test_a_label_of_the_test_list_disagrees_with_the_folder_in_training(folder):
    train, _ = many()
    test = [(name.replace("train", "val"), label) for name, label in train]
    place = folder(*(name for name, _ in (*train, *test)))
    test[38] = (test[38][0], 1)
    message = refusal(load, place, train=train, test=test)
    assert f"{test[38][0]} has 1 in the list, 12 there" in message


def test_folders_that_hold_several_classes_are_no_fault(folder):
    """Of our own finding: shards, and one folder for everything, say nothing about labels."""
    shards = [(f"part{n % 2}/{n}.jpg", int(n in (5, 18))) for n in range(20)]
    flat = [(f"all/{n}.jpg", int(n == 7)) for n in range(20)]
    for train in (shards, flat):
        test = [("val/x.jpg", 0)]
        data = load(folder(*(name for name, _ in (*train, *test))), train=train, test=test)
        assert data.class_names == ("0", "1")


@pytest.mark.parametrize("which", ["train", "test", "both"])
def test_labels_that_count_from_one_are_called_so(folder, which):
    train, _ = many(4)
    test = [(name.replace("train", "val"), label) for name, label in train]
    place = folder(*(name for name, _ in (*train, *test)))
    if which != "test":
        train = [(name, label + 1) for name, label in train]
    if which != "train":
        test = [(name, label + 1) for name, label in test]
    message = refusal(load, place, train=train, test=test)
    assert "count up from 0" in message
    assert str(place.parent / f"{'test' if which == 'test' else 'train'}.txt") in message


def test_a_list_that_counts_from_one_is_called_so_beside_a_test_folder(folder):
    """Of our own finding: the list of the test images alone, and arrays."""
    place = folder(*CLASSED, "val/ant/x.jpg", "val/bee/x.jpg")
    message = refusal(load, place, test=[("val/ant/x.jpg", 1), ("val/bee/x.jpg", 2)])
    assert "val/ant/x.jpg has 1 in the list, 0 there" in message
    assert "count up from 0" in message
    for part, labels in (("train", [1, 2]), ("test", [1, 2])):
        np.savez(place / f"{part}.npz", image=np.zeros((2, 2, 2, 1), np.uint8), label=labels)
    options = DataOptions(name="mine", folder=str(place), profile="natural")
    message = refusal(load_data, options)
    assert str(place / "train.npz") in message
    assert "count up from 0" in message


def test_a_training_list_that_counts_from_one_is_called_so_without_a_test_list(folder):
    train = [(name, label + 1) for name, label in five()]
    message = refusal(load, folder(*CLASSED, "test/ant/x.jpg"), train=train)
    assert "count up from 0" in message
    assert "train.txt" in message


# --- places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["folder", "train_list", "test_list"])
@pytest.mark.parametrize("place", ["gs://bucket/data", "s3://bucket/data"])
def test_a_bucket_is_refused_by_the_field_that_names_it(field, place):
    message = refusal(DataOptions, **{field: place})
    assert f"config.data.{field}" in message
    assert place in message
    assert "mounted bucket" in message


def test_a_home_sign_is_understood_in_lists(folder, monkeypatch):
    place = folder(*CLASSED, "val/x.JPEG")
    monkeypatch.setenv("HOME", str(place.parent))
    load(place, train=five(), test=[("val/x.JPEG", 0)])
    lists = {"train_list": "~/train.txt", "test_list": "~/test.txt"}
    data = load_data(DataOptions(name="mine", folder="~/images", **lists))
    assert len(data.train) == 10


def test_lists_without_a_folder_ask_for_it(folder, monkeypatch):
    place = folder(*CLASSED, "val/x.JPEG")
    monkeypatch.setenv("TFDS_DATA_DIR", str(place))
    load(place, train=five(), test=[("val/x.JPEG", 0)])
    lists = {f"{part}_list": str(place.parent / f"{part}.txt") for part in ("train", "test")}
    message = refusal(load_data, DataOptions(name="mine", **lists))
    assert message.startswith("config.data.folder is empty: set it to the folder")


@pytest.mark.parametrize("place", ["~no-such-person/data", "x" * 300, " "])
@pytest.mark.parametrize("field", ["folder", "train_list", "test_list"])
def test_a_place_that_cannot_be_is_refused_by_the_field_that_names_it(field, place):
    assert f"config.data.{field}" in refusal(DataOptions, **{field: place})


def test_a_place_below_a_file_is_refused_in_one_paragraph(folder):
    below = "/dev/null/below"
    there = folder(*CLASSED, "val/ant/x.jpg")
    assert "There is no folder" in refusal(load_data, DataOptions(name="mine", folder=below))
    lists = {"name": "mine", "folder": str(there), "train_list": below}
    assert "cannot be read" in refusal(load_data, DataOptions(**lists))


def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch):
    """Of our own finding: permissions, whatever the form of the data set."""
    place = folder("t10k-images-idx3-ubyte", "train-images-idx3-ubyte", "train-labels-idx1-ubyte")

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(place), "read_bytes", closed)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*permissions"):
        load_data(DataOptions(name="mnist", folder=str(place)))

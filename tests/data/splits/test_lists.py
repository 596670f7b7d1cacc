"""Split lists, whole and broken, and their join to sources by path and by file name."""

import os
import re

import numpy as np
import pytest

from spa_jax.data.dataset import LabelledImages
from spa_jax.data.splits.lists import positions_of, read_split_list
from tests.refusals import refusal

# As an image folder names its images, class by class; labels 0, 0, 1, 2, 2.
PATHS = [
    "train/n01440764/n01440764_18.JPEG",
    "train/n01440764/n01440764_762.JPEG",
    "train/n01443537/n01443537_5.JPEG",
    "train/n01484850/n01484850_1.JPEG",
    "train/n01484850/n01484850_16.JPEG",
]
LABELS = [0, 0, 1, 2, 2]


def examples_named(names, labels=LABELS):
    """Examples of which only names and labels matter."""
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    names = None if names is None else np.array(names)
    return LabelledImages(images, np.array(labels, np.int32), names)


def file_names(paths):
    return [path.split("/")[-1] for path in paths]


def write(folder, *lines, end="\n"):
    path = folder / "list.txt"
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def lines_of(places):
    return [f"{PATHS[place]} {LABELS[place]}" for place in places]


@pytest.mark.parametrize("end", ["\n", "", "\n\n \n"], ids=["newline", "none", "empty lines"])
def test_a_list_gives_paths_and_labels_in_its_order(tmp_path, end):
    names, labels = read_split_list(write(tmp_path, *lines_of([3, 0, 2]), end=end))
    assert names.tolist() == [PATHS[3], PATHS[0], PATHS[2]]
    np.testing.assert_array_equal(labels, np.array([2, 0, 1], np.int32), strict=True)


def test_empty_lines_windows_newlines_tabs_and_spaces_in_a_path_are_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg 0\r\n\r\nmy dir/b c.jpg 12\r\nd.jpg\t7\r\ne.jpg   001 \r\n")
    names, labels = read_split_list(path)
    assert names.tolist() == ["a.jpg", "my dir/b c.jpg", "d.jpg", "e.jpg"]
    assert labels.tolist() == [0, 12, 7, 1]


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg x", "a.jpg -1", "a.jpg 1.0", "7", "a.jpg 1,"])
def test_a_broken_line_is_named_with_its_number(tmp_path, line):
    path = write(tmp_path, "a.jpg 0", "", line, "b.jpg 1")
    message = refusal(read_split_list, path)
    assert str(path) in message
    assert "`path label`" in message
    assert re.search(r"\b1 are not\b.*\bline 3\b", message), message


def test_of_many_broken_lines_the_number_and_the_first_are_named(tmp_path):
    message = refusal(read_split_list, write(tmp_path, "a 0", "b", "c 1", "d x", "e"))
    assert re.search(r"\b3 are not\b.*\bline 2\b", message), message


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_an_empty_list_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_text(content)
    message = refusal(read_split_list, path)
    assert str(path) in message
    assert "empty" in message


def test_a_missing_list_a_folder_a_pipe_and_bytes_that_are_no_text_are_named(tmp_path):
    binary, pipe = tmp_path / "image.jpg", tmp_path / "pipe.txt"
    binary.write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(pipe)
    for path in (tmp_path / "none.txt", tmp_path, binary, pipe):
        message = refusal(read_split_list, path)
        assert f"The split list {path} cannot be read" in message
        assert "save it as UTF-8" in message


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [4, 0, 2], [1, 3, 2]])
def test_a_list_is_joined_to_an_image_folder_by_path(tmp_path, places):
    path = write(tmp_path, *lines_of(places))
    found = positions_of(path, examples_named(PATHS), "tiny training set")
    assert found.tolist() == places


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [4, 0, 2], [1, 3, 2]])
def test_a_list_is_joined_to_file_names_without_the_folders(tmp_path, places):
    path = write(tmp_path, *lines_of(places))
    found = positions_of(path, examples_named(file_names(PATHS)), "tiny training set")
    assert found.tolist() == places


def test_a_list_of_bare_file_names_is_joined_to_file_names(tmp_path):
    path = write(tmp_path, "n01484850_16.JPEG 2", "n01440764_18.JPEG 0")
    found = positions_of(path, examples_named(file_names(PATHS)), "tiny training set")
    assert found.tolist() == [4, 0]


def test_whole_paths_tell_images_of_the_same_file_name_apart(tmp_path):
    names = ["train/a/1.jpg", "train/b/1.jpg"]
    path = write(tmp_path, "train/b/1.jpg 1", "train/a/1.jpg 0")
    assert positions_of(path, examples_named(names, [0, 1]), "set").tolist() == [1, 0]


@pytest.mark.parametrize("known", [PATHS, file_names(PATHS)], ids=["paths", "file names"])
def test_images_that_are_not_there_are_counted_and_three_are_named(tmp_path, known):
    strange = [f"train/n01440764/n01440764_{number}.JPEG" for number in range(9000, 9005)]
    path = write(tmp_path, *lines_of([0]), *[f"{name} 0" for name in strange])
    message = refusal(positions_of, path, examples_named(known), "tiny training set")
    assert "5 of the 6 images" in message
    assert str(path) in message
    assert "tiny training set" in message
    assert [f"_{number}.JPEG" in message for number in range(9000, 9005)] == [True] * 3 + [
        False
    ] * 2
    assert "Complete the data" in message


def test_a_path_of_another_folder_is_not_found_by_its_file_name(tmp_path):
    path = write(tmp_path, "val/n01440764/n01440764_18.JPEG 0")
    message = refusal(positions_of, path, examples_named(PATHS), "tiny training set")
    assert "1 of the 1 images" in message
    assert "val/n01440764/n01440764_18.JPEG" in message


def test_a_source_without_names_is_refused_with_what_has_names(tmp_path):
    path = write(tmp_path, *lines_of([0]))
    message = refusal(positions_of, path, examples_named(None), "cifar10 training set")
    assert "cifar10 training set does not name its images" in message
    assert str(path) in message
    assert "imagenet2012" in message
    assert "image folder" in message


def test_images_listed_twice_are_counted(tmp_path):
    path = write(tmp_path, *lines_of([0, 1, 0, 2, 0]))
    message = refusal(positions_of, path, examples_named(PATHS), "tiny training set")
    assert f"{path} lists images more than once" in message


def test_names_that_a_source_has_twice_are_counted(tmp_path):
    path = write(tmp_path, "a.jpg 0")
    message = refusal(
        positions_of,
        path,
        examples_named(["a.jpg", "b.jpg", "a.jpg", "a.jpg", "b.jpg"]),
        "tiny set",
    )
    assert "3 images of the tiny set share their name" in message
    assert str(path) in message


@pytest.mark.parametrize("known", [PATHS, file_names(PATHS)], ids=["paths", "file names"])
def test_labels_that_differ_are_counted_and_three_are_shown_with_both(tmp_path, known):
    labels = [0, 5, 6, 7, 8]
    lines = [f"{name} {label}" for name, label in zip(PATHS, labels, strict=True)]
    path = write(tmp_path, *lines)
    message = refusal(positions_of, path, examples_named(known), "tiny training set")
    assert "4 labels in" in message
    assert str(path) in message
    shown = re.findall(r"(\w+\.JPEG) has (\d) in the list, (\d) there", message)
    expected = [(name, "567"[i], "012"[i]) for i, name in enumerate(file_names(PATHS)[1:4])]
    assert shown == expected
    assert "order of classes" in message

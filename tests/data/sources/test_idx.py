"""idx files, whole and broken, and long-tailed Fashion-MNIST read from them."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions
from spa_jax.data.sources.idx import read_idx, read_images_and_labels
from spa_jax.data.sources.opening import load_data
from tests.refusals import refusal

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
SAYS_WHAT_TO_DO = re.compile(r"(?i)\b(fetch|check|download|apt-get install|lower)\b")


def idx_bytes(array):
    """A uint8 array in the idx format."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_part(folder, part, images, labels, zipped=False):
    """Writes the two files of a part; returns nothing, as the names are known."""
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content, path = idx_bytes(np.asarray(array)), folder / f"{part}-{name}-ubyte"
        if zipped:
            content, path = gzip.compress(content), path.with_name(path.name + ".gz")
        path.write_bytes(content)


def tiny_part(per_class, seed):
    """10 * per_class images of 3x2 pixels, each unlike any other, in a shuffled label order."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), per_class))
    images = np.zeros((len(labels), 3, 2), np.uint8)
    images[:, 0, 0], images[:, 2, 1], images[:, 1, 1] = labels, np.arange(len(labels)), seed
    return images, labels


@pytest.fixture
def folder(tmp_path):
    """Four tiny files: 4 training and 2 test images a class."""
    write_part(tmp_path, "train", *tiny_part(4, seed=1))
    write_part(tmp_path, "t10k", *tiny_part(2, seed=2))
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (0, 3, 2), (1, 1, 1)])
def test_what_was_written_is_read_back(tmp_path, shape, zipped):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / ("values.gz" if zipped else "values")
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array, strict=True)


@pytest.mark.parametrize("zipped", [False, True])
def test_images_come_with_their_labels_and_a_channel(tmp_path, zipped):
    images, labels = tiny_part(2, seed=5)
    write_part(tmp_path, "train", images, labels, zipped)
    examples = read_images_and_labels(tmp_path, "train")
    np.testing.assert_array_equal(examples.images, images[..., None], strict=True)
    np.testing.assert_array_equal(examples.labels, labels.astype(np.int32), strict=True)


WHOLE = idx_bytes(np.arange(24, dtype=np.uint8).reshape(4, 3, 2))
BROKEN = {
    "empty": ("images", b""),
    "cut off within the magic number": ("images", WHOLE[:3]),
    "cut off within the header": ("images", WHOLE[:10]),
    "cut off after the header": ("images", WHOLE[:16]),
    "one byte short": ("images", WHOLE[:-1]),
    "one byte too long": ("images", WHOLE + b"\0"),
    "wrong magic number": ("images", b"\x01" + WHOLE[1:]),
    "type of 32-bit integers": ("images", WHOLE[:2] + b"\x0c" + WHOLE[3:]),
    "sizes whose product overflows": (
        "images",
        idx_bytes(np.zeros(0))[:3] + b"\4" + b"\0\1\0\0" * 4,
    ),
    "not gzip": ("images.gz", WHOLE),
    "gzip cut off": ("images.gz", gzip.compress(WHOLE)[:-9]),
    "gzip cut off in its header": ("images.gz", gzip.compress(WHOLE)[:5]),
    "gzip without its checksum": ("images.gz", gzip.compress(WHOLE)[:-4]),
    "gzip of a truncated file": ("images.gz", gzip.compress(WHOLE[:-1])),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_what_to_do(tmp_path, case):
    name, content = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(read_idx, path)
    assert str(path) in message
    assert SAYS_WHAT_TO_DO.search(message), message


def test_a_gzip_file_with_a_flipped_bit_is_named_with_what_to_do(tmp_path):
    content = bytearray(gzip.compress(idx_bytes(np.zeros((50, 9, 9)))))
    content[len(content) // 2] ^= 0x10
    (tmp_path / "images.gz").write_bytes(content)
    message = refusal(read_idx, tmp_path / "images.gz")
    assert str(tmp_path / "images.gz") in message
    assert SAYS_WHAT_TO_DO.search(message), message


def load(folder, n_max=4, factor=4.0, split_seed=0):
    return load_data(
        DataOptions(
            name="fashion_mnist",
            folder=str(folder),
            n_max=n_max,
            imbalance_factor=factor,
            split_seed=split_seed,
        )
    )


def test_a_missing_folder_is_named_with_how_to_get_the_files(tmp_path):
    message = refusal(load, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "spa_jax.data.prepare fashion_mnist" in message
    assert "config.data.folder" in message


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("kind", ["images-idx3-ubyte", "labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_how_to_get_it(folder, part, kind):
    (folder / f"{part}-{kind}").unlink()
    message = refusal(load, folder)
    assert str(folder) in message
    assert f"{part}-{kind}" in message
    assert "apt-get install dataset-fashion-mnist" in message


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("case", ["one label short", "one image short", "images flat"])
def test_files_that_do_not_belong_together_are_named_with_what_to_do(folder, part, case):
    images, labels = tiny_part(4, seed=1)
    change = {
        "one label short": (images, labels[:-1]),
        "one image short": (images[:-1], labels),
        "images flat": (images.reshape(len(images), -1), labels),
    }
    write_part(folder, part, *change[case])
    message = refusal(load, folder)
    assert str(folder) in message
    assert part in message
    assert SAYS_WHAT_TO_DO.search(message), message


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("label", [10, 255])
def test_a_label_out_of_range_is_refused_with_its_file(folder, part, label):
    """In the training file too, where the selection alone would pass over such images."""
    images, labels = tiny_part(4, seed=1)
    labels = np.append(labels, label)
    write_part(folder, part, np.concatenate([images, images[:1]]), labels)
    message = refusal(load, folder)
    assert f"{part}-labels-idx1-ubyte" in message
    assert "[0, 10)" in message
    assert str(label) in message


@pytest.mark.parametrize("zipped", [False, True])
def test_a_long_tailed_load_chooses_the_profile_and_leaves_the_test_set_alone(tmp_path, zipped):
    train_images, train_labels = tiny_part(4, seed=1)
    test_images, test_labels = tiny_part(2, seed=2)
    write_part(tmp_path, "train", train_images, train_labels, zipped)
    write_part(tmp_path, "t10k", test_images, test_labels, zipped)
    data = load(tmp_path)
    counts = (4, 3, 2, 2, 2, 1, 1, 1, 1, 1)  # 4 * 4^(-c/9), rounded down
    assert data.class_counts == counts
    assert (data.name, data.num_classes, len(data.class_names)) == ("fashion_mnist", 10, 10)
    assert data.train.images.shape == (18, 3, 2, 1)
    which = data.train.images[:, 2, 1, 0]  # the place in the file, as written there
    assert len(set(which.tolist())) == 18
    np.testing.assert_array_equal(data.train.images[..., 0], train_images[which])
    np.testing.assert_array_equal(data.train.labels, train_labels[which])
    np.testing.assert_array_equal(data.test.images[..., 0], test_images)
    np.testing.assert_array_equal(data.test.labels, test_labels)
    assert data.split["protocol"] == "ldam"
    assert data.split["imbalance_factor"] == 4.0
    assert data.split["seed"] == 0
    assert data.split["class_counts"] == list(counts)


def test_the_split_checksum_tells_seeds_and_factors_apart_and_nothing_else(folder):
    settings = [{}, {"split_seed": 1}, {"factor": 2.0}, {"n_max": 3, "factor": 3.0}]
    checksums = [load(folder, **setting).split["checksum"] for setting in settings]
    assert len(set(checksums)) == len(settings)
    assert load(folder).split["checksum"] == checksums[0]


def test_more_images_than_a_class_has_are_refused_with_both_numbers(folder):
    message = refusal(load, folder, n_max=5)
    assert "fewer images than the split asks for" in message
    assert "class 0 has 4 of 5" in message
    assert SAYS_WHAT_TO_DO.search(message), message


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(),
    reason=f"Fashion-MNIST is not in {DEBIAN_FOLDER} (apt-get install dataset-fashion-mnist)",
)
def test_fashion_mnist_has_14886_long_tailed_training_images_and_its_whole_test_set():
    data = load(DEBIAN_FOLDER, n_max=6000, factor=100.0)
    assert data.train.images.shape == (14_886, 28, 28, 1)
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert data.class_counts[0] == 6000
    assert data.class_counts[-1] == 60
    checksum = "95546136d85afd81ffb47a87407099f08bad8313ade42e6fc39f67431cf34f89"
    assert data.split["checksum"] == checksum  # another choice of images is another data set
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.full(10, 1000))

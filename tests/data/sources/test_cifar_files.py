"""The official CIFAR files, in both forms: tiny ones always, the real data where it is."""

import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from spa_jax.data.sources import cifar_files
from spa_jax.data.sources.cifar_files import is_cifar_folder, read_cifar
from tests.data.tiny import (
    BATCHES,
    Python2Pickle,
    cifar_meta,
    cifar_pickle,
    cifar_record,
    random_images,
    write_cifar,
)
from tests.refusals import refusal

NAMES = {"cifar10": [f"kind_{c}" for c in range(10)], "cifar100": [f"sort_{c}" for c in range(100)]}
SUBFOLDERS = {
    ("cifar10", True): "cifar-10-batches-py",
    ("cifar10", False): "cifar-10-batches-bin",
    ("cifar100", True): "cifar-100-python",
    ("cifar100", False): "cifar-100-binary",
}
FILES = {
    ("cifar10", True): (*BATCHES, "test_batch", "batches.meta"),
    ("cifar10", False): (*(f"{b}.bin" for b in BATCHES), "test_batch.bin", "batches.meta.txt"),
    ("cifar100", True): ("train", "test", "meta"),
    ("cifar100", False): ("train.bin", "test.bin", "fine_label_names.txt"),
}
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SAYS_WHAT_TO_DO = re.compile(r"(?i)\b(fetch|check)\b")
every_form = pytest.mark.parametrize(("name", "pickled"), SUBFOLDERS)


def tiny(name, seed=0):
    """(images, labels) of 13 training and 4 test examples, the last class among them."""
    rng = np.random.default_rng(seed)
    classes = len(NAMES[name])
    train = random_images(13, seed), np.append(rng.integers(0, classes, 12), classes - 1)
    return train, (random_images(4, seed + 1), rng.integers(0, classes, 4))


def write(folder, name, pickled, seed=0):
    train, test = tiny(name, seed)
    write_cifar(folder, name, pickled, train, test, NAMES[name])
    return train, test


def check_same(source, name, train, test, class_names):
    for found, (images, labels) in ((source.train, train), (source.test, test)):
        np.testing.assert_array_equal(found.images, images, strict=True)
        np.testing.assert_array_equal(found.labels, labels.astype(np.int32), strict=True)
    assert source.class_names == tuple(class_names)
    assert (source.name, source.order) == (name, "official")


@every_form
@pytest.mark.parametrize("inside", [False, True])
def test_what_was_written_is_read_back_from_the_folder_and_from_its_subfolder(
    tmp_path, name, pickled, inside
):
    place = tmp_path / SUBFOLDERS[name, pickled] if inside else tmp_path
    train, test = write(place, name, pickled)
    source = read_cifar(name, tmp_path, verify=False)
    check_same(source, name, train, test, NAMES[name])
    assert np.asarray(source.train.images).flags.c_contiguous


@every_form
def test_any_official_file_makes_a_cifar_folder(tmp_path, name, pickled):
    assert not is_cifar_folder(tmp_path)
    for file in FILES[name, pickled]:
        for place in (tmp_path / file, tmp_path / file / SUBFOLDERS[name, pickled]):
            place.mkdir(parents=True)
            (place / file).write_bytes(b"")
            folder = place.parent if place.name == SUBFOLDERS[name, pickled] else place
            assert is_cifar_folder(folder)


def test_a_folder_with_other_things_is_no_cifar_folder(tmp_path):
    for folder in ("train", "test", "meta", "cifar-10-batches-py"):
        (tmp_path / folder).mkdir()  # an image folder has `train` too, as a folder
    (tmp_path / "train.npz").write_bytes(b"")
    assert not is_cifar_folder(tmp_path)
    assert not is_cifar_folder(tmp_path / "nowhere")


def test_another_name_is_refused(tmp_path):
    assert "svhn" in refusal(read_cifar, "svhn", tmp_path)


@every_form
def test_each_missing_file_is_named(tmp_path, name, pickled):
    write(tmp_path, name, pickled)
    for file in FILES[name, pickled]:
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).unlink()
        message = refusal(read_cifar, name, tmp_path, verify=False)
        assert f"{tmp_path} lacks {file} of the {len(FILES[name, pickled])} " in message
        assert PAGE in message
        (tmp_path / file).write_bytes(content)


def test_several_missing_files_are_all_named(tmp_path):
    write(tmp_path, "cifar10", True)
    for file in ("data_batch_2", "batches.meta"):
        (tmp_path / file).unlink()
    assert "lacks data_batch_2, batches.meta of" in refusal(read_cifar, "cifar10", tmp_path)


def test_a_folder_without_files_says_what_was_looked_for(tmp_path):
    message = refusal(read_cifar, "cifar10", tmp_path)
    for part in (str(tmp_path), "data_batch_1", "data_batch_1.bin", PAGE, "config.data.folder"):
        assert part in message
    assert "cifar100" not in message


@every_form
def test_files_of_the_other_data_set_are_pointed_out(tmp_path, name, pickled):
    write(tmp_path, name, pickled)
    other = "cifar10" if name == "cifar100" else "cifar100"
    message = refusal(read_cifar, other, tmp_path)
    assert f"it holds files of {name}, so check config.data.name" in message


def test_a_complete_set_is_preferred_to_a_begun_one_and_pickles_to_binaries(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"the rest was not unpacked")
    binary, test = write(tmp_path / "cifar-10-batches-bin", "cifar10", False, seed=1)
    check_same(
        read_cifar("cifar10", tmp_path, verify=False), "cifar10", binary, test, NAMES["cifar10"]
    )
    pickles, test = write(tmp_path / "cifar-10-batches-py", "cifar10", True, seed=2)
    check_same(
        read_cifar("cifar10", tmp_path, verify=False), "cifar10", pickles, test, NAMES["cifar10"]
    )


# Binary files


@pytest.mark.parametrize("case", ["empty", "one byte short", "one byte long", "other data set"])
@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "data_batch_4.bin"), ("cifar100", "test.bin")]
)
def test_a_binary_file_of_a_wrong_size_is_named_with_both_sizes(tmp_path, name, file, case):
    write(tmp_path, name, False)
    content = (tmp_path / file).read_bytes()
    record = 3073 if name == "cifar10" else 3074
    changed = {
        "empty": b"",
        "one byte short": content[:-1],
        "one byte long": content + b"\0",
        "other data set": content[:1] * (6147 - record) * 4,
    }[case]
    (tmp_path / file).write_bytes(changed)
    message = refusal(read_cifar, name, tmp_path, verify=False)
    assert str(tmp_path / file) in message
    assert f"{len(changed)} bytes" in message
    assert str(record) in message
    assert SAYS_WHAT_TO_DO.search(message)


@pytest.mark.parametrize(
    ("name", "file", "labels", "says"),
    [
        ("cifar10", "data_batch_3.bin", (10,), "[0, 10)"),
        ("cifar10", "test_batch.bin", (255,), "[0, 10)"),
        ("cifar100", "train.bin", (0, 100), "[0, 100)"),
        ("cifar100", "test.bin", (20, 7), "[0, 20)"),
    ],
)
def test_a_binary_label_out_of_range_is_named(tmp_path, name, file, labels, says):
    write(tmp_path, name, False)
    with (tmp_path / file).open("ab") as opened:
        opened.write(cifar_record(random_images(1, 9)[0], *labels))
    message = refusal(read_cifar, name, tmp_path, verify=False)
    assert str(tmp_path / file) in message
    assert says in message
    assert str(max(labels)) in message


def test_the_largest_labels_are_admitted(tmp_path):
    write(tmp_path, "cifar100", False)
    (tmp_path / "test.bin").write_bytes(cifar_record(random_images(1, 9)[0], 19, 99))
    assert read_cifar("cifar100", tmp_path, verify=False).test.labels.tolist() == [99]


def test_class_names_of_another_number_are_refused(tmp_path):
    for name, pickled in SUBFOLDERS:
        folder = tmp_path / SUBFOLDERS[name, pickled]
        train, test = tiny(name)
        write_cifar(folder, name, pickled, train, test, NAMES[name][:-1])
        message = refusal(read_cifar, name, folder, verify=False)
        assert str(folder / FILES[name, pickled][-1]) in message
        assert f"names {len(NAMES[name]) - 1} classes, expected {len(NAMES[name])}" in message


# Sums


def set_sums(monkeypatch, folder, name, pickled, train, test):
    """Makes tiny files the official ones."""
    if pickled:
        sums = {
            file: hashlib.md5((folder / file).read_bytes()).hexdigest()
            for file in FILES[name, True]
        }
        monkeypatch.setattr(cifar_files, "PICKLED_MD5", sums)
        return
    assert name == "cifar100"
    parts = {"train.bin": train, "test.bin": test}
    labels = {f: hashlib.sha256(bytes(y.tolist())).hexdigest() for f, (_, y) in parts.items()}
    images = {
        f: hashlib.sha256(np.moveaxis(x, 3, 1).tobytes()).hexdigest() for f, (x, _) in parts.items()
    }
    monkeypatch.setattr(cifar_files, "LABELS_SHA256", labels)
    monkeypatch.setattr(cifar_files, "IMAGES_SHA256", images)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_each_changed_pickle_is_refused_with_both_sums(tmp_path, monkeypatch, name):
    train, test = write(tmp_path, name, True)
    set_sums(monkeypatch, tmp_path, name, True, train, test)
    check_same(read_cifar(name, tmp_path), name, train, test, NAMES[name])
    for file in FILES[name, True]:
        content = (tmp_path / file).read_bytes()
        changed = content[:-1] + b"0."  # still a pickle, of one instruction more
        (tmp_path / file).write_bytes(changed)
        message = refusal(read_cifar, name, tmp_path)
        for part in (tmp_path / file, hashlib.md5(content).hexdigest(), PAGE):
            assert str(part) in message
        assert f"got {hashlib.md5(changed).hexdigest()}" in message
        assert "config.data.verify=False" in message
        (tmp_path / file).write_bytes(content)


@pytest.mark.parametrize("file", ["train.bin", "test.bin"])
@pytest.mark.parametrize(("byte", "what"), [(1, "labels"), (2, "images"), (3073, "images")])
def test_each_changed_binary_is_refused_with_both_sums(tmp_path, monkeypatch, file, byte, what):
    train, test = write(tmp_path, "cifar100", False)
    set_sums(monkeypatch, tmp_path, "cifar100", False, train, test)
    check_same(read_cifar("cifar100", tmp_path), "cifar100", train, test, NAMES["cifar100"])
    content = bytearray((tmp_path / file).read_bytes())
    content[byte] ^= 1
    (tmp_path / file).write_bytes(content)
    message = refusal(read_cifar, "cifar100", tmp_path)
    for part in (tmp_path / file, f"its {what} should be", PAGE, "config.data.verify=False"):
        assert str(part) in message
    sums = {"labels": cifar_files.LABELS_SHA256, "images": cifar_files.IMAGES_SHA256}[what]
    assert sums[file] in message
    assert len(set(re.findall(r"\b[0-9a-f]{64}\b", message))) == 2
    read_cifar("cifar100", tmp_path, verify=False)


@every_form
def test_unofficial_files_are_refused_unless_told_otherwise(tmp_path, name, pickled):
    write(tmp_path, name, pickled)
    message = refusal(read_cifar, name, tmp_path)
    assert str(tmp_path / FILES[name, pickled][0]) in message
    assert "config.data.verify=False" in message


def test_the_official_class_names_of_cifar10_have_the_published_sum():
    """The maker above writes the official file byte for byte, so tiny pickles are like it."""
    found = hashlib.md5(cifar_meta(CIFAR10_CLASSES)).hexdigest()
    assert found == "5ff9c542aee3614f3951f8cda6e48888" == cifar_files.PICKLED_MD5["batches.meta"]


# Pickles


@pytest.fixture
def folder(tmp_path):
    """Tiny pickled CIFAR-10; the tests below replace its third batch."""
    write(tmp_path, "cifar10", True)
    return tmp_path


def read_third(folder, content):
    (folder / "data_batch_3").write_bytes(content)
    return read_cifar("cifar10", folder, verify=False)


def refuse_third(folder, content):
    (folder / "data_batch_3").write_bytes(content)
    message = refusal(read_cifar, "cifar10", folder, verify=False)
    assert str(folder / "data_batch_3") in message
    assert SAYS_WHAT_TO_DO.search(message), message
    return message


def batch(**changes):
    """The entries of a pickled file, bytes keys."""
    entries = {"data": random_images(3, 5, (3072,)), "labels": [7] * 3, **changes}
    return {key.encode(): value for key, value in entries.items() if value is not None}


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("spelling", ["numpy._core", "numpy.core"])
def test_pickles_of_every_protocol_and_numpy_are_read(folder, protocol, spelling):
    content = pickle.dumps(batch(extra=[(1.5, None), {b"a": True}]), protocol)
    if protocol < 4:  # from 4 on the pickle states the length of names
        content = re.sub(rb"numpy\._?core\.multiarray", f"{spelling}.multiarray".encode(), content)
    source = read_third(folder, content)
    images = np.asarray(source.train.images)[6:9]  # 13 examples in batches of 3, 3, 3, 2, 2
    expected = random_images(3, 5, (3072,)).reshape(3, 3, 32, 32)
    np.testing.assert_array_equal(images, np.moveaxis(expected, 1, 3))
    assert source.train.labels[6:9].tolist() == [7, 7, 7]


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("entry", ["data", "labels", "extra"])
def test_a_pickle_that_runs_code_is_refused_before_it_does(folder, protocol, entry):
    content = pickle.dumps(batch(**{entry: Harmful(folder / "ran")}), protocol)
    message = refuse_third(folder, content)
    if protocol < 5 or entry == "data":  # else an array of that protocol is refused first
        assert f"asks for {os.mkdir.__module__}.mkdir" in message
    assert not (folder / "ran").exists()
    pickle.loads(content)
    assert (folder / "ran").exists()  # so it is harmful to a reader that trusts it


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "numpy.load", "numpy.core.multiarray.scalar"]
)
def test_a_global_that_cifar_does_not_need_is_refused_by_name(folder, name):
    module, _, attribute = name.rpartition(".")
    content = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    assert f"asks for {name}," in refuse_third(folder, content)


def test_the_class_names_are_read_with_the_same_care(folder):
    (folder / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": Harmful(folder / "ran")}, 2)
    )
    message = refusal(read_cifar, "cifar10", folder, verify=False)
    assert str(folder / "batches.meta") in message
    assert "mkdir" in message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("entry", ["data", "labels", "extra"])
@pytest.mark.parametrize("protocol", range(5))
def test_an_array_of_objects_is_refused(folder, entry, protocol):
    objects = np.array([1, "two", None], dtype=object)
    assert "dtype object" in refuse_third(folder, pickle.dumps(batch(**{entry: objects}), protocol))


def test_an_array_of_records_is_refused(folder):
    records = np.zeros(3, [("a", "u1"), ("b", "u1")])
    assert "dtype" in refuse_third(folder, pickle.dumps(batch(extra=records), 2))


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_array_has_its_values_whatever_its_byte_order(folder, order):
    """And NumPy's own dtypes keep theirs: a pickle's instruction sets that of a dtype."""
    array = np.arange(5).astype(f"{order}u2")
    content = pickle.dumps(array, 2)
    found = cifar_files._PlainUnpickler(folder / "data_batch_3", content).load()
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert np.dtype("u2").isnative
    assert "data of shape (5,)" in refuse_third(folder, pickle.dumps(batch(data=array), 2))


@pytest.mark.parametrize("codec", ["rot13", "utf-8", "hex"])
def test_another_codec_is_refused(folder, codec):
    content = b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX" + bytes([len(codec), 0, 0, 0])
    assert codec in refuse_third(folder, content + codec.encode() + b"\x86R.")


def test_a_pickle_that_is_cut_off_anywhere_is_named(folder):
    content = cifar_pickle(random_images(2, 1), [1, 2])
    for length in [*range(0, 400, 7), *range(400, len(content), 701), len(content) - 1]:
        assert str(folder / "data_batch_3") in refuse_third(folder, content[:length])


WRONG_ENTRIES = {
    "no data": ({"data": None}, "no dictionary with data"),
    "no labels": ({"labels": None}, "no dictionary with labels"),
    "data of floats": (
        {"data": np.zeros((3, 3072))},
        "float64 of shape (3, 3, 32, 32); expected uint8",
    ),
    "data of 16 bits": ({"data": np.zeros((3, 3072), np.uint16)}, "are uint16"),
    "data in a list": ({"data": [0] * 3072}, "data of list"),
    "images of another size": ({"data": np.zeros((3, 784), np.uint8)}, "(3, 784)"),
    "images in 4-D": ({"data": np.zeros((3, 3, 32, 32), np.uint8)}, "(3, 3, 32, 32)"),
    "one flat image": ({"data": np.zeros(3072, np.uint8)}, "(3072,)"),
    "no image": ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "(0, 3072)"),
    "a label short": ({"labels": [1, 2]}, "shape (2,); expected integers of shape (3,)"),
    "a label too many": ({"labels": [1, 2, 3, 4]}, "shape (4,); expected integers of shape (3,)"),
    "a label too large": ({"labels": [0, 10, 1]}, "[0, 10)"),
    "a huge label": ({"labels": [0, 2**70, 1]}, str(2**70)),
    "a negative label": ({"labels": [0, -1, 1]}, "from -1 to 1"),
    "labels of floats": ({"labels": [0.0, 1.0, 2.0]}, "no list of integers"),
    "labels of bools": ({"labels": [True, False, True]}, "no list of integers"),
    "nested labels": ({"labels": [[0], [1], [2]]}, "no list of integers"),
    "labels in a string": ({"labels": b"abc"}, "no list of integers"),
}


@pytest.mark.parametrize("case", WRONG_ENTRIES)
def test_wrong_entries_are_refused(folder, case):
    changes, says = WRONG_ENTRIES[case]
    assert says in refuse_third(folder, pickle.dumps(batch(**changes), 4))


@pytest.mark.parametrize("value", [[1, 2], b"data labels", None, 3])
def test_a_pickle_of_something_else_is_refused(folder, value):
    message = refuse_third(folder, Python2Pickle(value).content)
    assert "no dictionary with data and labels" in message


@pytest.mark.parametrize("names", [b"a b c", [1] * 10, [b"a"] * 9 + ["text"], None])
def test_class_names_that_are_no_list_of_names_are_refused(folder, names):
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 4))
    message = refusal(read_cifar, "cifar10", folder, verify=False)
    assert str(folder / "batches.meta") in message
    assert "expected 10" in message


# The real data

REAL = os.environ.get("SPA_JAX_CIFAR")
needs_real_data = pytest.mark.skipif(
    not REAL, reason="SPA_JAX_CIFAR names no folder with cifar10 and cifar100 as .npz files"
)


def real(name):
    """((images, labels), (images, labels)) in official order."""
    for part in ("train", "test"):
        with np.load(Path(REAL or "") / name / f"{part}.npz") as arrays:
            yield arrays["image"], arrays["label"]


@pytest.fixture
def large_folder(tmp_path):
    """Emptied at once, as the real files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@needs_real_data
def test_binary_cifar100_is_read_and_verified(large_folder):
    train, test = real("cifar100")
    write_cifar(large_folder, "cifar100", False, train, test, NAMES["cifar100"])
    check_same(read_cifar("cifar100", large_folder), "cifar100", train, test, NAMES["cifar100"])
    with (large_folder / "train.bin").open("r+b") as opened:
        first, second = opened.read(3074), opened.read(3074)
        opened.seek(0)
        opened.write(second + first)
    message = refusal(read_cifar, "cifar100", large_folder)
    assert f"{large_folder / 'train.bin'} is not the official file" in message
    assert "its labels" in message


@needs_real_data
def test_pickled_cifar100_is_read_and_its_unofficial_bytes_are_noticed(large_folder):
    train, test = real("cifar100")
    write_cifar(large_folder, "cifar100", True, train, test, NAMES["cifar100"])
    source = read_cifar("cifar100", large_folder, verify=False)
    check_same(source, "cifar100", train, test, NAMES["cifar100"])
    message = refusal(read_cifar, "cifar100", large_folder)  # these file names are not the official
    assert "16019d7e3df5f24257cddd939b257f8d" in message


@needs_real_data
def test_the_labels_of_binary_cifar10_are_verified(large_folder):
    train, test = real("cifar10")
    write_cifar(large_folder, "cifar10", False, train, test, CIFAR10_CLASSES)
    check_same(read_cifar("cifar10", large_folder), "cifar10", train, test, CIFAR10_CLASSES)
    (large_folder / "data_batch_1.bin").rename(large_folder / "kept")
    (large_folder / "data_batch_2.bin").rename(large_folder / "data_batch_1.bin")
    (large_folder / "kept").rename(large_folder / "data_batch_2.bin")
    message = refusal(read_cifar, "cifar10", large_folder)
    assert f"{large_folder / 'data_batch_1.bin'} is not the official file" in message

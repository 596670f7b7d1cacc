"""`train.npz` and `test.npz`, whole and broken."""

import zipfile

import numpy as np
import pytest

from spa_jax.data.data_options import DataOptions, SplitOptions
from spa_jax.data.sources.npz import read_npz
from spa_jax.data.sources.opening import SOURCES
from spa_jax.data.splits.splitting import make_split
from tests.data.tiny import random_images
from tests.refusals import refusal

LABELS = np.array([2, 0, 1, 2, 2, 0])


def arrays(part="train", **changes):
    """Six training or two test images of 5x4 pixels; a change of None leaves an array out."""
    whole = {
        "train": {"image": random_images(6, 1, (5, 4, 3)), "label": LABELS},
        "test": {"image": random_images(2, 2, (5, 4, 3)), "label": np.array([1, 0])},
    }[part]
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def write(folder, part, **changes):
    np.savez(folder / f"{part}.npz", **arrays(part, **changes))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test")
    return tmp_path


def refuse(folder, part):
    """The refusal of what is wrong in one of the two files, which it names."""
    message = refusal(read_npz, "mine", folder)
    assert str(folder / f"{part}.npz") in message
    return message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16, ">i4"])
def test_what_was_written_is_read_back(tmp_path, save, dtype):
    for part in ("train", "test"):
        changed = arrays(part, label=arrays(part)["label"].astype(dtype))
        save(tmp_path / f"{part}.npz", **changed)
    source = read_npz("mine", tmp_path)
    for part, found in (("train", source.train), ("test", source.test)):
        np.testing.assert_array_equal(found.images, arrays(part)["image"], strict=True)
        expected = arrays(part)["label"].astype(np.int32)
        np.testing.assert_array_equal(found.labels, expected, strict=True)
        assert found.names is None
    assert (source.name, source.order) == ("mine", "official")
    assert source.class_names == ("0", "1", "2")


def test_grey_images_get_a_channel(tmp_path):
    for part in ("train", "test"):
        write(tmp_path, part, image=arrays(part)["image"][..., 0])
    source = read_npz("mine", tmp_path)
    for part, found in (("train", source.train), ("test", source.test)):
        expected = arrays(part)["image"][..., :1]
        np.testing.assert_array_equal(found.images, expected, strict=True)


@pytest.mark.parametrize("in_both", [False, True])
def test_class_names_are_those_of_the_training_file(folder, in_both):
    names = np.array(["ant", "bee", "cicada"])
    write(folder, "train", class_names=names)
    write(folder, "test", class_names=names if in_both else None)
    assert read_npz("mine", folder).class_names == ("ant", "bee", "cicada")


def test_other_arrays_are_left_alone(folder):
    write(folder, "train", extra=np.array([None], dtype=object))
    assert len(read_npz("mine", folder).train) == 6


def is_npz_folder(folder):
    return SOURCES["npz"].fits(DataOptions(), folder)


def test_either_file_makes_an_npz_folder(tmp_path):
    assert not is_npz_folder(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    (tmp_path / "val.npz").write_bytes(b"")
    assert not is_npz_folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / part).mkdir(parents=True)
        (tmp_path / part / f"{part}.npz").write_bytes(b"")
        assert is_npz_folder(tmp_path / part)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_file_is_named_with_how_to_write_it(folder, part):
    (folder / f"{part}.npz").unlink()
    assert "np.savez(path, image=images, label=labels)" in refuse(folder, part)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("key", ["image", "label"])
def test_a_missing_array_is_named_beside_those_that_are_there(folder, part, key):
    write(folder, part, **{key: None, "pixels": np.zeros(3)})
    message = refuse(folder, part)
    kept = "label" if key == "image" else "image"
    assert f"lacks `{key}`, it has {kept}, pixels" in message


def test_an_archive_of_nothing_lacks_both(folder):
    np.savez(folder / "test.npz")
    assert "lacks `image` and `label`, it has nothing" in refuse(folder, "test")


IMAGES = arrays()["image"]
WRONG = {
    "floats": ({"image": IMAGES / 255}, "float64 of shape (6, 5, 4, 3)"),
    "16 bits": ({"image": IMAGES.astype(np.uint16)}, "uint16"),
    "flat images": ({"image": IMAGES.reshape(6, -1)}, "(6, 60)"),
    "videos": ({"image": IMAGES[:, None]}, "(6, 1, 5, 4, 3)"),
    "no images": ({"image": IMAGES[:0], "label": LABELS[:0]}, "has no image"),
    "images without width": ({"image": IMAGES[:, :, :0]}, "(6, 5, 0, 3)"),
    "a label short": (
        {"label": LABELS[:-1]},
        "int64 of shape (5,); expected integers of shape (6,)",
    ),
    "a label too many": ({"label": np.append(LABELS, 0)}, "of shape (7,)"),
    "one-hot labels": ({"label": np.eye(3, dtype=int)[LABELS]}, "of shape (6, 3)"),
    "labels of floats": ({"label": LABELS.astype(np.float32)}, "float32"),
    "labels of strings": ({"label": LABELS.astype(str)}, "<U"),
    "labels of bools": ({"label": LABELS > 0}, "bool"),
    "a negative label": ({"label": LABELS - 1}, "from -1 to 1"),
    "a label beyond 32 bits": ({"label": LABELS + 2**32}, str(2**32)),
    "a label beyond 63 bits": ({"label": LABELS.astype("u8") + np.uint64(2**63)}, str(2**63 + 2)),
    "names of objects": ({"class_names": np.array(["a", "b", "c"], object)}, "dtype=object"),
    "names of bytes": ({"class_names": np.array([b"a", b"b", b"c"])}, "|S1 of shape (3,)"),
    "names of numbers": ({"class_names": np.arange(3)}, "int64 of shape (3,)"),
    "a single name": ({"class_names": np.array("abc")}, "of shape ()"),
    "no name": ({"class_names": np.array([], str)}, "of shape (0,)"),
    "images of objects": ({"image": IMAGES.astype(object)}, "dtype=object"),
    "labels of objects": ({"label": LABELS.astype(object)}, "dtype=object"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("part", ["train", "test"])
def test_wrong_arrays_are_refused_with_what_they_are(folder, part, case):
    changes, says = WRONG[case]
    np.savez(folder / f"{part}.npz", **arrays("train", **changes))
    assert says in refuse(folder, part)


def test_a_pickled_array_is_not_run(folder, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    np.savez(folder / "train.npz", image=IMAGES, label=np.array([Harmful()], object))
    refuse(folder, "train")
    assert not (tmp_path / "ran").exists()


def flipped(content):
    """With one bit turned within the images."""
    changed = bytearray(content)
    changed[content.index(IMAGES.tobytes()) + 10] ^= 4
    return bytes(changed)


BROKEN = {
    "empty": lambda content: b"",
    "text": lambda content: b"<html>not found</html>",
    "a pickle": lambda content: b"\x80\x04N.",
    "cut off at the end": lambda content: content[:-1],
    "cut off in the middle": lambda content: content[: len(content) // 2],
    "cut off at the start": lambda content: content[:20],
    "a turned bit": flipped,
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_what_to_do(folder, part, case):
    path = folder / f"{part}.npz"
    write(folder, part, image=IMAGES, label=LABELS)
    path.write_bytes(BROKEN[case](path.read_bytes()))
    assert "fetch or write it again" in refuse(folder, part)


def test_a_broken_compressed_stream_is_named_with_what_to_do(folder):
    path = folder / "train.npz"
    np.savez_compressed(path, image=np.zeros((6, 5, 4, 3), np.uint8), label=LABELS)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("image.npy").header_offset
    name_length, extra_length = content[offset + 26], content[offset + 28]
    content[offset + 30 + name_length + extra_length] |= 0b110  # deflate has no such block
    path.write_bytes(content)
    assert "fetch or write it again" in refuse(folder, "train")


def test_an_encrypted_archive_is_named_with_what_to_do(folder):
    path = folder / "train.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of members
    path.write_bytes(content)
    assert "encrypted" in refuse(folder, "train")


def headed(text):
    """An array's file of nothing but a header."""
    header = f"{text}\n".encode()
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize("member", ["image", "image.npy"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a JPEG, say",
        b"\x93NUMPY\x01\0v\0{'descr'",
        # Headers that are no literals of Python, or of more than any memory holds.
        headed("{'shape': (\x1c24,), }"),
        *(
            headed(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({size},)}}")
            for size in (10**16, 10**20)
        ),
    ],
)
def test_a_zip_archive_of_something_else_is_refused(folder, member, content):
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        archive.writestr(member, content)
        archive.writestr("label.npy", b"")
    assert "`image`" in refuse(folder, "train")


def test_a_single_array_under_the_name_of_an_archive_is_refused(folder):
    with (folder / "train.npz").open("wb") as opened:
        np.save(opened, IMAGES)
    assert "a single array" in refuse(folder, "train")


@pytest.mark.parametrize("shape", [(5, 3, 3), (4, 4, 3), (5, 4, 1), (5, 4)])
def test_test_images_of_another_shape_are_refused_with_both(folder, shape):
    write(folder, "test", image=random_images(2, 0, shape))
    message = refuse(folder, "test")
    assert str(folder / "train.npz") in message
    assert "(5, 4, 3)" in message
    assert str((*shape, 1)[:3]) in message


def test_a_test_label_that_no_training_image_has_is_refused(folder):
    write(folder, "test", label=np.array([0, 3]))
    message = refuse(folder, "test")
    assert "holds the label 3" in message
    assert "[0, 3)" in message


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_without_a_name_is_refused(folder, part):
    write(folder, "train", class_names=np.array(["ant", "bee", "cicada"]))
    changed = arrays(part)["label"].copy()
    changed[-1] = 3
    write(folder, part, label=changed, class_names=np.array(["ant", "bee", "cicada"]))
    message = refuse(folder, part)
    assert "holds the label 3" in message
    assert "[0, 3)" in message


def test_names_in_another_order_are_refused(folder):
    write(folder, "train", class_names=np.array(["ant", "bee", "cicada"]))
    write(folder, "test", class_names=np.array(["bee", "ant", "cicada"]))
    message = refuse(folder, "test")
    assert "bee, ant, cicada" in message
    assert "ant, bee, cicada" in message


def test_names_in_the_test_file_alone_must_be_the_labels(folder):
    write(folder, "test", class_names=np.array(["ant", "bee", "cicada"]))
    assert "ant, bee, cicada" in refuse(folder, "test")


@pytest.mark.parametrize("named", [False, True])
def test_a_class_without_a_training_image_is_named(folder, named):
    labels = np.array([0, 2, 2, 3, 0, 3])
    names = np.array(["ant", "bee", "cicada", "dor"]) if named else None
    write(folder, "train", label=labels, class_names=names)
    message = refusal(make_split, read_npz("mine", folder), SplitOptions(profile="natural"))
    assert str(folder / "train.npz") in message
    assert f"{'bee' if named else '1'} (1)" in message


@pytest.mark.parametrize("largest", [6, 2**31 - 1])
def test_labels_that_are_identifiers_are_refused_before_two_billion_classes_are_made(
    folder, largest
):
    write(folder, "train", label=np.array([0, 1, 2, 3, 4, largest]))
    message = refuse(folder, "train")
    assert f"labels up to {largest}" in message
    assert "number the classes" in message

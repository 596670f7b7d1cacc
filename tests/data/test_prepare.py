"""The preparation command: without TensorFlow, on prepared sets, and with TFDS's own builders."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from spa_jax.data import prepare
from spa_jax.data.dataset import LabelledImages, Source
from spa_jax.data.sources.tfds_source import read_tfds
from tests.data.tiny_tfds import (
    CIFAR10_CLASSES,
    encode,
    random_images,
    random_labels,
    tiny_cifar10,
    tiny_fashion_mnist,
    tiny_imagenet2012,
)
from tests.refusals import refusal

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not here (pip install 'spa_jax[prepare]')",
)


def run(capsys, *arguments):
    """Status, standard output and standard error of the command."""
    status = prepare.main(list(map(str, arguments)))
    return status, *capsys.readouterr()


def refused(capsys, *arguments):
    """The message of a command that has to stop with status 2 and, at the end, one paragraph."""
    status, _, error = run(capsys, *arguments)
    assert status == 2
    *progress, message = error.splitlines()
    assert message.startswith("error: ")
    assert "Traceback" not in progress
    return message


def sha256(array):
    return hashlib.sha256(np.asarray(array, np.uint8).tobytes()).hexdigest()


def checksums(train, test, *kinds):
    """The entry of `CHECKSUMS` for what was written."""
    return {
        f"{part} {kind}": sha256(getattr(written, kind))
        for part, written in (("train", train), ("test", test))
        for kind in kinds
    }


# --- prepared before ---------------------------------------------------------------------------


def test_a_prepared_set_is_read_back_and_described(tmp_path, capsys):
    tiny_fashion_mnist(tmp_path)
    status, out, error = run(capsys, "fashion_mnist", f"--data_dir={tmp_path}")
    assert (status, error) == (0, "")
    folder = tmp_path / "fashion_mnist" / "3.0.1"
    assert f"fashion_mnist was already prepared in {folder}" in out
    assert "60 images (28x28x1) to train on, 20 images (28x28x1) to test on" in out
    assert "10 classes, stored order" in out
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    assert f"6 files, {size:.1f} MB" in out
    assert f"python -m spa_jax.data.describe fashion_mnist --source={tmp_path}\n" in out


def test_a_set_of_encoded_images_gets_its_index(tmp_path, capsys):
    tiny_imagenet2012(tmp_path)
    status, out, _ = run(capsys, "imagenet2012", f"--data_dir={tmp_path}")
    assert status == 0
    assert "22 images (encoded) to train on, 8 images (encoded) to test on" in out
    for split in ("train", "validation"):
        index = tmp_path / "imagenet2012" / "5.1.0" / f"spa_jax-{split}.npz"
        assert index.is_file()
        assert str(index) in out


def test_several_sets_are_taken_in_turn_until_one_fails(tmp_path, capsys):
    tiny_fashion_mnist(tmp_path)
    names = ("fashion_mnist", "no_such_set", "imagenet2012")
    status, out, error = run(capsys, *names, f"--data_dir={tmp_path}")
    assert status == 2
    assert "fashion_mnist was already prepared" in out
    assert "no_such_set" in error
    assert "imagenet2012" not in error


def test_without_a_folder_the_next_command_names_none(tmp_path, capsys, monkeypatch):
    tiny_fashion_mnist(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    status, out, _ = run(capsys, "fashion_mnist")
    assert status == 0
    assert out.endswith("python -m spa_jax.data.describe fashion_mnist\n")


def test_labels_that_are_the_published_ones_pass(tmp_path, capsys, monkeypatch):
    written = tiny_cifar10(tmp_path)
    monkeypatch.setitem(prepare.CHECKSUMS, "cifar10", checksums(*written, "labels"))
    status, out, _ = run(capsys, "cifar10", f"--data_dir={tmp_path}")
    assert status == 0
    assert "official order" in out


@pytest.mark.parametrize("kind", ["labels", "images"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_other_labels_or_images_than_the_published_ones_are_refused(
    tmp_path, capsys, monkeypatch, part, kind
):
    written = dict(zip(("train", "test"), tiny_cifar10(tmp_path), strict=True))
    right = checksums(written["train"], written["test"], "labels", "images")
    wrong = right | {f"{part} {kind}": "0" * 64}
    monkeypatch.setitem(prepare.CHECKSUMS, "cifar10", wrong)
    error = refused(capsys, "cifar10", f"--data_dir={tmp_path}")
    assert f"The {part} {kind} of cifar10" in error
    assert str(tmp_path) in error
    assert sha256(getattr(written[part], kind)) in error
    assert "Remove the folder" in error


def test_a_random_cifar10_is_refused(tmp_path, capsys):
    tiny_cifar10(tmp_path)
    assert "train labels of cifar10" in refused(capsys, "cifar10", f"--data_dir={tmp_path}")


def test_a_prepared_set_that_is_broken_is_refused(tmp_path, capsys):
    tiny_fashion_mnist(tmp_path)
    gone = next(tmp_path.rglob("*-train.array_record*"))
    gone.unlink()
    assert gone.name in refused(capsys, "fashion_mnist", f"--data_dir={tmp_path}")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.skipif(
    "SPA_JAX_CIFAR" not in os.environ, reason="SPA_JAX_CIFAR (CIFAR in the official order) is unset"
)
def test_the_checksums_are_those_of_cifar_in_the_official_order(name, tmp_path):
    parts = []
    for part in ("train", "test"):
        with np.load(Path(os.environ["SPA_JAX_CIFAR"]) / name / f"{part}.npz") as arrays:
            parts.append(LabelledImages(arrays["image"], arrays["label"].astype(np.int32)))
    classes = tuple(map(str, range(int(parts[0].labels.max()) + 1)))
    prepare.check_content(Source(name, *parts, classes, "official"), tmp_path)
    swapped = np.concatenate([[1, 0], np.arange(2, len(parts[0]))])
    changed = Source(name, parts[0].take(swapped), parts[1], classes, "official")
    assert f"The train labels of {name}" in refusal(prepare.check_content, changed, tmp_path)


@pytest.mark.skipif("SPA_JAX_TFDS" not in os.environ, reason="SPA_JAX_TFDS is unset")
def test_the_whole_of_cifar10_passes(capsys):
    status, out, _ = run(capsys, "cifar10", f"--data_dir={os.environ['SPA_JAX_TFDS']}")
    assert status == 0
    assert "50,000 images (32x32x3) to train on, 10,000 images (32x32x3) to test on" in out


# --- not prepared, and no TensorFlow -----------------------------------------------------------


def test_without_tensorflow_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    error = refused(capsys, "cifar10", f"--data_dir={tmp_path}")
    assert "pip install 'spa_jax[prepare]'" in error
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_refused_before_tensorflow_is_asked_for(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "file").touch()
    for place, says in ((tmp_path / "file/below", "is a file"), ("gs://bucket/tfds", "bucket")):
        error = refused(capsys, "cifar10", f"--data_dir={place}")
        assert says in error
        assert "tensorflow" not in error


def test_an_unknown_name_is_refused_before_tensorflow_is_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    error = refused(capsys, "cifar11", f"--data_dir={tmp_path}")
    assert "cifar11" in error
    assert "tensorflow" not in error


def test_the_command_ends_with_status_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "spa_jax.data.prepare"]
    command += ["no_such_set", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["cifar10", "--folder=x"]])
def test_wrong_arguments_end_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(arguments)
    assert "usage: python -m spa_jax.data.prepare" in capsys.readouterr().err


# --- what TFDS raises --------------------------------------------------------------------------


def download_and_prepare(name, data_dir):
    builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
    prepare._download_and_prepare(builder, name)


def test_an_archive_with_the_wrong_checksum_is_named(tmp_path):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"cut off")
    message = refusal(download_and_prepare, "cifar10", tmp_path)
    assert str(archive) in message
    assert "wrong checksum" in message
    assert "cs.toronto.edu" in message
    assert "Remove that file" in message
    assert not (tmp_path / "cifar10" / "3.0.2").exists()


@pytest.mark.parametrize(
    "error", [OSError("no\nroute"), AssertionError("too old"), ValueError("?")]
)
def test_a_failed_download_says_which_archives_to_put_where(tmp_path, monkeypatch, error):
    builder_class = tfds.builder_cls("cifar100")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(builder_class, "_split_generators", fail)
    message = refusal(download_and_prepare, "cifar100", tmp_path)
    assert " ".join(str(error).split()) in message
    assert "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz" in message
    assert str(tmp_path / "downloads" / "manual") in message


# --- with TensorFlow ---------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("empty_folder", [False, True])
@pytest.mark.parametrize("name", ["imagenet2012", "imagenet_lt"])
def test_archives_to_fetch_by_hand_are_named_with_their_place(tmp_path, capsys, name, empty_folder):
    manual = tmp_path / "downloads" / "manual"
    if empty_folder:
        manual.mkdir(parents=True)
    error = refused(capsys, name, f"--data_dir={tmp_path}")
    assert "by hand" in error
    assert str(manual) in error
    assert "ILSVRC2012_img_train.tar" in error
    assert "ILSVRC2012_img_val.tar" in error


@needs_tensorflow
def test_other_versions_and_other_kinds_of_data_are_refused(tmp_path, capsys):
    assert "1.0.0" in refused(capsys, "cifar10:1.0.0", f"--data_dir={tmp_path}")
    error = refused(capsys, "ag_news_subset", f"--data_dir={tmp_path}")
    assert "image classification" in error
    assert not list(tmp_path.iterdir())


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def write_cifar_archive(path, train, test):
    """An archive of the form of cifar-10-binary.tar.gz."""
    folder = "cifar-10-batches-bin"
    # Batch after batch, so that the official order is that of the training set.
    bounds = np.linspace(0, len(train[1]), 6).astype(int)
    pieces = {
        f"data_batch_{n + 1}.bin": (train, slice(bounds[n], bounds[n + 1])) for n in range(5)
    } | {"test_batch.bin": (test, slice(None))}
    with tarfile.open(path, "w:gz") as archive:
        for file, ((images, labels), part) in pieces.items():
            rows = images[part].transpose(0, 3, 1, 2).reshape(len(labels[part]), -1)
            content = np.concatenate([labels[part, None].astype(np.uint8), rows], axis=1)
            add(archive, f"{folder}/{file}", content.tobytes())
        add(archive, f"{folder}/batches.meta.txt", "\n".join(CIFAR10_CLASSES).encode() + b"\n\n")


@needs_tensorflow
def test_cifar10_is_prepared_from_its_archive(tmp_path, capsys, monkeypatch):
    parts = [
        (random_images(10 * each, (32, 32, 3), seed), random_labels((each,) * 10, seed))
        for seed, each in enumerate((6, 2))
    ]
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    write_cifar_archive(archive, *parts)
    urls = tfds.builder_cls("cifar10").url_infos
    (url,) = urls
    monkeypatch.setitem(urls, url, compute_url_info(archive))
    labels = {f"{part} labels": sha256(parts[n][1]) for n, part in enumerate(("train", "test"))}
    monkeypatch.setitem(prepare.CHECKSUMS, "cifar10", labels)
    status, out, _ = run(capsys, "cifar10", f"--data_dir={tmp_path}")
    assert status == 0
    assert f"cifar10 is prepared in {tmp_path / 'cifar10' / '3.0.2'}" in out
    source = read_tfds("cifar10", str(tmp_path))
    assert (source.order, source.class_names) == ("official", CIFAR10_CLASSES)
    for found, (images, expected) in zip((source.train, source.test), parts, strict=True):
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, expected)


@needs_tensorflow
def test_imagenet2012_is_prepared_from_its_archives(tmp_path, capsys):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    builder = tfds.builder("imagenet2012", data_dir=str(tmp_path))
    wnids = builder.info.features["label"].names
    jpegs = [encode(image, "JPEG") for image in random_images(7, (8, 9, 3), seed=0)]
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as archive:
        for label, wnid in enumerate(wnids):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                add(images, f"{wnid}_1.JPEG", jpegs[label % 7])
            add(archive, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in (1, 2, 3):
            add(archive, f"ILSVRC2012_val_0000000{number}.JPEG", jpegs[number])
    status, out, _ = run(capsys, "imagenet2012", f"--data_dir={tmp_path}")
    assert status == 0
    assert "1,000 images (encoded) to train on, 3 images (encoded) to test on" in out
    source = read_tfds("imagenet2012", str(tmp_path))
    assert source.class_names == tuple(wnids)
    for place in (0, 500, 999):
        label = source.train.labels[place]
        assert source.train.names[place] == f"{wnids[label]}_1.JPEG"
        assert source.train.images[place] == jpegs[label % 7]

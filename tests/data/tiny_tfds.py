"""Tiny prepared TFDS data sets, written by TFDS's own writer and without TensorFlow.

TFDS needs TensorFlow only to encode an array as PNG. These sets are encoded with Pillow first, so
that shuffling, sharding and metadata are those of a real data set.
"""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class TinySplit(NamedTuple):
    """What was written of one split, in the official order."""

    images: np.ndarray
    labels: np.ndarray


class TinyEncodedSplit(NamedTuple):
    """What was written of one split of images of varying size."""

    images: list[bytes]
    labels: np.ndarray
    names: list[str]


def encode(image: np.ndarray, form: str = "PNG") -> bytes:
    """An image `(H, W, channels)` as PNG or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form)
    return buffer.getvalue()


def random_images(count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """`(count, H, W, channels)` uint8, no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def random_labels(counts: Sequence[int], seed: int) -> np.ndarray:
    """`counts[c]` labels of each class c in a random order."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def write_tfds(
    data_dir: Path,
    full_name: str,
    features: dict[str, Any],
    splits: Mapping[str, Sequence[dict[str, Any]]],
    shards: int = 2,
    supervised_keys: tuple[str, str] | None = ("image", "label"),
    file_format: str = "array_record",
) -> Path:
    """Prepares a data set of the given examples with TFDS's writer, which shuffles them.

    Args:
      data_dir: TFDS's folder of data sets.
      full_name: "name:version" or "name/config:version".
      features: TFDS feature of each name.
      splits: the examples of each split; images encoded.
      shards: files a split.
      supervised_keys: as in TFDS.
      file_format: as in TFDS; all but "array_record" need more packages.

    Returns:
      The folder of the prepared data set.
    """
    path, dataset_version = full_name.split(":")
    dataset_name, _, config = path.partition("/")

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The examples, as a builder."""

        name = dataset_name
        VERSION = tfds.core.Version(dataset_version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self) -> tfds.core.DatasetInfo:
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(
                builder=self, features=features_dict, supervised_keys=supervised_keys
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(splits[split])

    builder = Tiny(data_dir=str(data_dir), file_format=file_format)
    how = tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    progress = io.StringIO()  # kept apart from what a test captures
    with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
        builder.download_and_prepare(download_config=how)
    return Path(builder.data_dir)


def cifar10_features() -> dict[str, Any]:
    """The features of TFDS's cifar10, with the class names that come in its archive."""
    return {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=CIFAR10_CLASSES),
    }


def cifar10_examples(split: str, images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Examples as TFDS's cifar10 has them; `id` tells the place in the official order."""
    return [
        {"id": f"{split}_{place:05d}", "image": encode(image), "label": int(label)}
        for place, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def write_tiny_cifar10(
    data_dir: Path,
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    shards: int = 3,
) -> None:
    """Writes images `(N, 32, 32, 3)` uint8 and labels as TFDS's cifar10."""
    splits = {
        "train": cifar10_examples("train", images, labels),
        "test": cifar10_examples("test", test_images, test_labels),
    }
    write_tfds(data_dir, "cifar10:3.0.2", cifar10_features(), splits, shards)


def tiny_cifar10(
    data_dir: Path,
    counts: Sequence[int] = (20,) * 10,
    test_counts: Sequence[int] = (5,) * 10,
    shards: int = 3,
) -> tuple[TinySplit, TinySplit]:
    """Writes a random cifar10 of `counts[c]` images of class c; returns its two parts."""
    train, test = (
        TinySplit(random_images(sum(each), (32, 32, 3), seed), random_labels(each, seed))
        for seed, each in enumerate((counts, test_counts))
    )
    write_tiny_cifar10(data_dir, *train, *test, shards=shards)
    return train, test


def tiny_fashion_mnist(data_dir: Path, per_class: int = 6) -> tuple[TinySplit, TinySplit]:
    """Writes a random Fashion-MNIST: grey images, no ids; returns its two parts."""
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    parts = [
        TinySplit(random_images(10 * each, (28, 28, 1), seed), random_labels((each,) * 10, seed))
        for seed, each in enumerate((per_class, 2))
    ]
    splits = {
        split: [
            {"image": encode(image), "label": int(label)}
            for image, label in zip(*part, strict=True)
        ]
        for split, part in zip(("train", "test"), parts, strict=True)
    }
    write_tfds(data_dir, "fashion_mnist:3.0.1", features, splits)
    return parts[0], parts[1]


def imagenet_features(classes: int) -> dict[str, Any]:
    """The features of TFDS's imagenet2012, with fewer classes, named by made-up wnids."""
    return {
        "file_name": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=[f"n{label:08d}" for label in range(classes)]),
    }


def tiny_imagenet_split(counts: Sequence[int], seed: int, prefix: str = "") -> TinyEncodedSplit:
    """JPEG images of varying size with file names."""
    generator = np.random.default_rng(seed)
    labels = random_labels(counts, seed)
    images = [
        encode(random_images(1, (*generator.integers(8, 24, 2), 3), seed + place)[0], "JPEG")
        for place in range(len(labels))
    ]
    names = [f"{prefix}n{label:08d}_{place}.JPEG" for place, label in enumerate(labels)]
    return TinyEncodedSplit(images, labels, names)


def imagenet_examples(split: TinyEncodedSplit) -> list[dict[str, Any]]:
    """Examples as TFDS's imagenet2012 has them."""
    return [
        {"file_name": name, "image": image, "label": int(label)}
        for image, label, name in zip(*split, strict=True)
    ]


def tiny_imagenet2012(
    data_dir: Path,
    counts: Sequence[int] = (12, 6, 3, 1),
    validation_counts: Sequence[int] = (2, 2, 2, 2),
    shards: int = 2,
) -> tuple[TinyEncodedSplit, TinyEncodedSplit]:
    """Writes a random imagenet2012 whose test split has no labels; returns the other two."""
    train = tiny_imagenet_split(counts, seed=10)
    validation = tiny_imagenet_split(validation_counts, seed=5000, prefix="ILSVRC2012_val_")
    unlabelled = tiny_imagenet_split((max(4, shards),), seed=9000)
    unlabelled = unlabelled._replace(labels=np.full_like(unlabelled.labels, -1))
    splits = {
        "train": imagenet_examples(train),
        "validation": imagenet_examples(validation),
        "test": imagenet_examples(unlabelled),
    }
    write_tfds(data_dir, "imagenet2012:5.1.0", imagenet_features(len(counts)), splits, shards)
    return train, validation


def by_tfds(folder: Path, name: str, split: str) -> list[dict[str, Any]]:
    """The records as TFDS itself reads them, in the stored order."""
    return list(tfds.data_source(name, split=split, data_dir=folder, download=False))


def simple_set(
    split_sizes: Mapping[str, int],
    image: tfds.features.Image | None = None,
    extra: dict[str, Any] | None = None,
    shape: tuple[int, int, int] = (4, 5, 3),
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Features, and random examples of each split, of a set with two classes."""
    features = {
        "image": image or tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    examples = {
        split: [
            {"image": encode(each), "label": place % 2}
            for place, each in enumerate(random_images(size, shape, seed=size))
        ]
        for split, size in split_sizes.items()
    }
    return features | (extra or {}), examples


def write_versions(data_dir: Path, *full_names: str) -> dict[str, int]:
    """Writes a set of each name whose images all are of one grey; returns it by name."""
    colours = {}
    for colour, full_name in enumerate(full_names, 1):
        images = np.full((10, 32, 32, 3), colour, np.uint8)
        examples = {s: cifar10_examples(s, images, np.arange(10)) for s in ("train", "test")}
        write_tfds(data_dir, full_name, cifar10_features(), examples, shards=1)
        colours[full_name] = colour
    return colours


def shards_of(folder: Path, split: str) -> list[Path]:
    """The files of a split, below a folder."""
    return sorted(folder.rglob(f"*-{split}.array_record*"))


def damage(path: Path, keep_time: bool) -> None:
    """Turns bits of a file's records; how many records it holds stays known."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

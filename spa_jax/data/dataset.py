"""What every data source gives to the rest of the code: images, labels and class names."""

import abc
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spa_jax.data.features import Features
from spa_jax.errors import InputError

_SAMPLE = 64  # files whose bytes a checksum reads


class EncodedImages(abc.ABC):
    """Images of any size that stay encoded (JPEG, PNG) until they are asked for.

    It is pickled into the worker processes that decode, so it holds names or positions and opens
    what it needs when an image is first read.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> bytes:
        """The encoded bytes of one image; InputError, naming the image, if it cannot be read."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> "EncodedImages":
        """The images at the given positions, in that order; nothing is read."""

    def listing(self) -> str:
        """What tells these images from others before they are read, such as names and sizes."""
        return ""


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images, or features in their place, with their labels.

    Attributes:
      images: `(N, H, W, channels)` uint8, `N` encoded images, or `(N, D)` features.
      labels: `(N,)` int32.
      names: `(N,)` strings, the file name or path of each image where there is one, for split
        lists; None otherwise.
      origin: the file or folder that they come from, for messages.

    Raises:
      InputError: images or labels of another kind.
    """

    images: "np.ndarray | EncodedImages | Features"
    labels: np.ndarray
    names: np.ndarray | None = None
    origin: str = "the data set"

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if isinstance(images, np.ndarray) and (
            images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]
        ):
            raise InputError(
                f"The images of {self.origin} are {images.dtype} of shape {images.shape}; expected "
                "uint8 of shape (N, height, width, channels): check that it is the right file, or "
                "convert them, for example with `(255 * images).round().astype(np.uint8)` if their "
                "values are in [0, 1]."
            )
        if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
            raise InputError(
                f"The labels of {self.origin} are {labels.dtype} of shape {labels.shape}; expected "
                f"integers of shape ({len(images)},), one for each image: check that labels and "
                "images belong together."
            )
        if len(labels) and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
            raise InputError(
                f"The labels of {self.origin} go from {labels.min()} to {labels.max()}; expected "
                "the place of a class, from 0 up: leave out images without a class."
            )
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def content(self) -> Iterator[bytes | memoryview]:
        """What a checksum of the examples is made of, see `LongTailedDataset`."""
        yield f"{len(self)} {getattr(self.images, 'shape', '')}".encode()
        yield self.labels.tobytes()
        if isinstance(self.images, np.ndarray):
            yield np.ascontiguousarray(self.images).data
            return
        if isinstance(self.images, Features):
            yield self.images.checksum
            yield self.images.rows.tobytes()
            return
        yield self.images.listing().encode()
        for index in np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(int)).tolist():
            yield self.images[index]

    @functools.cached_property
    def content_checksum(self) -> str:
        """As that of `LongTailedDataset`, of these examples alone."""
        return _checksum([self])

    def take(self, indices: np.ndarray) -> "LabelledImages":
        """The examples at the given positions, in that order."""
        images = self.images
        chosen = images[indices] if isinstance(images, np.ndarray) else images.take(indices)
        names = None if self.names is None else self.names[indices]
        return LabelledImages(chosen, self.labels[indices], names, self.origin)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples to train on and to test on.

    Attributes:
      name: of the data set.
      train: the training examples.
      test: the test examples.
      class_names: one name a class.

    Raises:
      InputError: a part without examples, a label without a class, or parts that do not fit.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        shapes = []
        for part, examples in (("training", self.train), ("test", self.test)):
            what = f"The {self.name} {part} set in {examples.origin}"
            if not len(examples):
                raise InputError(f"{what} has no image: complete the data.")
            if examples.labels.max() >= self.num_classes:
                raise InputError(
                    f"{what} holds the label {examples.labels.max()}, but there are "
                    f"{self.num_classes} classes, so labels must be in [0, {self.num_classes}), "
                    "as they count up from 0: check that it is the right file, and correct the "
                    "labels or name every class."
                )
            if isinstance(examples.images, np.ndarray | Features):
                shapes.append(examples.images.shape[1:])
        if len(set(shapes)) > 1:
            what = "features" if isinstance(self.train.images, Features) else "images"
            raise InputError(
                f"The {what} of {self.train.origin} have the shape {shapes[0]}, those of "
                f"{self.test.origin} {shapes[1]}: both must be of one size, so one of them may be "
                "of another data set."
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Source(Dataset):
    """A labelled data set as it was published, before any long-tailed split.

    Attributes:
      order: "official" if the training examples stand in the order in which the data set was
        published, which published splits refer to; otherwise "stored".
      pools: of each class the positions of the training examples that may train, in the order in
        which they are taken; None: a protocol chooses them.
      record: what a run's record says of the set besides.
    """

    order: str
    pools: tuple[np.ndarray, ...] | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LongTailedDataset(Dataset):
    """A long-tailed training set with an untouched test set.

    Attributes:
      split: how the training set was chosen, for the run's record: protocol, imbalance factor,
        seed, class counts and a checksum of the chosen indices.
      validation: the part of the training set that was held out, None if nothing was.
    """

    split: dict[str, Any]
    validation: LabelledImages | None = None

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class, less those held out for validation."""
        return tuple(np.bincount(self.train.labels, minlength=self.num_classes).tolist())

    @functools.cached_property
    def content_checksum(self) -> str:
        """SHA-256 of what is trained and tested on, in hexadecimal.

        It changes with the labels, the images and their order, in each part: of arrays every byte
        counts, of features those that no part has too (or, in their place, what a bank says that
        they were made of), of files their names below the folder, their sizes, and the bytes of 64
        of them at even distances. Where the data lie does not matter.
        """
        parts = (self.train, self.test, self.validation)
        return _checksum(part for part in parts if part is not None)

    @functools.cached_property
    def training_checksum(self) -> str:
        """As `content_checksum`, of what is trained on alone."""
        return self.train.content_checksum


def _checksum(parts: Iterable[LabelledImages]) -> str:
    digest = hashlib.sha256()
    for piece in itertools.chain.from_iterable(part.content() for part in parts):
        digest.update(hashlib.sha256(piece).digest())
    return digest.hexdigest()


def numbered_classes(examples: LabelledImages) -> tuple[str, ...]:
    """The labels as class names, from 0 to the largest.

    Raises:
      InputError: labels that are no numbers of classes.
    """
    largest = int(examples.labels.max(initial=-1))
    # Seen before the names are made: identifiers would ask for millions of them.
    if largest >= len(examples):
        raise InputError(
            f"{examples.origin} holds {len(examples)} images, but labels up to {largest}, so some "
            "class has no image: labels count up from 0, so number the classes without gaps."
        )
    return tuple(map(str, range(largest + 1)))


def check_every_class(what: str, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Raises InputError that names the classes without an image."""
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [f"{class_names[label]} ({label})" for label in np.where(counts == 0)[0]]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise InputError(
            f"{len(empty)} of the {len(class_names)} classes of {what} have no image: "
            f"{', '.join(empty[:3])}{more}. Complete the data, or leave those classes out"
            + ("." if counts[0] else "; labels count up from 0.")
        )

"""What every data source gives to the rest of the code: images, labels and class names."""

import dataclasses

import numpy as np

from spa_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images `(N, H, W, channels)` uint8 with their labels `(N,)` int32."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "LabelledImages":
        """The examples at the given positions, in that order."""
        return LabelledImages(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class LongTailedDataset:
    """A long-tailed training set with an untouched test set.

    Attributes:
      name: the source's name.
      train: the training examples that the split chose.
      test: the test examples.
      class_names: one name a class.
      split: how the training set was chosen, for the run's record: protocol, imbalance factor,
        seed, class counts and a checksum of the chosen indices.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    split: dict[str, object]

    def __post_init__(self) -> None:
        for part, examples in (("training", self.train), ("test", self.test)):
            check_examples(f"{self.name} {part} set", examples, len(self.class_names))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        return tuple(np.bincount(self.train.labels, minlength=self.num_classes).tolist())


def check_examples(what: str, examples: LabelledImages, num_classes: int) -> None:
    """Raises InputError unless images are uint8 NHWC and there is one label in range for each."""
    images, labels = examples.images, examples.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            f"The images of the {what} must be uint8 of shape (N, H, W, channels), got "
            f"{images.dtype} of shape {images.shape}."
        )
    if len(images) != len(labels) or len(labels) == 0:
        raise InputError(
            f"The {what} has {len(images)} images and {len(labels)} labels: there must be at least "
            "one image and exactly one label an image."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"The labels of the {what} must be integers, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"The labels of the {what} must be in [0, {num_classes}), got values from "
            f"{labels.min()} to {labels.max()}."
        )

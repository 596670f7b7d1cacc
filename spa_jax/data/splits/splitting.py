"""From a source to a long-tailed training set, with a record of how it was chosen."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.data.dataset import (
    LabelledImages,
    LongTailedDataset,
    Source,
    check_every_class,
)
from spa_jax.data.splits.lists import positions_of
from spa_jax.data.splits.profiles import PROFILES, EmptyClassError, class_counts_of, ranked_classes
from spa_jax.data.splits.protocols import (
    PROTOCOLS,
    PUBLISHED_SEEDS,
    examples_checksum,
    hold_out,
    indices_checksum,
)
from spa_jax.errors import InputError

NATURAL = "natural"

_LIST, _ALL = "list", "all"
_UNCHOSEN = (_LIST, _ALL)


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How a long-tailed training set is chosen.

    Attributes:
      profile: "exponential", "step", "pareto", or "natural" for all images as they are.
      protocol: "ldam" or "glmc": which images are taken.
      imbalance_factor: largest over smallest class; 1 is balanced.
      n_max: images of the largest class; 0: as many as the smallest class of the source has.
      class_order: "label", "reversed" or "permuted": which classes are large.
      class_order_seed: of the permutation.
      seed: of the protocol, and of what is held out; None: the one with which the protocol was
        published, 0 for "ldam" and 3407 for "glmc" (which with the same seed take the same images).
      validation: hold a tenth of each class out.
      train_list: path of a split list that replaces profile and protocol; "" for none.
      test_list: path of a list of the test images; "" for all test images.
    """

    profile: str = "exponential"
    protocol: str = "ldam"
    imbalance_factor: float = 100.0
    n_max: int = 0
    class_order: str = "label"
    class_order_seed: int = 0
    seed: int | None = None
    validation: bool = False
    train_list: str = ""
    test_list: str = ""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(
                f"The protocol must be one of {', '.join(PROTOCOLS)}; got {self.protocol!r}."
            )
        if min(self.resolved_seed, self.class_order_seed, self.n_max) < 0:
            raise InputError(
                "The seeds of a split and n_max must be 0 or more, got seed="
                f"{self.seed}, class_order_seed={self.class_order_seed}, n_max={self.n_max}."
            )

    @property
    def resolved_seed(self) -> int:
        """The seed, or the protocol's published one."""
        return PUBLISHED_SEEDS[self.protocol] if self.seed is None else self.seed


def split_sizes(sizes: np.ndarray, options: SplitOptions) -> tuple[int, ...]:
    """Training images of each class, by label, from a source with the given class sizes.

    Args:
      sizes: `(C,)` images of each class of the source.
      options: the split's.

    Returns:
      C counts.

    Raises:
      InputError: an unknown profile or order, or an imbalance factor that leaves a class empty.

    Example:
      >>> split_sizes(np.full(3, 50), SplitOptions(imbalance_factor=25, class_order="reversed"))
      (2, 10, 50)
    """
    if options.profile == NATURAL:
        return tuple(int(size) for size in sizes)
    if options.profile not in PROFILES:
        raise InputError(
            f"The profile must be one of {', '.join([*PROFILES, NATURAL])}; "
            f"got {options.profile!r}."
        )
    n_max = options.n_max or int(np.min(sizes))
    ranked = ranked_classes(len(sizes), options.class_order, options.class_order_seed)
    try:
        by_rank = PROFILES[options.profile](n_max, len(sizes), options.imbalance_factor)
    except EmptyClassError as error:
        label = int(ranked[error.rank])
        raise InputError(
            f"{error} In class order {options.class_order!r} that is the class of label {label}."
        ) from error
    return class_counts_of(by_rank, ranked)


def make_split(source: Source, options: SplitOptions) -> LongTailedDataset:
    """Chooses the training set; the test set is untouched, or what its list says.

    Args:
      source: the whole data set.
      options: see :class:`SplitOptions`.

    Returns:
      The data set; its `split` holds the choice in words and numbers, and a checksum of what
      trains, then of what is held out: of the chosen positions, or of labels and file names where
      no protocol chose (a list, or everything).

    Raises:
      InputError: options that do not fit the source, or a broken split list.
    """
    chosen, record = _choose(source, options)
    test = source.test
    if options.test_list:
        listed = positions_of(Path(options.test_list), test, f"{source.name} test set")
        test = test.take(listed)
        record["test_checksum"] = examples_checksum(test)
    return dataset_of(source, chosen, test, record, options)


def dataset_of(
    source: Source,
    chosen: np.ndarray,
    test: LabelledImages,
    record: dict[str, Any],
    options: SplitOptions,
) -> LongTailedDataset:
    """The data set of chosen positions, less what is held out; completes its record.

    Args:
      source: the whole data set.
      chosen: positions among its training examples.
      test: the test examples.
      record: how they were chosen.
      options: whose `validation` and `seed` say what is held out.

    Raises:
      InputError: a class without an image, or nothing that could be held out.
    """
    num_classes = len(source.class_names)
    labels = source.train.labels[chosen]
    check_every_class(f"long-tailed {source.name} training set", labels, source.class_names)
    record = record | {
        "name": source.name,
        "class_counts": np.bincount(labels, minlength=num_classes).tolist(),
        "order": source.order,
    }
    by_position = record["protocol"] not in _UNCHOSEN
    if not options.validation:
        train = source.train.take(chosen)
        record["checksum"] = indices_checksum(chosen) if by_position else examples_checksum(train)
        return LongTailedDataset(source.name, train, test, source.class_names, record)
    kept, held_out = hold_out(labels, options.resolved_seed)
    if not len(held_out):
        raise InputError(
            "config.data.validation holds a tenth of each class out, but no class has 5 images or "
            "more: raise config.data.n_max, or train without validation."
        )
    record["validation_seed"] = options.resolved_seed
    record["validation_counts"] = np.bincount(labels[held_out], minlength=num_classes).tolist()
    train, validation = (source.train.take(chosen[part]) for part in (kept, held_out))
    record["checksum"] = (
        indices_checksum(chosen[kept], chosen[held_out])
        if by_position
        else examples_checksum(train, validation)
    )
    return LongTailedDataset(source.name, train, test, source.class_names, record, validation)


def _choose(source: Source, options: SplitOptions) -> tuple[np.ndarray, dict[str, Any]]:
    """Positions of the chosen training examples, and the choice for the record."""
    labels = source.train.labels
    if options.train_list:
        path = Path(options.train_list)
        chosen = positions_of(path, source.train, f"{source.name} training set")
        return chosen, {"protocol": _LIST, "profile": path.name} | _measured(labels[chosen])
    if options.profile == NATURAL:
        everything = np.arange(len(labels))
        return everything, {"protocol": _ALL, "profile": NATURAL} | _measured(labels)
    check_every_class(f"{source.name} training set", labels, source.class_names)
    sizes = np.bincount(labels, minlength=len(source.class_names))
    counts = split_sizes(sizes, options)
    chosen = PROTOCOLS[options.protocol](labels, counts, options.resolved_seed)
    return chosen, {
        "protocol": options.protocol,
        "profile": options.profile,
        "imbalance_factor": float(options.imbalance_factor),
        "seed": options.resolved_seed,
        "class_order": options.class_order,
        "class_order_seed": options.class_order_seed,
    }


def _measured(labels: np.ndarray) -> dict[str, Any]:
    """The imbalance factor of a training set that was not made from one; no seed chose it."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    return {"imbalance_factor": float(counts.max() / counts.min()), "seed": None}

"""From a source to a long-tailed training set, with a record of how it was chosen."""

from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.data.data_options import SplitOptions
from spa_jax.data.dataset import LongTailedDataset, Source, check_every_class
from spa_jax.data.splits.lists import positions_of
from spa_jax.data.splits.profiles import NATURAL, PROFILES, EmptyClassError, ranked_classes
from spa_jax.data.splits.protocols import PROTOCOLS, examples_checksum, hold_out, indices_checksum
from spa_jax.errors import InputError

_LIST, _ALL = "list", "all"
_UNCHOSEN = (_LIST, _ALL)


def split_sizes(sizes: np.ndarray, options: SplitOptions) -> tuple[int, ...]:
    """Training images of each class, by label, from a source with the given class sizes.

    Args:
      sizes: `(C,)` images of each class of the source.
      options: the split's.

    Returns:
      C counts.

    Raises:
      InputError: an imbalance factor that leaves a class empty.

    Example:
      >>> split_sizes(np.full(3, 50), SplitOptions(imbalance_factor=25, class_order="reversed"))
      (2, 10, 50)
    """
    if options.profile == NATURAL:
        return tuple(int(size) for size in sizes)
    n_max = options.n_max or int(np.min(sizes))
    ranked = ranked_classes(len(sizes), options.class_order, options.class_order_seed)
    try:
        by_rank = PROFILES[options.profile](n_max, len(sizes), options.imbalance_factor)
    except EmptyClassError as error:
        label = int(ranked[error.rank])
        raise InputError(
            f"{error} In class order {options.class_order!r} that is the class of label {label}."
        ) from error
    return tuple(np.array(by_rank)[np.argsort(ranked)].tolist())


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
    num_classes = len(source.class_names)
    labels = source.train.labels[chosen]
    what = f"the long-tailed {source.name} training set, of {source.train.origin},"
    check_every_class(what, labels, source.class_names)
    record |= {
        **source.record,
        "name": source.name,
        "class_counts": np.bincount(labels, minlength=num_classes).tolist(),
        "order": source.order,
    }
    test = source.test
    if options.test_list:
        listed = positions_of(Path(options.test_list), test, f"{source.name} test set")
        test = test.take(listed)
        record["test_checksum"] = examples_checksum(test)
    parts = [chosen]
    if options.validation:
        kept, held_out = hold_out(labels, options.resolved_seed)
        if not len(held_out):
            raise InputError(
                "config.data.validation holds a tenth of each class out, but no class has 5 images "
                "or more: raise config.data.n_max, or train without validation."
            )
        parts = [chosen[kept], chosen[held_out]]
        record["validation_seed"] = options.resolved_seed
        record["validation_counts"] = np.bincount(labels[held_out], minlength=num_classes).tolist()
    train, *validation = [source.train.take(part) for part in parts]
    if record["protocol"] in _UNCHOSEN:
        record["checksum"] = examples_checksum(train, *validation)
    else:
        record["checksum"] = indices_checksum(*parts)
    return LongTailedDataset(source.name, train, test, source.class_names, record, *validation)


def _choose(source: Source, options: SplitOptions) -> tuple[np.ndarray, dict[str, Any]]:
    """Positions of the chosen training examples, and the choice for the record."""
    labels = source.train.labels
    if options.train_list:
        path = Path(options.train_list)
        chosen = positions_of(path, source.train, f"{source.name} training set")
        return chosen, {"protocol": _LIST, "profile": path.name} | _measured(labels[chosen])
    if options.profile == NATURAL and source.pools is None:
        everything = np.arange(len(labels))
        return everything, {"protocol": _ALL, "profile": NATURAL} | _measured(labels)
    what = f"the {source.name} training set in {source.train.origin}"
    check_every_class(what, labels, source.class_names)
    if source.pools is None:
        protocol = options.protocol
        counts = split_sizes(np.bincount(labels, minlength=len(source.class_names)), options)
        chosen = PROTOCOLS[protocol](labels, counts, options.resolved_seed)
    else:
        protocol = source.name
        counts = split_sizes(np.array([len(pool) for pool in source.pools]), options)
        pairs = zip(source.pools, counts, strict=True)
        chosen = np.concatenate([pool[:count] for pool, count in pairs])
    natural = options.profile == NATURAL
    factor = max(counts) / min(counts) if natural else float(options.imbalance_factor)
    return chosen, {
        "protocol": protocol,
        "profile": options.profile,
        "imbalance_factor": factor,
        "seed": options.resolved_seed,
        "class_order": options.class_order,
        "class_order_seed": options.class_order_seed,
    }


def _measured(labels: np.ndarray) -> dict[str, Any]:
    """The imbalance factor of a training set that was not made from one; no seed chose it."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    return {"imbalance_factor": float(counts.max() / counts.min()), "seed": None}

"""Shows a long-tailed split: python -m spa_jax.data.describe cifar100 --imbalance_factor 100."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence

import spa_jax.extras  # noqa: F401

import numpy as np

from spa_jax.data.data_options import DataOptions, SplitOptions
from spa_jax.data.sources.opening import load_data
from spa_jax.data.sources.tfds_source import prepare_command, prepared_folder
from spa_jax.data.splits.shot_groups import shot_group_rule, shot_groups
from spa_jax.data.splits.splitting import split_sizes
from spa_jax.errors import InputError, with_status

PUBLISHED_CLASS_SIZES = {
    "cifar10": (5000,) * 10,
    "cifar100": (500,) * 100,
    "fashion_mnist": (6000,) * 10,
}
"""Training images of each class as the data sets' papers state them."""

_FLAGS = [field.name for field in dataclasses.fields(SplitOptions) if field.name != "validation"]
_FLAGS.append("shot_groups")
_BAR_WIDTH = 40
_MOST_BARS = 20


def describe(options: DataOptions) -> str:
    """A split in words and bars.

    Args:
      options: the data set and its split.

    Returns:
      Class counts, total, shot groups, a bar chart and, if the data are at hand, the checksum.

    Raises:
      InputError: a split that does not fit, a broken data set, or one that is not at hand and
        whose class sizes are not published.
    """
    name, rule = options.name, options.shot_groups
    elsewhere = options.folder or options.train_list or options.test_list
    if elsewhere or name not in PUBLISHED_CLASS_SIZES or prepared_folder(name, ""):
        split = load_data(options).split
        counts = split["class_counts"]
        how = f"({split['protocol']}, seed {split['seed']}, {split['order']} order)"
        checksum = f"{split['checksum']} {how}"
    else:
        counts = split_sizes(np.array(PUBLISHED_CLASS_SIZES[name]), options)
        largest = max(PUBLISHED_CLASS_SIZES[name])
        if max(counts) > largest:
            raise InputError(
                f"The largest class would have {max(counts)} images, but a class of {name} has "
                f"{largest}: lower --n_max."
            )
        how = f"They are not at hand; prepare them once: {prepare_command(name, '')}"
        checksum = f"needs the images. {how}"
    groups = [f"{group} {len(labels)}" for group, labels in shot_groups(counts, rule).items()]
    lines = [
        f"{name}: {len(counts)} classes, {sum(counts)} training images, "
        f"from {max(counts)} down to {min(counts)} in a class",
        f"counts:   {' '.join(map(str, counts))}",
        f"groups:   {', '.join(groups)} ({shot_group_rule(len(counts), rule)})",
        f"checksum: {checksum}",
        "",
        *bar_chart(counts),
    ]
    return "\n".join(lines)


def bar_chart(counts: Sequence[int]) -> list[str]:
    """A line for each class, largest first; for many classes, for evenly spaced ranks."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    ranks = np.unique(np.linspace(0, len(counts) - 1, min(len(counts), _MOST_BARS)).round())
    most = max(counts)
    lines = []
    for label in order[ranks.astype(int)].tolist():
        length = max(1, round(_BAR_WIDTH * counts[label] / most))
        lines.append(f"class {label:>4} {counts[label]:>6} {'#' * length}")
    return lines


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Prints the split that the arguments name; 2 with a message if the input is wrong."""
    try:
        print(describe(DataOptions(**vars(_parser().parse_args(argv)))))
    except InputError as error:
        field = rf"(?:--)?config\.data\.({'|'.join(_FLAGS)})\b"
        raise InputError(re.sub(field, r"--\1", str(error))) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.data.describe", description="Shows a long-tailed split."
    )
    fields = {field.name: field for field in dataclasses.fields(DataOptions)}
    parser.add_argument("name", help=fields["name"].metadata["meaning"])
    parser.add_argument("--source", dest="folder", default="", help="folder of the data")
    parser.add_argument(
        "--no_verify", "--no-verify", dest="verify", action="store_false", help="CIFAR files"
    )
    for name in _FLAGS:
        field = fields[name]
        parser.add_argument(
            *dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")),  # dashes, as of before
            type=type(field.default),
            default=field.default,
            choices=field.metadata["choices"],
            help=field.metadata["meaning"],
        )
    parser.set_defaults(imbalance_factor=100.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())

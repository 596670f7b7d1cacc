"""Shows a long-tailed split: python -m spa_jax.data.describe cifar100 --imbalance-factor 100."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spa_jax.data.sources.digits import load_digits_lt
from spa_jax.data.sources.opening import open_source
from spa_jax.data.sources.tfds_source import prepare_command, prepared_folder
from spa_jax.data.splits.profiles import CLASS_ORDERS, PROFILES
from spa_jax.data.splits.protocols import PROTOCOLS
from spa_jax.data.splits.shot_groups import SHOT_GROUP_RULES, shot_group_rule, shot_groups
from spa_jax.data.splits.splitting import NATURAL, SplitOptions, make_split, split_sizes
from spa_jax.errors import InputError

PUBLISHED_CLASS_SIZES = {
    "cifar10": (5000,) * 10,
    "cifar100": (500,) * 100,
    "fashion_mnist": (6000,) * 10,
}
"""Training images of each class as the data sets' papers state them."""

_BAR_WIDTH = 40
_MOST_BARS = 20


def describe(
    name: str, folder: str, options: SplitOptions, rule: str = "auto", verify: bool = True
) -> str:
    """A split in words and bars.

    Args:
      name: the data set's.
      folder: where it is; "" for the place where TFDS keeps what it has prepared.
      options: the split's.
      rule: of the shot groups.
      verify: check the official CIFAR files against their published checksums.

    Returns:
      Class counts, total, shot groups, a bar chart and, if the data are at hand, the checksum.

    Raises:
      InputError: a split that does not fit, a broken data set, or one that is not at hand and
        whose class sizes are not published.
    """
    if name == "digits":
        return _in_words(name, load_digits_lt(options).split, rule)
    lists = options.train_list, options.test_list
    published = name in PUBLISHED_CLASS_SIZES and not folder and not any(lists)
    if published and prepared_folder(name, "") is None:
        how = f"They are not at hand; prepare them once: {prepare_command(name, '')}"
        return _in_words(name, {"class_counts": _published(name, options)}, rule, how)
    source = open_source(name, folder, verify, *lists)
    return _in_words(name, make_split(source, options).split, rule)


def _published(name: str, options: SplitOptions) -> tuple[int, ...]:
    """Class counts from the published sizes, where the images are not at hand."""
    sizes = PUBLISHED_CLASS_SIZES[name]
    counts = split_sizes(np.array(sizes), options)
    if max(counts) > max(sizes):
        raise InputError(
            f"The largest class would have {max(counts)} images, but a class of {name} has "
            f"{max(sizes)}: lower --n-max."
        )
    return counts


def _in_words(name: str, split: Mapping[str, Any], rule: str, missing: str = "") -> str:
    counts = split["class_counts"]
    checksum = f"needs the images. {missing}"
    if not missing:
        checksum = (
            f"{split['checksum']} ({split['protocol']}, seed {split['seed']}, "
            f"{split['order']} order)"
        )
    groups = shot_groups(counts, rule)
    lines = [
        f"{name}: {len(counts)} classes, {sum(counts)} training images, "
        f"from {max(counts)} down to {min(counts)} in a class",
        f"counts:   {' '.join(str(count) for count in counts)}",
        "groups:   "
        + ", ".join(f"{group} {len(labels)}" for group, labels in groups.items())
        + f" ({shot_group_rule(len(counts), rule)})",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the split that the arguments name; 2 with a message if the input is wrong."""
    values = _parser().parse_args(argv)
    try:
        options = _options(values)
        print(describe(values.name, values.source, options, values.shot_groups, values.verify))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _options(values: argparse.Namespace) -> SplitOptions:
    return SplitOptions(
        profile=values.profile,
        protocol=values.protocol,
        imbalance_factor=values.imbalance_factor,
        n_max=values.n_max,
        class_order=values.class_order,
        class_order_seed=values.class_order_seed,
        seed=values.split_seed,
        train_list=values.train_list,
        test_list=values.test_list,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.data.describe", description="Shows a long-tailed split."
    )
    parser.add_argument("name", help="cifar10, cifar100, fashion_mnist or any name of TFDS")
    parser.add_argument("--imbalance-factor", type=float, default=100.0)
    parser.add_argument("--source", default="", help="folder of the data; TFDS's own otherwise")
    parser.add_argument("--profile", choices=[*PROFILES, NATURAL], default="exponential")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="ldam")
    parser.add_argument("--n-max", type=int, default=0, help="images of the largest class")
    parser.add_argument("--class-order", choices=CLASS_ORDERS, default="label")
    parser.add_argument("--class-order-seed", type=int, default=0)
    parser.add_argument("--split-seed", type=int, help="the protocol's published one otherwise")
    parser.add_argument("--train-list", default="", help="file of `path label` lines")
    parser.add_argument("--test-list", default="", help="the same for the test images")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="CIFAR files")
    parser.add_argument("--shot-groups", choices=list(SHOT_GROUP_RULES), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""What can be set of a data set: which images train, where they come from, how they are shown."""

import dataclasses

from spa_jax.data.splits.profiles import CLASS_ORDERS, NATURAL, PROFILES
from spa_jax.data.splits.protocols import PROTOCOLS, PUBLISHED_SEEDS
from spa_jax.data.splits.samplers import SAMPLERS
from spa_jax.data.splits.shot_groups import SHOT_GROUP_RULES
from spa_jax.files import local_path
from spa_jax.options import check_options, check_unread, option

_LARGEST_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How a long-tailed training set is chosen.

    Attributes:
      profile: "exponential", "step", "pareto", or "natural" for all images as they are.
      protocol: "ldam" or "glmc": which images are taken.
      n_max: images of the largest class; 0: as many as the smallest class of the source has.
      imbalance_factor: largest over smallest class; 1 is balanced.
      class_order: "label", "reversed" or "permuted": which classes are large.
      class_order_seed: of the permutation.
      split_seed: of the protocol, and of what is held out; -1: the one with which the protocol was
        published, 0 for "ldam" and 3407 for "glmc" (which with the same seed take the same images).
      validation: hold a tenth of each class out.
      train_list: path of a split list that replaces profile and protocol; "" for none.
      test_list: path of a list of the test images; "" for all test images.

    Raises:
      InputError: a value out of range.
    """

    profile: str = option(
        "exponential", "how class sizes fall, natural: as they are", choices=(*PROFILES, NATURAL)
    )
    protocol: str = option("ldam", "which images of a class are taken", choices=tuple(PROTOCOLS))
    n_max: int = option(0, "training images of the largest class; 0: as many as there are", low=0)
    imbalance_factor: float = option(20.0, "largest class over smallest", low=1)
    class_order: str = option("label", "which classes are large", choices=tuple(CLASS_ORDERS))
    class_order_seed: int = option(0, "of the permuted order", low=0)
    split_seed: int = option(
        -1,
        "of the protocol; -1: its published one, ldam 0 and glmc 3407",
        low=-1,
        high=_LARGEST_SEED,
    )
    validation: bool = option(False, "hold a tenth of each class out of the training set")
    train_list: str = option("", "a list of `path label` lines in place of profile and protocol")
    test_list: str = option("", "the same for the test images")

    def __post_init__(self) -> None:
        check_options(self, "config.data")
        for field in ("folder", "train_list", "test_list"):
            if path := getattr(self, field, ""):
                local_path(path, f"config.data.{field}")

    @property
    def resolved_seed(self) -> int:
        """The seed, or the protocol's published one."""
        return PUBLISHED_SEEDS[self.protocol] if self.split_seed == -1 else self.split_seed


@dataclasses.dataclass(frozen=True)
class DataOptions(SplitOptions):
    """A data set: the config group `data`.

    Attributes:
      name: digits, fashion_mnist, cifar10, cifar100 or any name of TFDS; features for a feature
        bank; with a folder any name.
      folder: where the files are; "": where TFDS keeps what it prepared.
      verify: check the official CIFAR files against their published checksums.
      shot_groups: the rule that calls classes many-, medium- or few-shot, a key of
        `spa_jax.data.splits.shot_groups.SHOT_GROUP_RULES`.
      sampler: how often an epoch shows each class, one of `spa_jax.data.splits.samplers.SAMPLERS`.
      sampler_power: k of the sampler "power", which draws with weights n^-k.
      feed: whole on the device, or in batches; "auto": on the device where it fits.
      drop_last: leave out what does not fill the last batch of an epoch; else that batch is
        smaller.

    Raises:
      InputError: a value out of range.
    """

    name: str = option("digits", "digits, features, fashion_mnist, cifar10 ... or a name of TFDS")
    folder: str = option("", "where the files are; empty: where TFDS keeps what it prepared")
    verify: bool = option(True, "check the official CIFAR files against published checksums")
    shot_groups: str = option(
        "auto", "which classes are many-, medium- and few-shot", choices=tuple(SHOT_GROUP_RULES)
    )
    sampler: str = option("shuffle", "how often an epoch shows each class", choices=SAMPLERS)
    sampler_power: float = option(
        1.0, "k of the sampler `power`, which draws with weights n^-k", low=-10, high=10
    )
    feed: str = option(
        "auto", "whole on the device, or in batches", choices=("auto", "device", "stream")
    )
    drop_last: bool = option(True, "leave out what does not fill the last batch of an epoch")

    def check_unused(self) -> None:
        """Raises InputError for a field that was set away from its default and would do nothing."""
        natural = self.profile == NATURAL or self.train_list != ""
        unread = [
            (natural, "imbalance_factor", "all images train that there are, or that a list names"),
            (
                natural or self.class_order != "permuted",
                "class_order_seed",
                "it is of config.data.class_order=permuted, which does not choose images here",
            ),
            (self.sampler != "power", "sampler_power", "it is of config.data.sampler=power"),
        ]
        check_unread(self, "data", unread)

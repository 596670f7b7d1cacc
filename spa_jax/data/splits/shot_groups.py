"""Many-, medium- and few-shot classes, by the rules that published tables use."""

from collections.abc import Sequence

import numpy as np

from spa_jax.errors import InputError

SHOT_GROUP_RULES = {
    "auto": "thirds for 10 classes or fewer, otherwise above_100_below_20",
    "thirds": "the k largest classes / the rest / the k smallest, k = max(1, floor(0.3 C))",
    "above_100_below_20": "more than 100 / 20 to 100 / fewer than 20 training images",
    "oltr": "100 or more / 21 to 99 / 20 or fewer training images",
    "glmc": "more than 100 / 21 to 100 / 20 or fewer training images",
    "mislas": "by rank: 3 / 4 / 3 of 10 classes, 36 / 35 / 29 of 100, 390 / 445 / 165 of 1000",
}
"""Names of the rules, and what they say. `above_100_below_20` is that of the decoupling and RIDE
code, `oltr` of ImageNet-LT's authors, `glmc` of GLMC and SpA, `mislas` of MiSLAS, ETF and ARB."""

# Many-shot classes have more training images than the first number, few-shot ones fewer than the
# second.
_THRESHOLDS = {"above_100_below_20": (100, 20), "oltr": (99, 21), "glmc": (100, 21)}
_MISLAS_RANKS = {10: (3, 7), 100: (36, 71), 1000: (390, 835)}


def shot_groups(counts: Sequence[int], rule: str = "auto") -> dict[str, list[int]]:
    """Classes by how many training images they have: many, medium and few.

    Args:
      counts: training images of each class.
      rule: a key of :data:`SHOT_GROUP_RULES`. Rules by rank break ties by label.

    Returns:
      `{"many": labels, "medium": labels, "few": labels}`; a group may be empty.

    Raises:
      InputError: a rule that does not know this number of classes.

    Example:
      >>> shot_groups([50, 40, 30, 20])
      {'many': [0], 'medium': [1, 2], 'few': [3]}
    """
    sizes = np.asarray(counts)
    rule = _resolve(rule, len(sizes))
    if rule in _THRESHOLDS:
        above, below = _THRESHOLDS[rule]
        parts = (sizes > above, (sizes >= below) & (sizes <= above), sizes < below)
        groups = [np.where(part)[0] for part in parts]
    else:
        groups = np.split(np.argsort(-sizes, kind="stable"), _ranks(rule, len(sizes)))
    names = ("many", "medium", "few")
    return {name: sorted(part.tolist()) for name, part in zip(names, groups, strict=True)}


def shot_group_rule(num_classes: int, rule: str = "auto") -> str:
    """The rule of :func:`shot_groups` in words, for the run's record."""
    rule = _resolve(rule, num_classes)
    if rule in _THRESHOLDS:
        return SHOT_GROUP_RULES[rule]
    many_to, few_from = _ranks(rule, num_classes)
    if rule == "thirds":
        return (
            f"the {many_to} largest classes / the rest / the {many_to} smallest, by training images"
        )
    bounds = f"0-{many_to} / {many_to}-{few_from} / {few_from}-{num_classes}"
    return f"by training images, ranks {bounds}"


def check_shot_group_rule(rule: str, num_classes: int) -> None:
    """Raises InputError for a rule that does not fit the number of classes."""
    if rule == "mislas" and num_classes not in _MISLAS_RANKS:
        raise InputError(
            f"The shot groups of MiSLAS are defined for 10, 100 and 1000 classes, not for "
            f"{num_classes}: choose another rule."
        )


def _resolve(rule: str, num_classes: int) -> str:
    """The rule that "auto" stands for, or the rule itself, after a check."""
    check_shot_group_rule(rule, num_classes)
    if rule == "auto":
        return "thirds" if num_classes <= 10 else "above_100_below_20"
    return rule


def _ranks(rule: str, num_classes: int) -> tuple[int, int]:
    k = max(1, int(0.3 * num_classes))
    ranks = {"thirds": (k, num_classes - k), "mislas": _MISLAS_RANKS.get(num_classes, (0, 0))}
    return ranks[rule]

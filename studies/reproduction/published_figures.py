"""Published accuracies that the reproduction's tables are held against, and their protocols."""

from collections.abc import Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """A published accuracy.

    Attributes:
      accuracy: in percent.
      protocol: whose run it is, on which split, network and epoch.
    """

    accuracy: float
    protocol: str


_GLMC = "GLMC's updated figures: its split (seed 3407), four times the width, best epoch"
_BAG_OF_TRICKS = "re-run by Bag of Tricks: LDAM's split, usual width, epoch not stated"
_NOTES = "as later papers quote it: LDAM's split, usual width, epoch not stated"
_PAPER = "the paper: four times the width, best epoch; recipe and split not stated"

# Accuracies on CIFAR-10-LT and on CIFAR-100-LT.
_CIFAR: Mapping[str, tuple[float, float | None, str]] = {
    "final-glmc-none-if200-label": (83.4, None, _PAPER),
    "final-glmc-proj-released-if200-label": (84.2, None, _PAPER),
    "final-cross_entropy-none-if100-label": (70.36, 38.32, _BAG_OF_TRICKS),
    "final-ldam_drw-none-if100-label": (77.03, 42.04, _NOTES),
    "final-balanced_softmax-none-if100-label": (77.54, 42.99, _BAG_OF_TRICKS),
    "final-glmc-none-if100-label": (88.50, 57.97, _GLMC),
    "final-glmc-none-if50-label": (91.04, 63.78, _GLMC),
    "final-glmc-none-if10-label": (94.87, 73.40, _GLMC),
    "final-cross_entropy-none-if50-label": (74.81, 43.85, _BAG_OF_TRICKS),
    "final-ldam_drw-none-if50-label": (81.60, 47.29, _BAG_OF_TRICKS),
    "final-balanced_softmax-none-if50-label": (81.11, 46.55, _BAG_OF_TRICKS),
}
_IMAGENET = {
    "final-glmc-none-if256-label": Published(
        56.3, "GLMC's code: ResNeXt-50, 135 epochs, best epoch"
    ),
    "final-cross_entropy-none-if256-label": Published(
        44.4, "Kang et al.: ResNeXt-50, 90 epochs, their own recipe"
    ),
}

PUBLISHED: Mapping[str, Mapping[str, Published]] = {
    "cifar10": {name: Published(ten, whose) for name, (ten, _, whose) in _CIFAR.items()},
    "cifar100": {name: Published(x, whose) for name, (_, x, whose) in _CIFAR.items() if x},
    "imagenet": _IMAGENET,
}
"""By table, and by the name of a group of cells."""

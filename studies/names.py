"""What configurations call a thing, and what the pages and figures call it."""

from collections.abc import Mapping
from typing import Any

NAMES: Mapping[str, str] = {
    "cross_entropy": "cross-entropy",
    "glmc": "GLMC",
    "arb": "ARB",
    "crt": "cRT",
    "ldam_drw": "LDAM-DRW",
    "balanced_softmax": "balanced softmax",
    "post_hoc_logit_adjustment": "post-hoc logit adjustment",
    "etf": "fixed ETF",
    "focal": "focal loss",
    "weighted_cross_entropy": "weighted cross-entropy",
    "class_balanced": "class-balanced loss",
    "ce_drw": "CE-DRW",
    "label_smoothing": "label smoothing",
    "label_aware_smoothing": "label-aware smoothing",
    "lade": "LADE",
    "remix": "Remix",
    "bcl": "BCL",
    "ride": "RIDE, three experts",
    "reg": "Reg",
    "slerp": "SLERP",
    "proj": "Proj",
    "digits": "Digits",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "small": "convolutional network",
    "vit": "vision transformer",
    "convnext": "ConvNeXt",
    "resnet50": "ResNet-50",
}
"""By the name of a method, a variant of SpA, a data set or a network."""


def name_of(value: str) -> str:
    """What a reader calls a value; itself where that is all.

    Example:
      >>> name_of("ldam_drw"), name_of("mixup")
      ('LDAM-DRW', 'mixup')
    """
    return NAMES.get(value, value)


def machine_text(hardware: Mapping[str, Any]) -> str:
    """The machine of a record, with its processor where the record has that.

    Example:
      >>> machine_text({"cpu": "Graviton", "cpu_count": 2, "platform": "cpu"})
      '2 CPU cores of Graviton, cpu'
    """
    of = f" of {hardware['cpu']}" if "cpu" in hardware else ""
    return f"{hardware['cpu_count']} CPU cores{of}, {hardware['platform']}"

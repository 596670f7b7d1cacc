"""Long-tailed CIFAR-100 (10,847 training images at IF 100) with a published recipe.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; recipe=standard (ResNet-32), glmc
(ResNet-32 of four times the width, with GLMC) or spa (the same with SpA-Proj, as released).
Data: `python -m spa_jax.data.prepare cifar100`, or the official files with config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; recipes of Cao et al., NeurIPS 2019, and Du et al., CVPR 2023.
Command: python train.py --config=configs/cifar100_lt.py:imbalance_factor=200 --workdir=runs/c100
Wall time: for a GPU; not measured yet.
Expected figure: 38.3 for standard at IF 100 with cross-entropy (published re-runs), 57.97 for glmc.
Status: not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.errors import InputError
from spa_jax.training.config import Config, default_config
from spa_jax.training.recipes import CIFAR_RECIPES


def get_config(argument: str = "") -> Config:
    """A published recipe."""
    values = parse_argument(argument, {"imbalance_factor": 100.0, "recipe": "standard"})
    if values["recipe"] not in CIFAR_RECIPES:
        known = ", ".join(CIFAR_RECIPES)
        raise InputError(f"recipe must be one of {known}: got {values['recipe']}.")
    config = default_config()
    config.eval_batch_size = 1000
    config.data.name = "cifar100"
    config.data.imbalance_factor = values["imbalance_factor"]
    CIFAR_RECIPES[values["recipe"]](config)
    return config

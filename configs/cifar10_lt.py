"""Long-tailed CIFAR-10 (12,406 training images at IF 100) with a published recipe.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; recipe=standard (ResNet-32), glmc
(ResNet-32 of four times the width, with GLMC), spa (the same with SpA-Proj, as released), or small
for a network and a schedule of ten epochs that suit a CPU.
Data: `python -m spa_jax.data.prepare cifar10`, or the official files with config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; recipes of Cao et al., NeurIPS 2019, and Du et al., CVPR 2023.
Command: python train.py --config=configs/cifar10_lt.py:recipe=glmc --workdir=runs/cifar10
Wall time: recipe=small takes about 1 minute on 2 CPU cores; the others are for a GPU.
Expected figure: 70.4 for standard at IF 100 with cross-entropy (published re-runs), 88.5 for glmc;
at IF 200 84.2 for spa, and 83.4 for it with config.spa.method=none.
Status: recipe=small run, the record is in results/; the others not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.errors import InputError
from spa_jax.training.config import Config, default_config
from spa_jax.training.recipes import CIFAR_RECIPES


def get_config(argument: str = "") -> Config:
    """A published recipe, or a small network for a CPU."""
    values = parse_argument(argument, {"imbalance_factor": 100.0, "recipe": "standard"})
    config = default_config()
    config.eval_batch_size = 1000
    config.data.name = "cifar10"
    config.data.imbalance_factor = values["imbalance_factor"]
    if values["recipe"] == "small":
        _small(config)
    elif values["recipe"] in CIFAR_RECIPES:
        CIFAR_RECIPES[values["recipe"]](config)
    else:
        known = ", ".join(("small", *CIFAR_RECIPES))
        raise InputError(f"recipe must be one of {known}: got {values['recipe']}.")
    return config


def _small(config: Config) -> None:
    config.epochs = 10
    config.batch_size = 128
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.model.widths = (64, 128)
    config.model.stem_stride = 4
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.weight_decay = 5e-4

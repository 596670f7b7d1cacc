"""Long-tailed CIFAR-100 (10,847 training images at IF 100): ResNet-32, recipe of LDAM-DRW's code.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...
Data: `python -m spa_jax.data.prepare cifar100`, or the official files with config.data.folder.
The warm-up rises step by step, where that code rises epoch by epoch.
Paper: Wang, Gao and Xie, AAAI 2026; recipe of Cao et al., NeurIPS 2019.
Command: python train.py --config=configs/cifar100_lt.py:imbalance_factor=200 --workdir=runs/c100
Wall time: ResNet-32 is for a GPU; not measured yet.
Expected figure: 38.3 at IF 100 with cross-entropy (published re-runs).
Status: not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config, default_config


def get_config(argument: str = "") -> Config:
    """The published recipe."""
    values = parse_argument(argument, {"imbalance_factor": 100.0})
    config = default_config()
    config.epochs = 200
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.data.name = "cifar100"
    config.data.imbalance_factor = values["imbalance_factor"]
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.model.name = "cifar_resnet"
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.weight_decay = 2e-4
    config.optimizer.schedule = "steps"
    config.optimizer.step_epochs = (160, 180)
    config.optimizer.step_factor = 0.01
    return config

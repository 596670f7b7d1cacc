"""Long-tailed CIFAR-10 (12,406 training images at IF 100): ResNet-32, recipe of LDAM-DRW's code.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; model=cifar_resnet, or model=small for a
network and a schedule of ten epochs that suit a CPU.
Data: `python -m spa_jax.data.prepare cifar10`, or the official files with config.data.folder.
The warm-up rises step by step, where that code rises epoch by epoch.
Paper: Wang, Gao and Xie, AAAI 2026; recipe of Cao et al., NeurIPS 2019.
Command: python train.py --config=configs/cifar10_lt.py:imbalance_factor=100 --workdir=runs/cifar10
Wall time: model=small takes about 1 minute on 2 CPU cores; ResNet-32 is for a GPU.
Expected figure: 70.4 for ResNet-32 at IF 100 with cross-entropy (published re-runs).
Status: model=small run, the record is in results/; ResNet-32 not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config, default_config


def get_config(argument: str = "") -> Config:
    """The published recipe, or a small network for a CPU."""
    values = parse_argument(argument, {"imbalance_factor": 100.0, "model": "cifar_resnet"})
    config = default_config()
    config.epochs = 200
    config.batch_size = 128
    config.eval_batch_size = 1000
    config.data.name = "cifar10"
    config.data.imbalance_factor = values["imbalance_factor"]
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.model.name = values["model"]
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.weight_decay = 2e-4
    config.optimizer.schedule = "steps"
    config.optimizer.step_epochs = (160, 180)
    config.optimizer.step_factor = 0.01
    if config.model.name == "small":
        config.epochs = 10
        config.model.widths = (64, 128)
        config.model.stem_stride = 4
        config.optimizer.schedule = "cosine"
        config.optimizer.warmup_epochs = 1.0
        config.optimizer.weight_decay = 5e-4
    return config

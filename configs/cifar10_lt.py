"""Long-tailed CIFAR-10 (12,406 training images at IF 100) with a published recipe.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; recipe=standard (ResNet-32), glmc
(ResNet-32 of four times the width, with GLMC), spa (the same with SpA-Proj, as released), balms
(ResNet-32 with balanced softmax, AutoAugment and cutout), crt and lws (cRT and LWS: ten epochs of
the classifier alone, or of scales of its weights, on the network of another run, which
config.init.run names), or small for a network and a schedule of ten epochs that suit a CPU.
With recipe=standard the last batch of an epoch is a smaller one, as in LDAM-DRW's code (97 steps
at IF 100); pmap and shard_map, whose devices can seldom share it, need config.data.drop_last=True.
The other recipes leave the rest out.
Data: `python -m spa_jax.data.prepare cifar10`, or the official files with config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; recipes of Cao et al., NeurIPS 2019, Du et al., CVPR
2023, Ren et al., NeurIPS 2020, and Kang et al., ICLR 2020.
Command: python train.py --config=configs/cifar10_lt.py:recipe=glmc --workdir=runs/cifar10
Wall time: recipe=small takes about 1 minute on 2 CPU cores; the others are for a GPU.
Expected figure: 70.4 for standard at IF 100 with cross-entropy (published re-runs), 88.5 for glmc,
83.1 for balms; at IF 200 84.2 for spa, 83.4 for it with config.spa.method=none, 79.0 for balms.
Status: recipe=small run, the record is in results/; the others not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import cifar10_lt


def get_config(argument: str = "") -> Config:
    """A published recipe, or a small network for a CPU."""
    return cifar10_lt(**parse_argument(argument, {"imbalance_factor": 100.0, "recipe": "standard"}))

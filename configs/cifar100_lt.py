"""Long-tailed CIFAR-100 (10,847 training images at IF 100) with a published recipe.

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; recipe=standard (ResNet-32), glmc
(ResNet-32 of four times the width, with GLMC), spa (the same with SpA-Proj, as released), balms
(ResNet-32 with balanced softmax, AutoAugment and cutout), crt or lws (cRT and LWS: ten epochs of
the classifier alone, or of scales of its weights, on the network of another run, which
config.init.run names).
With recipe=standard the last batch of an epoch is a smaller one, as in LDAM-DRW's code (85 steps
at IF 100); pmap and shard_map, whose devices can seldom share it, need config.data.drop_last=True.
The other recipes leave the rest out.
Data: `python -m spa_jax.data.prepare cifar100`, or the official files with config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; recipes of Cao et al., NeurIPS 2019, Du et al., CVPR
2023, Ren et al., NeurIPS 2020, and Kang et al., ICLR 2020.
Command: python train.py --config=configs/cifar100_lt.py:imbalance_factor=200 --workdir=runs/c100
Wall time: for a GPU; not measured yet.
Expected figure: 38.3 for standard at IF 100 with cross-entropy (published re-runs), 57.97 for glmc,
50.3 for balms.
Status: not run yet.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import cifar100_lt


def get_config(argument: str = "") -> Config:
    """A published recipe."""
    known = {"imbalance_factor": 100.0, "recipe": "standard"}
    return cifar100_lt(**parse_argument(argument, known))

"""Places-LT (62,500 training images of 365 classes, from 4,980 down to 5 in one): ResNet-152.

Argument: recipe=mixup (the first stage, from ImageNet weights), crt or lws (second stages, after
the first).
Data: Places365's images in folders train/CLASS and val/CLASS, and the published lists:
config.data.folder, config.data.train_list=Places_LT_train.txt,
config.data.test_list=Places_LT_test.txt.
Paper: Wang, Gao and Xie, AAAI 2026, has none of it; data of Liu et al., CVPR 2019; recipes of Zhong
et al., CVPR 2021 (mixup), and Kang et al., ICLR 2020 (crt, lws).
Command: python train.py --config=configs/places_lt.py --workdir=runs/places
--config.data.folder=PLACES --config.data.train_list=LIST --config.data.test_list=LIST
--config.init.run=WEIGHTS --config.init.parts=backbone
Wall time: for accelerators; not measured yet.
Expected figure: 29.4 for mixup, where the last block and the classifier alone are trained.
Status: not run yet; the recipe trains on a small folder of JPEGs in the tests.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import places_lt


def get_config(argument: str = "") -> Config:
    """The first stage, or a second one."""
    return places_lt(**parse_argument(argument, {"recipe": "mixup"}))

"""ImageNet-LT (115,846 training images, from 1,280 down to 5 in a class): ResNeXt-50 or ResNet-50.

Argument: epochs=90 (ResNeXt-50, as BCL trains), 135 (ResNeXt-50 with GLMC) or 180 (ResNet-50, as
MiSLAS); model=vit_s16 or convnext_tiny in place of these, with AdamW (config.mesh.fsdp=True cuts
the state of a larger one over the devices, see docs/how_to/many_classes.md).
Data: `python -m spa_jax.data.prepare imagenet_lt`; or the published lists joined to TFDS's
imagenet2012 or to an image folder, with config.data.name=imagenet2012,
config.data.train_list=ImageNet_LT_train.txt and config.data.test_list=ImageNet_LT_test.txt.
Paper: Wang, Gao and Xie, AAAI 2026; data of Liu et al., CVPR 2019; recipes of Zhu et al., CVPR
2022 (90 epochs), Du et al., CVPR 2023 (135), and Zhong et al., CVPR 2021 (180).
Command: python train.py --config=configs/imagenet_lt.py --workdir=runs/imagenet_lt
Wall time: for accelerators; not measured yet.
Expected figure: 44.4 with cross-entropy and 90 epochs (Kang et al., ICLR 2020, by their own recipe;
many / medium / few 65.9 / 37.5 / 7.7), 56.3 with GLMC, 45.5 with cross-entropy, mixup and 180.
Status: not run yet; the same code trains on a small folder of JPEGs in the tests.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import imagenet_lt


def get_config(argument: str = "") -> Config:
    """The recipe of so many epochs, on TFDS's ImageNet-LT."""
    return imagenet_lt(**parse_argument(argument, {"epochs": 90, "model": "resnet"}))

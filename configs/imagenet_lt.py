"""ImageNet-LT (115,846 training images, from 1,280 down to 5 in a class): ResNeXt-50, 90 epochs.

Data: `python -m spa_jax.data.prepare imagenet_lt`; or the published lists joined to TFDS's
imagenet2012 or to an image folder, with config.data.name=imagenet2012,
config.data.train_list=ImageNet_LT_train.txt and config.data.test_list=ImageNet_LT_test.txt.
Paper: Wang, Gao and Xie, AAAI 2026; data of Liu et al., CVPR 2019; recipe of Zhu et al., CVPR 2022.
Command: python train.py --config=configs/imagenet_lt.py --workdir=runs/imagenet_lt
Wall time: for accelerators; not measured yet.
Expected figure: 44.4 with cross-entropy (published re-run, many / medium / few 65.9 / 37.5 / 7.7).
Status: not run yet; the same code trains on a small folder of JPEGs in the tests.
"""

from spa_jax.training.config import Config, default_config


def get_config() -> Config:
    """ResNeXt-50, batch 256, cosine from 0.1."""
    config = default_config()
    config.epochs = 90
    config.batch_size = 256
    config.eval_batch_size = 256
    config.data.name = "imagenet_lt"
    config.data.profile = "natural"
    config.data.feed = "stream"
    config.augment.flip = True
    config.augment.color_jitter = 0.4
    config.model.name = "resnext50_32x4d"
    config.model.dtype = "bfloat16"
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.weight_decay = 5e-4
    config.loader.workers = 16
    return config

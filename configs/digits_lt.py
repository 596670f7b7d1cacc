"""Long-tailed digits (scikit-learn, 369 training images, IF 20): ready on any machine.

Paper: Wang, Gao and Xie, AAAI 2026; the paper has no digits, this is the smallest real run.
Command: python train.py --config=configs/digits_lt.py --workdir=runs/digits
Wall time: about 20 s on 2 CPU cores. Expected figure: the table in README.md.
Status: run with three seeds a method; the record is in results/.
"""

from spa_jax.training.config import Config, default_config


def get_config() -> Config:
    """The defaults, with what fits 8x8 images."""
    config = default_config()
    config.epochs = 60
    config.batch_size = 64
    config.eval_batch_size = 600
    config.data.name = "digits"
    config.data.n_max = 110
    config.data.imbalance_factor = 20.0
    config.augment.crop_padding = 1
    config.model.widths = (16, 32)
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 2.0
    config.logging.every_steps = 25
    config.logging.collapse = True
    return config

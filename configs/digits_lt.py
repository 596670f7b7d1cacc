"""Long-tailed digits (scikit-learn, 369 training images, IF 20): ready on any machine.

Argument: model=small (six convolutions), vit (a vision transformer of patches of 2 x 2 pixels and
two layers, 200 epochs) or convnext (two ConvNeXt blocks); the latter two with AdamW.
Paper: Wang, Gao and Xie, AAAI 2026; the paper has no digits, this is the smallest real run.
Command: python train.py --config=configs/digits_lt.py --workdir=runs/digits
Wall time: about 20 s on 2 CPU cores. Expected figure: the table in README.md.
Status: run with three seeds a method; the record is in results/.
"""

from spa_jax.command_line import parse_argument
from spa_jax.errors import InputError
from spa_jax.training.config import Config, default_config
from spa_jax.training.recipes import adamw_recipe


def get_config(argument: str = "") -> Config:
    """The defaults, with what fits 8x8 images."""
    model = parse_argument(argument, {"model": "small"})["model"]
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
    if model == "small":
        return config
    if model == "vit":
        config.epochs = 200
        config.model.widths, config.model.blocks, config.model.stem_stride = (64,), 2, 2
    elif model == "convnext":
        config.model.widths = (32, 64)
    else:
        raise InputError(f"model is small, vit or convnext, got {model!r}.")
    config.model.name = model
    adamw_recipe(config)
    return config

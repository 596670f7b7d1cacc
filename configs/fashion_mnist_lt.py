"""Long-tailed Fashion-MNIST (14,886 training images at IF 100).

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; class_order=label or reversed. In label
order the three rarest classes (sneaker, bag, ankle boot) are easy ones. model=small (six
convolutions) or vit (a vision transformer of patches of 7 x 7 pixels and two layers, with AdamW).
The files: `apt-get install dataset-fashion-mnist` on Debian and Ubuntu, or config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; the paper has no Fashion-MNIST, this is a run for a CPU.
Command: python train.py --config=configs/fashion_mnist_lt.py --workdir=runs/fashion
Wall time: about 1 minute on 2 CPU cores. Expected figure: the table in README.md.
Status: run with three seeds a method; the record is in results/.
"""

from spa_jax.command_line import parse_argument
from spa_jax.errors import InputError
from spa_jax.training.config import Config, default_config
from spa_jax.training.recipes import adamw_recipe


def get_config(argument: str = "") -> Config:
    """The defaults, with a stem that takes 28x28 images to 7x7 at once."""
    known = {"imbalance_factor": 100.0, "class_order": "label", "model": "small"}
    values = parse_argument(argument, known)
    if values["model"] not in ("small", "vit"):
        raise InputError(f"model is small or vit, got {values['model']!r}.")
    config = default_config()
    config.epochs = 30
    config.batch_size = 128
    config.eval_batch_size = 500
    config.data.name = "fashion_mnist"
    config.data.folder = "/usr/share/datasets/fashion-mnist"
    config.data.n_max = 6000
    config.data.imbalance_factor = values["imbalance_factor"]
    config.data.class_order = values["class_order"]
    config.augment.crop_padding = 2
    config.augment.flip = True
    config.model.widths = (32, 64)
    config.model.stem_stride = 4
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_epochs = 1.0
    if values["model"] == "vit":
        config.model.name, config.model.blocks = "vit", 2
        config.model.widths, config.model.stem_stride = (64,), 7
        adamw_recipe(config)
    return config

"""Long-tailed digits (scikit-learn, 369 training images, IF 20): ready on any machine.

Argument: model=small (six convolutions), vit (a vision transformer of patches of 2 x 2 pixels and
two layers, 200 epochs) or convnext (two ConvNeXt blocks); the latter two with AdamW.
Paper: Wang, Gao and Xie, AAAI 2026; the paper has no digits, this is the smallest real run.
Command: python train.py --config=configs/digits_lt.py --workdir=runs/digits
Wall time: about 20 s on 2 CPU cores. Expected figure: the table in docs/results.md.
Status: run with three seeds a method; the record is in results/.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import digits_lt


def get_config(argument: str = "") -> Config:
    """The defaults, with what fits 8x8 images."""
    return digits_lt(**parse_argument(argument, {"model": "small"}))

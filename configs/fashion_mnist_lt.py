"""Long-tailed Fashion-MNIST (14,886 training images at IF 100).

Argument: imbalance_factor=10, 20, 50, 100, 200, 500 ...; class_order=label or reversed. In label
order the three rarest classes (sneaker, bag, ankle boot) are easy ones. model=small (six
convolutions) or vit (a vision transformer of patches of 7 x 7 pixels and two layers, with AdamW).
The files: `apt-get install dataset-fashion-mnist` on Debian and Ubuntu, or config.data.folder.
Paper: Wang, Gao and Xie, AAAI 2026; the paper has no Fashion-MNIST, this is a run for a CPU.
Command: python train.py --config=configs/fashion_mnist_lt.py --workdir=runs/fashion
Wall time: about 1 minute on 2 CPU cores. Expected figure: the table in docs/results.md.
Status: run with three seeds a method; the record is in results/.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import fashion_mnist_lt


def get_config(argument: str = "") -> Config:
    """The defaults, with a stem that takes 28x28 images to 7x7 at once."""
    known = {"imbalance_factor": 100.0, "class_order": "label", "model": "small"}
    return fashion_mnist_lt(**parse_argument(argument, known))

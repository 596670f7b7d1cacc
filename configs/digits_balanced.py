"""Balanced digits, trained far beyond zero training error: the textbook's neural collapse.

Data: the digits that come with scikit-learn, 110 training images of each class.
Paper: Papyan, Han and Donoho, PNAS 2020; the paper has no digits, its optimiser is the same.
Command: python train.py --config=configs/digits_balanced.py --workdir=runs/balanced
Wall time: about 2 minutes on 2 CPU cores. Expected figure: docs/studies/neural_collapse.md.
Status: run with three seeds; the record is in results/.
"""

from spa_jax.training.config import Config
from spa_jax.training.recipes import digits_balanced


def get_config() -> Config:
    """Long-tailed digits without the tail, without augmentation, with more epochs and features."""
    return digits_balanced()

"""Classifiers on a feature bank: what any network gave for any data set, in seconds on a CPU.

Argument: imbalance_factor=10, 20, 50, 100 ..., without which the bank trains as it is;
model=identity, a linear classifier, or adapter, which has a perceptron before it.
config.data.folder is the bank's; docs/how_to/feature_banks.md says how to write one.
Paper: Wang, Gao and Xie, AAAI 2026; the paper has no feature banks.
Command: python -m spa_jax.compare --config=configs/features.py --config.data.folder=BANK --out=OUT
Wall time: seconds a run on 2 CPU cores. Expected figure: none, as it depends on the bank.
Status: run on random features alone.
"""

from spa_jax.command_line import parse_argument
from spa_jax.training.config import Config
from spa_jax.training.recipes import features


def get_config(argument: str = "") -> Config:
    """AdamW for 20 epochs."""
    return features(**parse_argument(argument, {"imbalance_factor": 0.0, "model": "identity"}))

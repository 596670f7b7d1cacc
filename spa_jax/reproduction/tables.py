"""The tables by name."""

from spa_jax.errors import InputError
from spa_jax.reproduction.cifar import CIFAR10, CIFAR100
from spa_jax.reproduction.fashion_mnist import FASHION_MNIST
from spa_jax.reproduction.imagenet import IMAGENET
from spa_jax.reproduction.plan import TablePlan

TABLES = {
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": IMAGENET,
}
"""What `python -m spa_jax.reproduce` takes."""


def find_table(table: str) -> TablePlan:
    """The plan of a table by name; InputError if there is none."""
    if table not in TABLES:
        raise InputError(f"There is no table {table!r}; there are {', '.join(TABLES)}.")
    return TABLES[table]

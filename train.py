"""Trains one configuration: python train.py --config=configs/digits_lt.py --workdir=runs/digits."""

from spa_jax.train import start

if __name__ == "__main__":
    start()

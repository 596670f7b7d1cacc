"""Writes a feature bank with a Flax network: python examples/features_from_flax.py BANK.

The network here is a stand-in with random parameters, and the images are scikit-learn's digits:
put your own network, its parameters and your own images in their place.
"""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from sklearn.datasets import load_digits


class Network(nn.Module):
    """Two convolutions; what a network gives before its classifier are its features."""

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(32, (3, 3))(images))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        return x.reshape(len(x), -1)


def features_of(network, variables, images, batch_size=256):
    """Features (N, D) of images (N, H, W, channels), in float32, batch by batch."""
    apply = jax.jit(network.apply)
    starts = range(0, len(images), batch_size)
    batches = [apply(variables, images[start : start + batch_size]) for start in starts]
    return np.concatenate([np.asarray(batch, np.float32) for batch in batches])


def main(out):
    """Writes train.npz and test.npz."""
    digits, labels = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    network = Network()
    variables = network.init(jax.random.key(0), images[:1])  # yours are those of a checkpoint
    features = features_of(network, variables, images)
    tested = np.arange(len(labels)) % 4 == 0
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", ~tested), ("test", tested)):
        # float16 takes half the room; a value above 65,504 would become infinite, and is refused.
        arrays = {"feature": features[chosen].astype(np.float16), "label": labels[chosen]}
        np.savez(out / f"{part}.npz", **arrays)
        print(f"{out / part}.npz: {chosen.sum()} features of width {features.shape[1]}")


if __name__ == "__main__":
    main(sys.argv[1])

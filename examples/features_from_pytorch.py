"""Writes a feature bank with a PyTorch network: python examples/features_from_pytorch.py BANK.

The network here is a stand-in with random weights, and the images are scikit-learn's digits: put
your own network and your own loader in their place. Of a torchvision network the features are what
comes out with `network.fc = torch.nn.Identity()`, of a timm network what
`timm.create_model(name, pretrained=True, num_classes=0)` gives.

The arrays are written batch by batch, so that they may be larger than the memory.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def write_part(folder, network, loader, count):
    """Writes feature.npy (count, D) and label.npy (count,) of what a loader gives, in its order."""
    folder.mkdir(parents=True, exist_ok=True)
    labels, bank, done = np.zeros(count, np.int64), None, 0
    network.eval()  # or batch normalisation and dropout would depend on the batch
    with torch.inference_mode():
        for images, of_batch in loader:
            features = network(images).flatten(1).float().cpu().numpy()
            if bank is None:
                shape, path = (count, features.shape[1]), folder / "feature.npy"
                bank = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            bank[done : done + len(features)] = features
            labels[done : done + len(features)] = of_batch.numpy()
            done += len(features)
    if done != count:
        raise ValueError(f"The loader gave {done} images, and {count} were announced.")
    bank.flush()
    np.save(folder / "label.npy", labels)
    print(f"{folder}: {count} features of width {bank.shape[1]}")


def main(out):
    """Writes the folders train and test."""
    digits, labels = load_digits(return_X_y=True)
    images = torch.tensor(digits.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
        torch.nn.ReLU(),
    )
    tested = torch.arange(len(labels)) % 4 == 0
    for part, chosen in (("train", ~tested), ("test", tested)):
        examples = TensorDataset(images[chosen], torch.tensor(labels)[chosen])
        # Not shuffled: the order of a bank is what split protocols and lists refer to.
        write_part(Path(out) / part, network, DataLoader(examples, 256), len(examples))


if __name__ == "__main__":
    main(sys.argv[1])

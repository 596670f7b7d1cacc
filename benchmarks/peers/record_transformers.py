"""Records what torchvision's vision transformer and ConvNeXt compute, for the tests to compare.

python -m benchmarks.peers.record_transformers     (from the repository's root; needs .[peers])

Weights and images are made from names, in the tests as here, so that a record holds features alone.
PyTorch computes in float64.
"""

import numpy as np
import torch
import torchvision
from torch import nn

from tests.models.peer_weights import RECORDED, images
from tests.models.transformer_peers import peer_tensor

BATCH, SIDE = 4, 64


def small_transformer() -> nn.Module:
    """The small size at patches of 16 pixels, which torchvision has no name for."""
    network = torchvision.models.VisionTransformer(
        image_size=SIDE, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536
    )
    network.heads = nn.Sequential()
    return network


def convnext_tiny() -> nn.Module:
    """Without its linear classifier, but with the normalisation before it."""
    network = torchvision.models.convnext_tiny(weights=None)
    network.classifier = nn.Sequential(network.classifier[0], nn.Flatten())
    return network


def record(name: str, network: nn.Module) -> None:
    """Writes the features and the number of parameters."""
    for key, value in network.state_dict().items():
        value.copy_(torch.from_numpy(peer_tensor(key, tuple(value.shape))))
    inputs = torch.from_numpy(images(name, BATCH, SIDE)).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        features = network.double().eval()(inputs).numpy()
    file = RECORDED / f"{name}.npz"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    np.savez_compressed(file, parameters=parameters, features=features.astype(np.float32))
    print(f"{file.name}: {file.stat().st_size} bytes, features to {features.max():.2f}")


if __name__ == "__main__":
    record("vit_s16", small_transformer())
    record("convnext_tiny", convnext_tiny())

"""Records what PyTorch's networks compute, for the tests of the backbones to compare with.

python -m benchmarks.peers.record_backbones        (from the repository's root; needs .[peers])

Weights, running statistics and images are made from names by tests/models/peer_weights.py (of
transformers and ConvNeXt: transformer_peers.py), in the tests as here, so that a record holds
outputs alone: a few KB a network. PyTorch computes in float64. The ImageNet networks are
torchvision's; those for CIFAR are in benchmarks/peers/cifar_resnet.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from benchmarks.peers.cifar_resnet import CifarResNet
from tests.models import transformer_peers
from tests.models.peer_weights import CHANNELS, RECORDED, images, peer_tensor, recorded_columns

BATCH = 4

MakeTensor = Callable[[str, tuple[int, ...]], np.ndarray]
"""Name and shape of a tensor in a PyTorch state dict -> its values."""


def without_head(name: str) -> nn.Module:
    """A network of torchvision that returns its features."""
    if name == "vit_s16":  # the small size, which torchvision has no name for
        network = torchvision.models.VisionTransformer(
            image_size=64, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536
        )
        network.heads = nn.Sequential()
        return network
    network = torchvision.models.get_model(name, weights=None)
    if name == "convnext_tiny":  # whose features are normalised
        network.classifier = nn.Sequential(network.classifier[0], nn.Flatten())
    else:
        network.fc = nn.Identity()
    return network


def fill(network: nn.Module, make_tensor: MakeTensor) -> None:
    """Gives a network its weights and statistics, and float64."""
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(make_tensor(key, tuple(value.shape))))
    network.double()


def record(name: str, network: nn.Module, side: int, make_tensor: MakeTensor = peer_tensor) -> None:
    """Writes features; of a network with batch normalisation in both modes, and its statistics."""
    fill(network, make_tensor)
    inputs = torch.from_numpy(images(name, BATCH, side)).permute(0, 3, 1, 2).double()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad():
        features = network.eval()(inputs)
        found: dict[str, Any] = {"parameters": parameters, "features": features.float().numpy()}
        if any(hasattr(module, "running_var") for module in network.modules()):
            evaluated = recorded_columns(features).astype(np.float32)
            found = {"batch": BATCH, "side": side, "parameters": parameters, "evaluated": evaluated}
            found |= train(network, inputs)
    file = RECORDED / f"{name}.npz"
    np.savez_compressed(file, **found)
    print(f"{file.name}: {file.stat().st_size} bytes, features to {features.max():.2f}")


def train(network: nn.Module, inputs: torch.Tensor) -> dict[str, Any]:
    """Features in training mode, and what it leaves in the layers of batch normalisation."""
    norms = {
        key: module for key, module in network.named_modules() if hasattr(module, "running_var")
    }
    counts = {}
    for key, module in norms.items():
        module.register_forward_pre_hook(
            lambda _, args, key=key: counts.update({key: args[0].numel() // args[0].shape[1]})
        )
    trained = recorded_columns(network.train()(inputs)).astype(np.float32)
    statistics = {
        name: np.stack([getattr(norm, name)[:CHANNELS].float().numpy() for norm in norms.values()])
        for name in ("running_mean", "running_var")
    }
    counted = [counts[key] for key in norms]
    return {"trained": trained, "norms": list(norms), "counts": counted, **statistics}


def main() -> None:
    """Records every network that the tests compare."""
    RECORDED.mkdir(exist_ok=True)
    for depth, width_factor in ((20, 1), (32, 1), (32, 2), (32, 4)):
        name = f"cifar_resnet{depth}_{width_factor}x"
        record(name, CifarResNet(depth, width_factor), side=32)
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"):
        record(name, without_head(name), side=64)
    for name in ("vit_s16", "convnext_tiny"):
        record(name, without_head(name), 64, transformer_peers.peer_tensor)


if __name__ == "__main__":
    main()

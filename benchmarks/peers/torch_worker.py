"""Takes training steps in PyTorch when asked to: the other side of `torch_steps`.

Called as `python -m benchmarks.peers.torch_worker STEP WAY`, on a GPU where there is one. It says
`ready` once it has taken a step; for each number on its standard input it takes so many more, and
says `done` when the last is finished.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.peers.cifar_resnet import CifarResNet
from benchmarks.peers.glmc import GlmcNetwork, losses, projected_gradient, updated_means

BATCH, CLASSES = 128, 10
Augment = Callable[[], torch.Tensor]


class SmallBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut is one of 1x1 where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
        )
        changes = stride != 1 or inner != outer
        self.shortcut = nn.Sequential(
            nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
        )
        self.shortcut = self.shortcut if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `(B, inner, H, W)` to `(B, outer, H / stride, W / stride)`."""
        return torch.relu(self.body(x) + self.shortcut(x))


def small_network() -> nn.Module:
    """That of Fashion-MNIST-LT: a stem of stride 4, and a block at each of two resolutions."""
    stem = nn.Sequential(
        nn.Conv2d(1, 32, 5, 4, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
    )
    blocks = (SmallBlock(32, 32, 1), SmallBlock(32, 64, 2))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def augmented(images: torch.Tensor, padding: int) -> torch.Tensor:
    """Crops of padded images, each at its own place, and half of them mirrored."""
    side = images.shape[-1]
    padded = nn.functional.pad(images, (padding,) * 4)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, len(images), 1))
    places = torch.arange(side)
    columns = columns + places
    mirrored = torch.rand(len(images), 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    batch = torch.arange(len(images))[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[batch, (rows + places)[:, :, None], columns[:, None]]
    return cropped.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)


def plain_step(backbone: nn.Module, dim: int, way: str, augment: Augment) -> Callable[[], None]:
    """Of cross-entropy."""
    network = nn.Sequential(backbone, nn.Linear(dim, CLASSES))
    forward = _prepared(network, way)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=2e-4)
    labels = torch.randint(0, CLASSES, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(augment()), labels).backward()
        optimizer.step()

    return step


def glmc_step(width_factor: int, way: str, augment: Augment) -> Callable[[], None]:
    """Of GLMC with SpA-Proj as released, and class means of unmixed images."""
    network = GlmcNetwork(32, width_factor, 128)
    forward, features = _prepared(network, way), _prepared(network.backbone, way)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-3)
    labels, partners = torch.randint(0, CLASSES, (2, BATCH))
    means = torch.rand(CLASSES, network.fc.in_features)

    def step() -> None:
        nonlocal means
        share = torch.distributions.Beta(1.0, 1.0).sample().item()
        clean, local_view, partner, local_partner = (augment() for _ in range(4))
        half = math.ceil(clean.shape[-1] * math.sqrt(1 - share)) // 2
        row, column = (int(place) for place in torch.randint(0, clean.shape[-1], (2,)))
        rows, columns = (slice(max(middle - half, 0), middle + half) for middle in (row, column))
        local_view[:, :, rows, columns] = local_partner[:, :, rows, columns]
        own, other = (nn.functional.one_hot(those, CLASSES).float() for those in (labels, partners))
        targets = share * own + (1 - share) * other
        with torch.no_grad():
            means = updated_means(means, features(clean), labels)
        views = forward(share * clean + (1 - share) * partner), forward(local_view)
        optimizer.zero_grad()
        losses(*views, targets)["total"].backward()
        weight = network.fc.weight
        assert weight.grad is not None
        weight.grad = projected_gradient(weight.detach(), weight.grad, means)
        optimizer.step()

    return step


def _prepared(network: nn.Module, way: str) -> Callable[[torch.Tensor], torch.Tensor]:
    if "channels-last" in way:
        network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if "compiled" in way else network
    if "bfloat16" in way:
        return torch.autocast(torch.get_default_device().type, torch.bfloat16)(forward)
    return forward


def build_step(name: str, way: str) -> Callable[[], None]:
    """A function that takes a step: "small", "1x", "4x", or "glmc" with ResNet-32 (1x)."""
    channels, side, padding = (1, 28, 2) if name == "small" else (3, 32, 4)
    images = torch.randint(0, 256, (BATCH, channels, side, side), dtype=torch.uint8)

    def augment() -> torch.Tensor:
        inputs = augmented(images, padding)
        if "channels-last" in way:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    if name == "glmc":
        return glmc_step(1, way, augment)
    if name == "small":
        return plain_step(small_network(), 64, way, augment)
    width_factor = {"1x": 1, "4x": 4}[name]
    return plain_step(CifarResNet(32, width_factor), 64 * width_factor, way, augment)


def main(name: str, way: str) -> None:
    """Serves steps until the standard input ends."""
    on_gpu = torch.cuda.is_available()
    torch.set_default_device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    step = build_step(name, way)
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

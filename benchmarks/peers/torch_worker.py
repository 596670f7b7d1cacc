"""Takes steps of a ResNet-32 in PyTorch when asked to: the other side of `torch_steps`.

Called as `python -m benchmarks.peers.torch_worker WIDTH_FACTOR WAY`. It says `ready` once it has
taken a step; for each line on its standard input it takes another, and says `done`.
"""

import sys

import torch
from torch import nn

from benchmarks.peers.cifar_resnet import CifarResNet

BATCH, CLASSES, PADDING = 128, 10, 4


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Crops of padded images, each at its own place, and half of them mirrored."""
    side = images.shape[-1]
    padded = nn.functional.pad(images, (PADDING,) * 4)
    rows, columns = torch.randint(0, 2 * PADDING + 1, (2, len(images), 1))
    places = torch.arange(side)
    columns = columns + places
    mirrored = torch.rand(len(images), 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    batch = torch.arange(len(images))[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[batch, (rows + places)[:, :, None], columns[:, None]]
    return cropped.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)


def main(width_factor: int, way: str) -> None:
    """Serves steps until the standard input ends."""
    torch.manual_seed(0)
    network = nn.Sequential(CifarResNet(32, width_factor), nn.Linear(64 * width_factor, CLASSES))
    if "channels-last" in way:
        network = network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if "compiled" in way else network
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=2e-4)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH,))

    def step() -> None:
        inputs = augmented(images)
        if "channels-last" in way:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(inputs), labels).backward()
        optimizer.step()

    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

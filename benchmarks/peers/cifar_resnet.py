"""CIFAR's ResNets in PyTorch, written from the paper (He et al., CVPR 2016)."""

import torch
from torch import nn


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut of option A."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.new, self.stride = outer - inner, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `(B, inner, H, W)` to `(B, outer, H / stride, W / stride)`."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = x.new_zeros(x.shape[0], self.new // 2, *x.shape[2:])
        return torch.relu(y + torch.cat([zeros, x, zeros], dim=1))


class CifarResNet(nn.Module):
    """Images to features: a stem, three stages, global average pooling."""

    def __init__(self, depth: int, width_factor: int) -> None:
        super().__init__()
        widths = [16 * width_factor, 32 * width_factor, 64 * width_factor]
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = self._stage(widths[0], widths[0], blocks, 1)
        self.layer2 = self._stage(widths[0], widths[1], blocks, 2)
        self.layer3 = self._stage(widths[1], widths[2], blocks, 2)

    def _stage(self, inner: int, outer: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [CifarBlock(outer, outer, 1) for _ in range(blocks - 1)]
        return nn.Sequential(CifarBlock(inner, outer, stride), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `(B, 3, H, W)` to features `(B, D)`."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))

"""CIFAR ResNets of depth 6n+2 (He et al. 2016, Section 4.2): three stages of n basic blocks, 16-32-64 channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill.errors import InputError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut: a stride-2 slice, padded with zero channels on both sides."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """(B, in_channels, H, W) -> (B, num_classes) logits."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(in_channels, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        stages, width = [], 16
        for channels in (16, 32, 64):
            for index in range(blocks):
                stages.append(BasicBlock(width, channels, stride=2 if index == 0 and channels > 16 else 1))
                width = channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)).mean(dim=(2, 3)))
        return logits


def cifar_resnet(depth: int, *, num_classes: int, in_channels: int = 3) -> CifarResNet:
    """A CIFAR ResNet; depth 32 and 56 have 464,154 and 853,018 parameters at 10 classes.

    Raises:
        InputError: `depth` is not 6n+2 with n >= 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"a CIFAR ResNet's depth must be 6n+2 (8, 14, 20, 32, 44, 56, 110), got {depth}")
    return CifarResNet((depth - 2) // 6, num_classes, in_channels)


def _conv(in_channels: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)

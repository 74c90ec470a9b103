"""ResNet-18 and ResNet-34 (He et al. 2016, Table 1) with ImageNet's stem or one for small pictures.

Parameters have the names that torchvision gives them, so that published weights load.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill.errors import InputError

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes the shortcut is a 1x1 convolution (option B of the paper)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class ImageNetResNet(nn.Module):
    """(B, in_channels, H, W) -> (B, num_classes) logits.

    ImageNet's stem, a 7x7 convolution and a max-pool, both of stride 2, leaves 1/4 of each side; the small stem, a
    3x3 convolution of stride 1, leaves the picture its size. The four stages halve it three times.
    """

    def __init__(self, blocks: tuple[int, ...], num_classes: int, in_channels: int, small_stem: bool) -> None:
        super().__init__()
        if small_stem:
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(64, 128, blocks[1], stride=2)
        self.layer3 = _stage(128, 256, blocks[2], stride=2)
        self.layer4 = _stage(256, 512, blocks[3], stride=2)
        self.fc = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def imagenet_resnet(depth: int, *, num_classes: int, in_channels: int = 3, small_stem: bool = False) -> ImageNetResNet:
    """A ResNet of depth 18 or 34, with 11,689,512 and 21,797,672 parameters at 1,000 classes and ImageNet's stem.

    Convolutions are He-initialised over their outputs (He et al. 2015), the head as `nn.Linear` is.

    Raises:
        InputError: `depth` is neither.
    """
    if depth not in DEPTHS:
        raise InputError(f"an ImageNet ResNet's depth must be {' or '.join(map(str, DEPTHS))}, got {depth}")
    return ImageNetResNet(DEPTHS[depth], num_classes, in_channels, small_stem)


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

"""A small convnet for small pictures, such as the embedded digits."""

from __future__ import annotations

from torch import Tensor, nn

from robustdistill.errors import InputError


class ConvNet(nn.Module):
    """Two 3x3 convolutions with batch norm, pooled to 2x2: (B, in_channels, H, W) -> (B, num_classes) logits."""

    def __init__(self, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def convnet(width: int, *, num_classes: int, in_channels: int = 1) -> ConvNet:
    """A convnet whose two layers have `width` and 2·`width` channels.

    Raises:
        InputError: `width` is below 1.
    """
    if width < 1:
        raise InputError(f"a convnet's width must be at least 1, got {width}")
    return ConvNet(width, num_classes, in_channels)

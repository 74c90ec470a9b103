from __future__ import annotations

import pytest
import torch

from robustdistill.errors import InputError
from robustdistill.models.convnet import convnet


@pytest.mark.parametrize(("channels", "size", "width", "classes"), [(1, 8, 1, 2), (3, 32, 8, 10), (1, 5, 4, 3)])
def test_shapes(channels: int, size: int, width: int, classes: int) -> None:
    model = convnet(width, num_classes=classes, in_channels=channels)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_width_is_that_of_the_first_layer() -> None:
    convolutions = [m for m in convnet(8, num_classes=10).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [8, 16]


def test_width_below_one() -> None:
    with pytest.raises(InputError, match="width must be at least 1, got 0"):
        convnet(0, num_classes=3)

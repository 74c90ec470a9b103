from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistill.errors import InputError
from robustdistill.models.cifar_resnet import BasicBlock, cifar_resnet


@pytest.mark.parametrize(("depth", "parameters"), [(32, 464_154), (56, 853_018)])
def test_parameter_counts_of_the_paper(depth: int, parameters: int) -> None:
    assert sum(p.numel() for p in cifar_resnet(depth, num_classes=10).parameters()) == parameters


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 2), (3, 32, 10), (3, 33, 4)])
def test_shapes(channels: int, size: int, classes: int) -> None:
    model = cifar_resnet(8, num_classes=classes, in_channels=channels)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_stages() -> None:
    """3n blocks of two convolutions, a stem and a head make the depth; the picture is halved twice."""
    model = cifar_resnet(20, num_classes=10)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 20 - 1
    assert [m.out_channels for m in convolutions] == [16] * 7 + [32] * 6 + [64] * 6
    assert model.stages(torch.zeros(1, 16, 32, 32)).shape == (1, 64, 8, 8)


def test_the_shortcut_has_no_parameters() -> None:
    """With the residual branch silenced a block is ReLU of the stride-2 slice with zero channels around it."""
    block = BasicBlock(16, 32, stride=2).eval()
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"conv1", "norm1", "conv2", "norm2"}
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, 16, 6, 6)
    expected = np.zeros((2, 32, 3, 3), np.float32)
    expected[:, 8:24] = np.maximum(x.numpy()[:, :, ::2, ::2], 0)
    np.testing.assert_array_equal(block(x).detach().numpy(), expected)


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    model = cifar_resnet(20, num_classes=10)
    weight = model.stages[-1].conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert float(model.head.bias.detach().abs().sum()) == 0


@pytest.mark.parametrize("depth", [2, 7, 9, 18, 49, 0, -4])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(InputError, match=rf"6n\+2.*got {depth}"):
        cifar_resnet(depth, num_classes=10)

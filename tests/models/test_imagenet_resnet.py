from __future__ import annotations

import pytest
import torch
from torch import nn

from robustdistill import models
from robustdistill.errors import InputError
from robustdistill.models.cifar_resnet import CifarResNet
from robustdistill.models.imagenet_resnet import BasicBlock, ImageNetResNet, imagenet_resnet


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(name: str, num_classes: int = 5, in_channels: int = 3) -> nn.Module:
    with torch.device("meta"):  # shapes without memory or initialisation
        return models.build(name, num_classes=num_classes, in_channels=in_channels)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet18-small", 10, 11_173_962),  # the CIFAR variant that is widely used
        ("resnet18-small", 1000, 11_689_512 - (7 * 7 - 3 * 3) * 3 * 64),
        ("resnet34-small", 1000, 21_797_672 - (7 * 7 - 3 * 3) * 3 * 64),
    ],
)
def test_published_parameter_counts(name: str, classes: int, parameters: int) -> None:
    assert count(build(name, classes)) == parameters


@pytest.mark.parametrize("depth", [18, 34])
def test_depths(depth: int) -> None:
    """The convolutions that are not shortcuts, and the head, make the depth."""
    model = build(f"resnet{depth}")
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in name]
    assert len(layers) + 1 == depth


@pytest.mark.parametrize(("small", "sides"), [(False, [16, 16, 8, 4, 2]), (True, [64, 64, 32, 16, 8])])
def test_sides(small: bool, sides: list[int]) -> None:
    with torch.device("meta"):
        model = imagenet_resnet(18, num_classes=7, small_stem=small)
        x = model.maxpool(model.conv1(torch.zeros(1, 3, 64, 64)))
        found = [x.shape[2]]
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            found.append(x.shape[2])
    assert found == sides
    assert x.shape[1] == 512


@pytest.mark.parametrize(("name", "channels", "side"), [("resnet18", 1, 33), ("resnet18-small", 3, 8)])
def test_real_forward_and_backward(name: str, channels: int, side: int) -> None:
    model = models.build(name, num_classes=4, in_channels=channels)
    logits = model(torch.randn(2, channels, side, side))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_block_with_its_branch_silenced_is_its_shortcut() -> None:
    plain, wider = BasicBlock(4, 4, 1).eval(), BasicBlock(4, 8, 2).eval()
    x = torch.randn(2, 4, 6, 6)
    for block in (plain, wider):
        nn.init.zeros_(block.bn2.weight)
    assert torch.equal(plain(x), x.relu())
    assert torch.equal(wider(x), wider.downsample(x).relu())


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = imagenet_resnet(18, num_classes=10)
    weight = model.layer3[0].conv1.weight.detach()  # 128 -> 256 channels: fan-out and fan-in differ
    assert float(weight.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert all(bool((m.weight == 1).all() & (m.bias == 0).all()) for m in model.modules() if type(m) is nn.BatchNorm2d)


def test_parameters_are_named_as_published_weights_are() -> None:
    names = set(build("resnet34").state_dict())
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.5.bn2.bias", "fc.bias"):
        assert name in names
    assert {name for name in names if name.startswith("layer2.0.downsample")} == {
        "layer2.0.downsample.0.weight",
        *(f"layer2.0.downsample.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
        "layer2.0.downsample.1.num_batches_tracked",
    }
    assert not any(name.startswith("layer1.0.downsample") for name in names)


class TestNames:
    @pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet18-small", "resnet34-small"])
    def test_imagenets(self, name: str) -> None:
        assert isinstance(build(name), ImageNetResNet)

    @pytest.mark.parametrize("depth", [8, 14, 20, 26, 32, 44, 56, 110])
    def test_cifars(self, depth: int) -> None:
        assert isinstance(build(f"resnet{depth}"), CifarResNet)

    @pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
    def test_bottlenecks_are_not_taken_for_something_else(self, name: str) -> None:
        """50 and 152 are 6n+2: the CIFAR ResNet of that depth is hardly what is meant."""
        with pytest.raises(InputError, match=rf"bottleneck.*'torchvision\.models:{name}'"):
            build(name)

    @pytest.mark.parametrize("name", ["resnet56-small", "resnet50-small", "resnet18-smal", "resnet18small"])
    def test_no_other_small_ones(self, name: str) -> None:
        with pytest.raises(InputError, match=f"unknown model '{name}'"):
            build(name)

    def test_no_other_depths(self) -> None:
        with pytest.raises(InputError, match=r"6n\+2.*got 19"):
            build("resnet19")
        with pytest.raises(InputError, match="must be 18 or 34, got 50"):
            imagenet_resnet(50, num_classes=10)


class Published(nn.Linear):
    def __init__(self, num_classes: int = 1000, width: int = 4) -> None:
        super().__init__(width, num_classes)


def passes_on(*, weights: str | None = None, **kwargs: int) -> nn.Module:
    """As torchvision's factories: any keyword, handed to a model that does not know all."""
    return Published(**kwargs)


def fails_otherwise(**kwargs: int) -> nn.Module:
    raise TypeError("width must be a number")


def test_factories_that_pass_keywords_on() -> None:
    assert models.build(passes_on, num_classes=7, in_channels=3)(torch.zeros(1, 4)).shape == (1, 7)
    with pytest.raises(TypeError, match="width must be"):
        models.build(fails_otherwise, num_classes=7, in_channels=3)

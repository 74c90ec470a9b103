from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from robustdistill import models
from robustdistill.errors import InputError
from training import problems


def build(model: models.ModelLike, num_classes: int = 3, in_channels: int = 1) -> nn.Module:
    return models.build(model, num_classes=num_classes, in_channels=in_channels)


@pytest.mark.parametrize("name", ["resnet8", "convnet-4", "convnet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_names(name: str, channels: int) -> None:
    module = build(name, num_classes=7, in_channels=channels)
    assert module(torch.zeros(2, channels, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("given", "nearest"), [("resnt32", "resnet32"), ("resnet-56", "resnet56"), ("convet-8", "convnet-8")]
)
def test_an_unknown_name_suggests_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown model '{given}': did you mean '{nearest}'"):
        build(given)


def test_a_callable_gets_what_it_takes() -> None:
    assert build("training.problems:narrow", 3, 1)(torch.zeros(2, 1, 6, 6)).shape == (2, 3)
    assert build(problems.narrow, 5, 2)(torch.zeros(2, 2, 6, 6)).shape == (2, 5)
    assert build(problems.linear, 4)(torch.zeros(2, 9)).shape == (2, 4)
    assert build(problems.any_keyword, 4, 2).settings == {"num_classes": 4, "in_channels": 2}
    assert build(functools.partial(problems.narrow, num_classes=5))(torch.zeros(1, 1, 6, 6)).shape == (1, 3)


class Chans(nn.Conv2d):
    """Knows channels by timm's name for them."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__(in_chans, num_classes, 1)


def named_chans(num_classes: int, in_chans: int) -> nn.Module:
    return Chans(num_classes, in_chans)


def passed_on(pretrained: bool = False, **kwargs: int) -> nn.Module:
    """As timm's own factories, which check no keyword."""
    return Chans(**kwargs)


@pytest.mark.parametrize("factory", [named_chans, passed_on, Chans])
def test_channels_go_by_timms_name_too(factory: Callable[..., nn.Module]) -> None:
    assert build(factory, 4, 1)(torch.zeros(2, 1, 6, 6)).shape == (2, 4, 6, 6)


def test_a_module_in_the_current_folder_is_found_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    source = "from torch import nn\ndef net(num_classes):\n    return nn.Linear(2, num_classes)\n"
    (tmp_path / "found_only_here.py").write_text(source)
    (tmp_path / "wave.py").write_text("raise RuntimeError('not the standard library')\n")
    before = list(sys.path)
    with pytest.raises(InputError, match="no attribute 'net'"):
        models.import_callable("wave:net")
    assert sys.path == before
    assert build("found_only_here:net", 3)(torch.zeros(1, 2)).shape == (1, 3)
    assert sys.path == [*before, str(tmp_path)]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_at_all:net", "cannot import 'no_such_module_at_all'"),
        (":net", "cannot import ''"),
        (".net:net", "whole name, got the relative '.net'"),
        ("training.problems:no_such_net", "no_such_net"),
        ("training.problems:not_callable", "must be callable, got int"),
        ("training.problems:no_module", "must return an nn.Module, got int"),
    ],
)
def test_bad_callables(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(path)


@pytest.mark.parametrize("nonsense", [None, 3, ["resnet8"]])
def test_something_else_is_refused_by_type(nonsense: object) -> None:
    with pytest.raises(InputError, match=type(nonsense).__name__):
        models.describe(nonsense)


def test_a_module_is_copied() -> None:
    module = nn.Linear(2, 3)
    copied = build(module)
    assert copied is not module
    with torch.no_grad():
        copied.weight.zero_()
    assert module.weight.abs().sum() > 0


def test_initialisation_follows_the_global_generator() -> None:
    torch.manual_seed(4)
    first = build("resnet8")
    torch.manual_seed(4)
    second = build("resnet8")
    problems.assert_same_weights(first, second)
    assert not torch.equal(build("resnet8").head.weight, second.head.weight)


def test_descriptions() -> None:
    assert models.describe("resnet32") == "resnet32"
    assert models.describe("training.problems:narrow") == models.describe(problems.narrow) == "training.problems:narrow"
    assert models.describe(problems.Dropout()) == "training.problems:Dropout"
    partial = functools.partial(problems.any_keyword, width=3, act=nn.ReLU, depth=None)
    assert models.describe(partial) == "training.problems:any_keyword(act=type, depth=None, width=3)"
    assert models.describe(functools.partial(problems.narrow)) == "training.problems:narrow"


def test_code_versions() -> None:
    assert models.code_version("resnet32") is None
    version = models.code_version("training.problems:narrow")
    assert version is not None
    assert len(version) == 12
    assert models.code_version(problems.narrow) == version != models.code_version(problems.linear)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 3))),
        (functools.partial(problems.Dropout), functools.partial(problems.narrow, in_channels=1)),
    ],
    ids=["modules of one class", "partials"],
)
def test_other_models_are_other_runs(first: models.ModelLike, second: models.ModelLike) -> None:
    """Else a folder would hand out the one that was trained for the other."""
    identity = [(models.describe(model), models.code_version(model)) for model in (first, second)]
    assert identity[0] != identity[1]


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("module", "came"), [(nn.Linear(4, 5), r"\(2, 5\)"), (nn.Flatten(0), r"\(8,\)"), (Pair(), "tuple")]
)
def test_outputs_that_do_not_fit(module: nn.Module, came: str) -> None:
    with pytest.raises(InputError, match=rf"model toy must return logits \(2, 3\) .* 3 classes, got {came}"):
        models.check_outputs(module, torch.zeros(2, 4), 3, name="model toy")
    assert module.training


def test_the_check_leaves_batch_norm_and_modes_alone() -> None:
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    models.check_outputs(module, torch.randn(5, 4), 3, name="model")
    assert int(module[0].num_batches_tracked) == 0
    assert module.training
    module[0].eval()  # a frozen batch norm
    models.check_outputs(module, torch.randn(5, 4), 3, name="model")
    assert (module.training, module[0].training, module[1].training) == (True, False, True)

"""From what a user writes, a name, "module:callable", a factory or a module, to an nn.Module that fits the data."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustdistill.errors import InputError, unknown
from robustdistill.models.cifar_resnet import cifar_resnet
from robustdistill.models.convnet import convnet

ModelLike = str | nn.Module | Callable[..., nn.Module]

_EXAMPLES = [
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "convnet-8",
    "convnet-32",
]


def build(model: ModelLike, *, num_classes: int, in_channels: int) -> nn.Module:
    """A freshly initialised model; initialisation draws from torch's global generator.

    Args:
        model: "resnetD" (CIFAR ResNet of depth D = 6n+2), "convnet-W" (small convnet of width W), "module:callable", a
            callable that returns a module, or a module, which is copied so that the caller's stays as it is. A callable
            is given `num_classes` and `in_channels` where it takes them.
        num_classes: C.
        in_channels: channels of the pictures.

    Raises:
        InputError: the name is unknown, the callable cannot be imported, or it returns no module.
    """
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    if not isinstance(model, str):
        return _call(model, num_classes=num_classes, in_channels=in_channels)
    if ":" in model:
        return _call(import_callable(model), num_classes=num_classes, in_channels=in_channels)
    if match := re.fullmatch(r"resnet(\d+)", model):
        return cifar_resnet(int(match[1]), num_classes=num_classes, in_channels=in_channels)
    if match := re.fullmatch(r"convnet(?:-(\d+))?", model):
        return convnet(int(match[1] or 32), num_classes=num_classes, in_channels=in_channels)
    raise unknown("model", model, _EXAMPLES)


def describe(model: ModelLike) -> str:
    """How a run records the model: its name, or where its code lives."""
    if isinstance(model, str):
        return model
    target = type(model) if isinstance(model, nn.Module) else model
    return f"{target.__module__}:{getattr(target, '__qualname__', type(target).__qualname__)}"


def code_version(model: ModelLike) -> str | None:
    """12 hex digits over the source of a user's own model, so that changed code is another run; None for ours."""
    if isinstance(model, str) and ":" not in model:
        return None
    target = (
        import_callable(model) if isinstance(model, str) else type(model) if isinstance(model, nn.Module) else model
    )
    try:
        return hashlib.sha256(inspect.getsource(target).encode()).hexdigest()[:12]
    except (OSError, TypeError):  # Built at run time, or not written in Python: it has no source to hash.
        return None


def import_callable(path: str) -> Callable[..., Any]:
    """The object that "module:callable" names.

    Raises:
        InputError: the module cannot be imported, or has no such callable.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise InputError(f"model {path!r}: cannot import {module_name!r} ({error})") from error
    except AttributeError as error:
        raise InputError(f"model {path!r}: {error}") from error
    if not callable(found):
        raise InputError(f"model {path!r} must be callable, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def check_outputs(model: nn.Module, inputs: Tensor, num_classes: int, *, name: str) -> None:
    """Runs `inputs` (B, ...) once without learning and refuses a model whose outputs are not (B, C) logits.

    Raises:
        InputError: naming what came out and what was expected.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(inputs)
    model.train(training)
    expected = (len(inputs), num_classes)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
        came = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"{name} must return logits {expected} for the data's {num_classes} classes, got {came}")


def _call(factory: Callable[..., Any], **offered: int) -> nn.Module:
    taken = inspect.signature(factory).parameters
    any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    arguments = {name: value for name, value in offered.items() if any_keyword or name in taken}
    module = factory(**arguments)
    if not isinstance(module, nn.Module):
        raise InputError(f"model {describe(factory)} must return an nn.Module, got {type(module).__name__}")
    return module

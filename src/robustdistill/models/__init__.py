"""From what a user writes, a name, "module:callable", a factory or a module, to an nn.Module that fits the data."""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustdistill.errors import InputError, unknown
from robustdistill.models.cifar_resnet import cifar_resnet
from robustdistill.models.convnet import convnet
from robustdistill.models.imagenet_resnet import DEPTHS, imagenet_resnet

logger = logging.getLogger(__name__)

ModelLike = str | nn.Module | Callable[..., nn.Module]

_EXAMPLES = [
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet18",
    "resnet34",
    "resnet18-small",
    "resnet34-small",
    "convnet-8",
    "convnet-32",
]
# Depths that ImageNet's bottleneck ResNets are known by; 50 and 152 are 6n+2 too, but nobody means those.
_BOTTLENECK = (50, 101, 152)


def build(model: ModelLike, *, num_classes: int, in_channels: int) -> nn.Module:
    """A freshly initialised model; initialisation draws from torch's global generator.

    Args:
        model: "resnet18" or "resnet34" (ImageNet's), the same with "-small" (3x3 stem for small pictures), "resnetD"
            (CIFAR ResNet of depth D = 6n+2, 16 to 64 channels), "convnet-W" (small convnet of width W),
            "module:callable", a callable that returns a module, or a module, which is copied so that the caller's stays
            as it is. A callable is given `num_classes` and `in_channels` (or `in_chans`) where it takes them.
        num_classes: C.
        in_channels: channels of the pictures.

    Raises:
        InputError: the name is unknown, the callable cannot be imported, or it returns no module.
    """
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    if not isinstance(model, str):
        _check_kind(model)
        return _call(model, num_classes=num_classes, in_channels=in_channels)
    if ":" in model:
        return _call(import_callable(model), num_classes=num_classes, in_channels=in_channels)
    if not in_channels and re.fullmatch(r"(resnet|convnet).*", model):
        raise InputError(f"model {model!r} takes pictures, and these examples are features: pass a module of your own")
    if match := re.fullmatch(r"resnet(\d+)(-small)?", model):
        return _resnet(int(match[1]), bool(match[2]), model, num_classes=num_classes, in_channels=in_channels)
    if match := re.fullmatch(r"convnet(?:-(\d+))?", model):
        return convnet(int(match[1] or 32), num_classes=num_classes, in_channels=in_channels)
    raise unknown("model", model, _EXAMPLES)


def _resnet(depth: int, small: bool, name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """The ResNet that a name means: no depth of ImageNet's two (18, 34) is a CIFAR depth 6n+2."""
    if depth in DEPTHS:
        return imagenet_resnet(depth, num_classes=num_classes, in_channels=in_channels, small_stem=small)
    if small:
        raise unknown("model", name, _EXAMPLES)
    if depth in _BOTTLENECK:
        raise InputError(
            f"{name!r} is ImageNet's bottleneck ResNet to most readers, which is not built in: write "
            f"'torchvision.models:{name}' for it, or one of {', '.join(_EXAMPLES)}"
        )
    return cifar_resnet(depth, num_classes=num_classes, in_channels=in_channels)


def _check_kind(model: object) -> None:
    if not callable(model):
        raise InputError(f"model must be a name, 'module:callable', a factory or a module, got {type(model).__name__}")


def describe(model: ModelLike) -> str:
    """How a run records the model: its name, or where its code lives and what a partial call gives it."""
    if isinstance(model, str):
        return model
    _check_kind(model)
    target, given = (model.func, _given(model)) if isinstance(model, functools.partial) else (model, "")
    if isinstance(target, nn.Module):
        target = type(target)
    return f"{target.__module__}:{getattr(target, '__qualname__', type(target).__qualname__)}{given}"


def _given(model: functools.partial[Any]) -> str:
    """The arguments of a partial call in parentheses; of those that are no plain values, their kinds."""
    plain = (str, int, float, bool, type(None))
    shown = [repr(value) if isinstance(value, plain) else type(value).__name__ for value in model.args]
    for name, value in sorted(model.keywords.items()):
        shown.append(f"{name}={value!r}" if isinstance(value, plain) else f"{name}={type(value).__name__}")
    return f"({', '.join(shown)})" if shown else ""


def code_version(model: ModelLike) -> str | None:
    """12 hex digits over what a name does not say of a user's model; None for the models of this package.

    They cover the file that the code is in, and a module's structure and weights; a change there is another run. What
    that file imports from elsewhere is not seen.
    """
    if isinstance(model, str) and ":" not in model:
        return None
    digest = hashlib.sha256(describe(model).encode())
    if isinstance(model, nn.Module):
        digest.update(repr(model).encode())
        for value in model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    target: Any = import_callable(model) if isinstance(model, str) else model
    if isinstance(target, functools.partial):
        digest.update(repr((target.args, sorted(target.keywords.items()))).encode())
        target = target.func
    if isinstance(target, nn.Module):
        target = type(target)
    try:
        digest.update(Path(inspect.getsourcefile(target) or "").read_bytes())
    except (OSError, TypeError):
        logger.debug("%s was built at run time or is not written in Python: it has no source to hash", target)
    return digest.hexdigest()[:12]


def import_callable(path: str) -> Callable[..., Any]:
    """The object that "module:callable" names; a module that Python has nowhere else may be in the current folder.

    Raises:
        InputError: the module cannot be imported, or has no such callable.
    """
    module_name, _, attribute = path.partition(":")
    if module_name.startswith("."):
        raise InputError(f"model {path!r}: the module must have its whole name, got the relative {module_name!r}")
    try:
        # Only now, and last: an installed command does not look there, and what lies there must hide nothing.
        package = module_name.partition(".")[0]
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            sys.path.append(str(Path.cwd()))
            importlib.invalidate_caches()
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, ValueError) as error:
        raise InputError(f"model {path!r}: cannot import {module_name!r} ({error})") from error
    except AttributeError as error:
        raise InputError(f"model {path!r}: {error}") from error
    if not callable(found):
        raise InputError(f"model {path!r} must be callable, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts every part of `model` in eval mode for the block, and back in the mode that it was in."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def check_outputs(model: nn.Module, inputs: Tensor, num_classes: int, *, name: str) -> None:
    """Runs `inputs` (B, ...) once without learning and refuses a model whose outputs are not (B, C) logits.

    Raises:
        InputError: naming what came out and what was expected.
    """
    try:
        with evaluating(model), torch.no_grad():
            outputs = model(inputs)
    except (RuntimeError, IndexError) as error:
        if inputs.is_floating_point():
            raise
        raise InputError(
            f"{name} does not take these integer inputs ({error}): integers are token ids, here up to"
            f" {int(inputs.max())}, for an embedding with a row for each; pass features as floats"
        ) from error
    expected = (len(inputs), num_classes)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
        came = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"{name} must return logits {expected} for the data's {num_classes} classes, got {came}")


def _check_offered(
    factory: Callable[..., Any], taken: Mapping[str, inspect.Parameter], offered: Container[str]
) -> None:
    """Refuses a factory that cannot be called with what it is offered."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        name
        for name, parameter in taken.items()
        if parameter.default is parameter.empty and parameter.kind not in variable and name not in offered
    ]
    if missing:
        raise InputError(
            f"model {describe(factory)} needs {', '.join(missing)}, and a factory is given num_classes and in_channels"
            " only: pass a function of your own that calls it"
        )


def _call(factory: Callable[..., Any], *, num_classes: int, in_channels: int) -> nn.Module:
    taken = inspect.signature(factory).parameters
    any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    offered = {"num_classes": num_classes, "in_channels": in_channels, "in_chans": in_channels}
    named = {name: value for name, value in offered.items() if name in taken}
    _check_offered(factory, taken, named)
    # Factories of torchvision and timm pass any keyword on to models that know in_chans (timm) or no channels at all.
    guesses = [named]
    if any_keyword and not {"in_channels", "in_chans"} & named.keys():
        both = {**named, "num_classes": num_classes}
        guesses = [{**both, "in_channels": in_channels}, {**both, "in_chans": in_channels}, both]
    for guess in guesses:
        try:
            module = factory(**guess)
            break
        except TypeError as error:
            unknown_name = next(iter(guess.keys() - named.keys() - {"num_classes"}), None)
            if unknown_name is None or unknown_name not in str(error):
                raise
    if not isinstance(module, nn.Module):
        raise InputError(f"model {describe(factory)} must return an nn.Module, got {type(module).__name__}")
    return module

"""Batch norm over the batch of all processes.

Each process sees a share of a batch; the mean and the variance have to be those of all of it. torch's SyncBatchNorm
does not run on CPUs and takes the place of modules, so a `JointBatchNorm` takes that of the function which all of them
call, for as long as it is entered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from robustdistill.methods.parts import over_processes

_SIGNATURE = inspect.signature(F.batch_norm)


class JointBatchNorm(TorchFunctionMode):
    """While entered, batch norm in training mode normalises over the examples of all processes.

    Shares may differ in size, and be empty. Running statistics are those of the whole batch, the same on every process.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        call = _SIGNATURE.bind(*args, **(kwargs or {}))
        call.apply_defaults()
        return joint_batch_norm(**call.arguments) if call.arguments["training"] else func(*call.args, **call.kwargs)


def joint_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` in training mode of the joined inputs (B, C, ...) of all processes; returns this one's share."""
    normalised: Tensor
    normalised, mean, variance, count = _Normalised.apply(input, eps)  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        unbiased = variance * (count / (count - 1))
        running_mean.copy_((1 - momentum) * running_mean + momentum * mean)
        running_var.copy_((1 - momentum) * running_var + momentum * unbiased)
    shape = [1, -1] + [1] * (input.ndim - 2)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(input.dtype)


class _Normalised(torch.autograd.Function):
    """x̂ = (x − mean)/√(var + eps), with the mean and variance (C,) of all processes, and the count of their values."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, axes = _wide(input), [0, *range(2, input.ndim)]
        own = input.numel() // input.shape[1]
        # The sum first, and squares about the mean: squares about zero would lose the variance beside a large mean.
        total = over_processes(torch.cat([x.sum(axes).double(), x.new_tensor([own], dtype=torch.float64)]))
        count = total[-1]
        mean = total[:-1] / count
        centred = x - _beside(mean, x)
        variance = over_processes(centred.square().sum(axes).double()) / count
        scale = (variance + eps).rsqrt()
        normalised = centred * _beside(scale, x)
        ctx.save_for_backward(normalised, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised.to(torch.promote_types(input.dtype, torch.float32)), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        normalised, scale, count = ctx.saved_tensors
        g, axes = gradient.to(normalised.dtype), [0, *range(2, gradient.ndim)]
        # Every output depends on every input of its channel, on all processes.
        sums = torch.stack([g.sum(axes).double(), (g * normalised).sum(axes).double()])
        mean, slope = over_processes(sums) / count
        return (_beside(scale, g) * (g - _beside(mean, g) - normalised * _beside(slope, g))).to(gradient.dtype), None


def _wide(x: Tensor) -> Tensor:
    """In the precision that torch's own batch norm sums in: float64 on a CPU, float32 elsewhere."""
    return x.double() if x.device.type == "cpu" else x.to(torch.promote_types(x.dtype, torch.float32))


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """(C,) values that go with x (B, C, ...), in its dtype."""
    return values.to(x.dtype).view([1, -1] + [1] * (x.ndim - 2))

"""The margin loss of very many classes, block by block of rows: what it makes on the way stays in the cache.

Losses are computed in float64, as in `losses.margin_loss`. Only the gradient has the size of the logits, and it is made
when it is asked for: from probabilities in float32, so that with probabilities as targets it is right to 1e-7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from robustdistill.errors import InputError

LARGE = 2**22  # Logits from which on this pays: below, the plain formula is in the cache by itself.
_BLOCK = {"cpu": 2**16, "cuda": 2**24}  # Logits of a block.


def applies(logits: Tensor, targets: Tensor, costs: Tensor) -> bool:
    """Whether the logits are so many that blocks pay, and nothing is asked for but the gradient by them."""
    if logits.numel() < LARGE or logits.device.type not in _BLOCK or torch.compiler.is_compiling():
        return False
    return logits.dtype != torch.float64 and not (targets.requires_grad or costs.requires_grad)


def margin_loss(logits: Tensor, targets: Tensor, costs: Tensor) -> Tensor:
    """(B,) float64 −Σ_y p_y log softmax_y(f − log c); arguments as those of `losses.margin_loss`, float32 or less."""
    losses: Tensor = _MarginLoss.apply(logits, targets, costs.double().log())  # type: ignore[no-untyped-call]
    return losses


def at_labels(values: Tensor, labels: Tensor) -> Tensor:
    """(B,) the value of each row of (B, C) at its label; one that is no class is refused where that costs no wait."""
    try:
        return values.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    except RuntimeError as error:
        if "out of bounds" not in str(error):
            raise
        raise InputError(f"targets as labels must lie in 0..{values.shape[-1] - 1}: {error}") from error


class _MarginLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, log_costs: Tensor) -> Tensor:
        losses = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
        normalisers, masses = torch.empty_like(losses), torch.ones_like(losses)
        for rows, scores in _blocks(logits, log_costs):
            top = scores.amax(dim=1, keepdim=True)
            scores.sub_(top)
            if targets.ndim == 1:
                expected = at_labels(scores, targets[rows])
            else:
                probabilities = targets[rows].double()
                masses[rows] = probabilities.sum(dim=1)
                expected = torch.linalg.vecdot(probabilities, scores)
            normaliser = scores.exp_().sum(dim=1).log_()
            losses[rows] = masses[rows] * normaliser - expected
            normalisers[rows] = normaliser + top.squeeze(1)
        ctx.save_for_backward(logits, targets, log_costs, normalisers, masses)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, log_costs, normalisers, masses = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        outer, masses = outer.float().unsqueeze(1), masses.float().unsqueeze(1)
        for rows, scores in _blocks(logits, log_costs):
            # Rounded as logarithms of probabilities, so that these are right to the last digits of float32.
            block = scores.sub_(normalisers[rows].unsqueeze(1)).float().exp_().mul_(masses[rows])
            if targets.ndim == 1:
                labels = targets[rows].long().unsqueeze(1)
                # A confident model's p − 1 would lose its digits.
                block.scatter_(1, labels, torch.expm1(scores.gather(1, labels)).float())
            else:
                block.sub_(targets[rows])
            gradient[rows] = block.mul_(outer[rows])
        return gradient, None, None


def _blocks(logits: Tensor, log_costs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, and f − log c of each (b, C) in float64, in memory that the next one takes over."""
    classes = logits.shape[1]
    size = max(1, _BLOCK[logits.device.type] // classes)
    memory = torch.empty((min(size, len(logits)), classes), dtype=torch.float64, device=logits.device)
    for start in range(0, len(logits), size):
        rows = slice(start, min(start + size, len(logits)))
        scores = memory[: rows.stop - start]
        scores.copy_(logits[rows])
        yield rows, scores.sub_(log_costs if log_costs.ndim == 1 else log_costs[rows])

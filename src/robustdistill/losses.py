"""Losses with a cost for each class: one number per example, callers reduce.

Both take logits (B, C), targets as probabilities (B, C) or labels (B,), and costs (C,) or (B, C), and return (B,) in
float32 (float64 for float64 logits), whatever half precision the logits came in. They compute in float64: costs eight
orders of magnitude apart leave losses that float32 cannot tell from zero, and beside a network the price is nothing.

Losses are finite for any finite logits: one that the result's dtype cannot hold is the largest number that it can, and
has no gradient. Logits that are not finite make them NaN, never a number: overflow must not pass for skill.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustdistill import blockwise
from robustdistill.errors import InputError


def margin_loss(logits: Tensor, targets: Tensor, costs: Tensor, *, class_average: bool = False) -> Tensor:
    """−Σ_y p_y log softmax_y(f − log c), the margin-based surrogate (Eq. 9 and Lemma 5; Menon et al. 2021).

    Equal to Σ_y p_y log(1 + Σ_{j≠y} exp(log(c_y/c_j) − (f_y − f_j))): a class with a high cost must win by a margin.
    Its minimiser is f_y = log(c_y p_y) + const. Scaling all costs by one number changes nothing.

    Args:
        logits: f (B, C), any floating dtype.
        targets: p (B, C) probabilities, or (B,) integer labels in [0, C).
        costs: c (C,), or (B, C) where they differ between examples; positive.
        class_average: multiply by 1/C as printed in Eq. 9. Left out by default, so that one learning rate serves every
            objective.

    Returns:
        (B,) losses.

    Raises:
        InputError: shapes or dtypes do not fit together. Values are not checked: a step never waits for the device.

    >>> margin_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([1.0, 3.0]))  # log(1 + 3)
    tensor([1.3863])
    """
    _check(logits, targets, costs)
    if blockwise.applies(logits, targets, costs):
        return _averaged(blockwise.margin_loss(logits, targets, costs), logits, class_average)
    log_probabilities = torch.log_softmax(exact(logits) - exact(costs).log(), dim=-1)
    return _averaged(_cross_entropy(log_probabilities, targets), logits, class_average)


def weighted_loss(logits: Tensor, targets: Tensor, costs: Tensor, *, class_average: bool = False) -> Tensor:
    """−Σ_y c_y p_y log softmax_y(f), the surrogate with the weights outside.

    What group DRO minimises. A network that fits its training set perfectly makes it zero whatever the costs are, which
    is why the margin form exists (Section 4). Arguments, result and errors are those of `margin_loss`.
    """
    _check(logits, targets, costs)
    weighted = torch.log_softmax(exact(logits), dim=-1) * exact(costs)
    return _averaged(_cross_entropy(weighted, targets), logits, class_average)


def exact(values: Tensor) -> Tensor:
    """`values` in float64, or in float32 on Apple's GPUs, which have no float64.

    Those that come in that dtype are cut where differences and products of them would overflow.
    """
    if values.device.type == "mps":
        return _cut(values.float(), 2.0**100)
    return _cut(values, 2.0**900) if values.dtype == torch.float64 else values.double()


def rounded(losses: Tensor, logits: Tensor) -> Tensor:
    """`losses` as they are handed out: float32, float64 for float64 logits."""
    return losses if logits.dtype == torch.float64 else _cut(losses, torch.finfo(torch.float32).max).float()


def _cut(values: Tensor, limit: float) -> Tensor:
    """`values` within ±limit; NaN where they are infinite, since 0 · ∞ is added."""
    return torch.add(values.clamp(-limit, limit), values, alpha=0)


def _cross_entropy(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return -blockwise.at_labels(log_probabilities, targets)
    return -(targets * log_probabilities).sum(dim=-1)


def _averaged(losses: Tensor, logits: Tensor, class_average: bool) -> Tensor:
    return rounded(losses / logits.shape[-1] if class_average else losses, logits)


def _check(logits: Tensor, targets: Tensor, costs: Tensor) -> None:
    if logits.ndim != 2 or not logits.is_floating_point():
        raise InputError(f"logits must be floating point (B, C), got {logits.dtype} {tuple(logits.shape)}")
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise InputError(
                f"targets as probabilities must have shape {tuple(logits.shape)}, got {tuple(targets.shape)}"
            )
    elif targets.shape != logits.shape[:1] or targets.dtype == torch.bool:
        raise InputError(
            f"targets as labels must be integers ({logits.shape[0]},), got {targets.dtype} {tuple(targets.shape)}"
        )
    if costs.shape not in (logits.shape, logits.shape[1:]):
        raise InputError(f"costs must be ({logits.shape[1]},) or {tuple(logits.shape)}, got {tuple(costs.shape)}")

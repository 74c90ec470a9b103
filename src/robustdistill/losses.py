"""Losses with a cost for each class: one number per example, callers reduce.

Both take logits (B, C), targets as probabilities (B, C) or labels (B,), and costs (C,) or (B, C), and return (B,) in
float32 (float64 for float64 logits), whatever half precision the logits came in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustdistill.errors import InputError


def margin_loss(logits: Tensor, targets: Tensor, costs: Tensor, *, class_average: bool = False) -> Tensor:
    """−Σ_y p_y log softmax_y(f − log c), the margin-based surrogate (Eq. 9 and Lemma 5; Menon et al. 2021).

    Equal to Σ_y p_y log(1 + Σ_{j≠y} exp(log(c_y/c_j) − (f_y − f_j))): a class with a high cost must win by a margin. Its
    minimiser is f_y = log(c_y p_y) + const. Scaling all costs by one number changes nothing.

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
    # The largest logit is taken off first: the differences that matter are then exact in float32, before log c is mixed in.
    wide = _wide(logits)
    centred = wide - wide.detach().amax(dim=-1, keepdim=True)
    log_probabilities = torch.log_softmax(centred - costs.log().to(centred.dtype), dim=-1)
    return _cross_entropy(log_probabilities, targets, class_average=class_average)


def weighted_loss(logits: Tensor, targets: Tensor, costs: Tensor, *, class_average: bool = False) -> Tensor:
    """−Σ_y c_y p_y log softmax_y(f), the surrogate with the weights outside.

    What group DRO minimises. A network that fits its training set perfectly makes it zero whatever the costs are, which is
    why the margin form exists (Section 4). Arguments, result and errors are those of `margin_loss`.
    """
    _check(logits, targets, costs)
    log_probabilities = torch.log_softmax(_wide(logits), dim=-1)
    costs = costs.to(log_probabilities.dtype)
    if targets.ndim == 1:
        costs = costs[targets] if costs.ndim == 1 else _pick(costs, targets)
        return costs * _cross_entropy(log_probabilities, targets, class_average=class_average)
    return _cross_entropy(log_probabilities, targets * costs, class_average=class_average)


def _cross_entropy(log_probabilities: Tensor, targets: Tensor, *, class_average: bool) -> Tensor:
    if targets.ndim == 1:
        loss = -_pick(log_probabilities, targets)
    else:
        loss = -(targets.to(log_probabilities.dtype) * log_probabilities).sum(dim=-1)
    return loss / log_probabilities.shape[-1] if class_average else loss


def _pick(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check(logits: Tensor, targets: Tensor, costs: Tensor) -> None:
    if logits.ndim != 2 or not logits.is_floating_point():
        raise InputError(f"logits must be floating point (B, C), got {logits.dtype} {tuple(logits.shape)}")
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise InputError(
                f"targets as probabilities must have the logits' shape {tuple(logits.shape)}, got {tuple(targets.shape)}"
            )
    elif targets.shape != logits.shape[:1] or targets.dtype == torch.bool:
        raise InputError(
            f"targets as labels must be integers of shape ({logits.shape[0]},), got {targets.dtype} {tuple(targets.shape)}"
        )
    if costs.shape not in (logits.shape, logits.shape[1:]):
        raise InputError(f"costs must be ({logits.shape[1]},) or {tuple(logits.shape)}, got {tuple(costs.shape)}")

"""How badly each class does: what moves the multipliers, kept apart from the loss that is differentiated.

A risk is a ratio of two sums over examples, so `Risks` keeps the sums: they add over batches and over processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustdistill.blockwise import at_labels
from robustdistill.errors import InputError, unknown

MIN_MASS = 1.0  # Below the mass of one example a class's risk is unknown, not zero.

RiskLoss = Literal["zero-one", "cross-entropy"]


@dataclass(frozen=True)
class Risks:
    """Per-class loss sums and masses, float64.

    Attributes:
        sums: (G,) Σ_x p_j(x) ℓ(j, f(x)).
        counts: (G,) Σ_x p_j(x): the number of examples of class j where targets are labels.
    """

    sums: Tensor
    counts: Tensor

    def __add__(self, other: Risks) -> Risks:
        if self.sums.shape != other.sums.shape:
            raise InputError(f"risks must be over one set of classes, got {len(self.sums)} and {len(other.sums)}")
        return Risks(self.sums + other.sums, self.counts + other.counts)

    @property
    def values(self) -> Tensor:
        """(G,) R_j = sums / counts; NaN where fewer than one example's mass was seen."""
        return (self.sums / self.counts).masked_fill_(self.counts < MIN_MASS, torch.nan)


def class_risks(
    logits: Tensor,
    targets: Tensor,
    *,
    loss: RiskLoss = "zero-one",
    groups: Tensor | None = None,
    num_groups: int | None = None,
) -> Risks:
    """The risk of each class: R_j = Σ p_j(x) ℓ(j, f(x)) / Σ p_j(x) (Algorithms 1 and 2, Eq. 10).

    With labels this is the mean loss on the examples of class j; with a teacher's probabilities each example counts
    towards every class by its probability.

    Args:
        logits: f (B, C).
        targets: (B,) integer labels or (B, C) probabilities.
        loss: ℓ, "zero-one" (ties go to the first index) or "cross-entropy".
        groups: (B,) group of each example in [0, num_groups); then the result is per group, of the examples' own loss
            Σ_y p_y ℓ(y, f). Or (B, C) the group that each class's share p_y ℓ(y, f) of an example counts for. Classes
            are the groups by default. See `robustdistill.groups`.
        num_groups: G, needed with `groups`.

    Returns:
        Risks with (C,) sums and counts, or (G,) with `groups`.

    Raises:
        InputError: shapes do not fit together, or `loss` is unknown.
    """
    if logits.ndim != 2 or targets.shape not in (logits.shape, logits.shape[:1]):
        raise InputError(
            f"logits must be (B, C) and targets (B,) or (B, C), got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if not logits.is_floating_point():
        raise InputError(f"logits must be floating point, got {logits.dtype}")
    if targets.ndim == 1 and targets.is_floating_point():
        raise InputError(f"targets of shape (B,) must be integer labels, got {targets.dtype}")
    losses = _losses(logits.detach(), loss)
    if targets.ndim == 2:
        targets = targets.double()
        if groups is None:
            return Risks((targets * losses).sum(dim=0), targets.sum(dim=0))
        owner, values, mass = groups, (targets * losses).sum(dim=1), targets.sum(dim=1)
        if groups.shape == logits.shape:
            owner, values, mass = groups.flatten(), (targets * losses).flatten(), targets.flatten()
    else:
        values = at_labels(losses, targets).double()
        owner, mass = targets if groups is None else groups, torch.ones_like(values)
        if owner.shape == logits.shape:
            owner = at_labels(owner, targets)
    size = _num_groups(groups, num_groups, logits)
    zeros = torch.zeros(size, dtype=torch.float64, device=logits.device)
    owner = owner.long()
    return Risks(zeros.index_add(0, owner, values), zeros.index_add(0, owner, mass))


def _losses(logits: Tensor, loss: str) -> Tensor:
    """ℓ(j, f(x)) for every class j, (B, C); NaN where logits are not finite: overflow must not pass for skill."""
    if loss == "zero-one":
        losses = torch.ones_like(logits, dtype=torch.float32).scatter_(1, logits.argmax(dim=1, keepdim=True), 0.0)
    elif loss == "cross-entropy":
        losses = -torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=1)
        losses.clamp_(max=torch.finfo(torch.float32).max)  # finite logits have finite risks
    else:
        raise unknown("risk loss", loss, ["zero-one", "cross-entropy"])
    return torch.where(logits.isfinite().all(dim=1, keepdim=True), losses, torch.nan)


def _num_groups(groups: Tensor | None, num_groups: int | None, logits: Tensor) -> int:
    if groups is None:
        return logits.shape[1]
    if num_groups is None or groups.shape not in (logits.shape[:1], logits.shape):
        raise InputError(
            f"groups must be ({len(logits)},) or {tuple(logits.shape)} and come with num_groups, got"
            f" {tuple(groups.shape)} and {num_groups}"
        )
    return num_groups

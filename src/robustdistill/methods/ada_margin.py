"""AdaMargin: the teacher's confidence in a class is the margin by which the student must win it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Method
from robustdistill.methods.parts import class_margins, probabilities_of, require


@dataclass
class AdaMargin(Method):
    """Distillation with a margin for each example and class, read from the teacher.

    Attributes:
        scale: factor of the margin; 0 is plain distillation.
    """

    scale: float = 1.0

    name: ClassVar[str] = "ada-margin"
    card: ClassVar[Card] = Card(
        title="AdaMargin",
        equation="Σ_y p_y log(1 + Σ_{j≠y} exp(scale · γ_y − (f_y − f_j))), γ_y = p_y − (1/(C−1)) Σ_{j≠y} p_j, "
        "p the teacher's probabilities",
        source="Lukasik et al. 2021, 'Teacher's pet'; Section 6 and Appendix E.5 of the robust distillation paper",
        when="balanced data and a good (best: robust) teacher, with no multipliers to tune",
        when_not="long tails: in the paper it stays behind robust students there",
        deviations="written from Section 6, which does not print the loss: the sign, scale 1 and a margin for each"
        " example and class are a literal reading. p is at the temperature of the targets, and is the mixture where"
        " these are mixed with labels. The margin takes the place of an objective's costs, which are left out",
    )
    needs_teacher: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(math.isfinite(self.scale), self.name, "scale", "finite", self.scale)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        p, f = probabilities_of(batch, outputs), exact(outputs)
        ahead = f - _log_sum_exp_of_others(f) - self.scale * class_margins(p)
        return rounded(-(p * F.logsigmoid(ahead)).sum(dim=1), outputs)


def _log_sum_exp_of_others(f: Tensor) -> Tensor:
    """log Σ_{j≠y} exp(f_j) for every y: (B, C) from (B, C), without the (B, C, C) of its definition."""
    top = f.argmax(dim=1, keepdim=True)
    total = f.logsumexp(dim=1, keepdim=True)
    # All but the largest term hold at most half of the sum, so 1 − share is exact for them. The largest may hold all
    # of it, hence is summed around. Where two tie far above 1e15 the total has lost its log 2: the share is not 1.
    share = (f - total).exp().clamp(max=0.75).scatter(1, top, 0.0)
    around_top = f.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (total + torch.log1p(-share)).scatter(1, top, around_top)

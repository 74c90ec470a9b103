"""The paper's method: costs enter the loss as margins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import margin_loss
from robustdistill.methods.base import Card, Method


@dataclass
class Margin(Method):
    """The margin loss on the batch's targets: labels for a teacher, the teacher's probabilities for a student."""

    name: ClassVar[str] = "margin"
    card: ClassVar[Card] = Card(
        title="Margin loss",
        equation="−Σ_y p_y log softmax_y(f − log c), c = β/π",
        source="Eq. 9 and Algorithms 1-3; margins after Menon et al. 2021, DRO after Narasimhan & Menon 2021",
        when="networks that can fit their training set, which is nearly always",
        when_not="groups that do not refine classes: there is no margin between them",
        deviations="the factor 1/C of Eq. 9 is left out, so that one learning rate serves every objective",
    )

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        assert batch.targets is not None
        return margin_loss(outputs, batch.targets, costs)

"""Costs outside the loss, as group DRO has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import weighted_loss
from robustdistill.methods.base import Card, Method


@dataclass
class Weighted(Method):
    """The weighted surrogate on the batch's targets."""

    name: ClassVar[str] = "weighted"
    card: ClassVar[Card] = Card(
        title="Weighted loss",
        equation="−Σ_y c_y p_y log softmax_y(f), c = β/π",
        source="Eq. 2, 3, 6 and 7 taken literally; Sagawa et al. 2020 weight groups in this way",
        when="small models that cannot fit their training set, and to see why margins matter",
        when_not="networks that reach zero training loss: then the weights have no influence",
    )

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        assert batch.targets is not None
        return weighted_loss(outputs, batch.targets, costs)

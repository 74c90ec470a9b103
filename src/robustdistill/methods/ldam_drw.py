"""LDAM-DRW: rare classes get larger margins from the start, and larger weights towards the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Context, Method
from robustdistill.methods.parts import (
    counts_of,
    cross_entropy,
    effective_number_weights,
    finite,
    labels_without_teacher,
    over_processes,
    require,
)


@dataclass
class LdamDrw(Method):
    """Label-distribution-aware margins with deferred re-weighting, on labels.

    Attributes:
        max_margin: margin of the smallest class.
        scale: factor of the scores inside the softmax; a large one turns the loss into a hinge.
        beta: of the effective numbers (1−β^n)/(1−β) whose inverses are the weights.
        deferred: share of the epochs before the weights set in; 1 is LDAM alone.
    """

    max_margin: float = 0.5
    scale: float = 30.0
    beta: float = 0.9999
    deferred: float = 0.8

    name: ClassVar[str] = "ldam-drw"
    card: ClassVar[Card] = Card(
        title="LDAM-DRW",
        equation="(w_y/scale) · CE(scale · (f − Δ_y e_y), y), Δ_y = max_margin · (n_min/n_y)^(1/4); w_y = 1 at first,"
        " then ∝ (1−β)/(1−β^n_y), divided by its mean over the batch",
        source="Cao et al. 2019, 'Learning imbalanced datasets with label-distribution-aware margin loss'; settings and"
        " weights from the authors' code",
        when="long tails, as the usual reference for class-dependent margins on labels",
        when_not="with a teacher, which it would leave unused",
        deviations="the model's own linear head is used: the original normalises features and class vectors, so that"
        " scores lie in [−1, 1] before the scale. Here they are unbounded and can outgrow the margin: do not read its"
        " numbers as the original's. The loss is divided by scale, so that a learning rate for cross-entropy serves;"
        " undivided, 30 times that rate made small networks collapse. DRW sets in at 80 % of the epochs, theirs at 160"
        " of 200",
    )
    takes_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(finite(self.max_margin), self.name, "max_margin", "finite and not negative", self.max_margin)
        require(finite(self.scale) and self.scale > 0, self.name, "scale", "finite and positive", self.scale)
        require(0 <= self.beta < 1, self.name, "beta", "in [0, 1)", self.beta)
        require(0 <= self.deferred <= 1, self.name, "deferred", "in [0, 1]", self.deferred)

    def prepare(self, context: Context) -> None:
        counts = counts_of(context, self.name)
        self._epochs = context.epochs
        self._margins = self.max_margin * (counts.min() / counts) ** 0.25
        self._later = effective_number_weights(counts, self.beta)
        self._weights = torch.ones_like(counts)

    def on_epoch(self, epoch: int) -> None:
        started = epoch / self._epochs >= self.deferred
        self._weights = self._later if started else torch.ones_like(self._later)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels = labels_without_teacher(batch, outputs, self.name)
        own = labels.unsqueeze(1)
        scores = exact(outputs).scatter_add(1, own, -self._margins[own])
        weights = self._weights[labels]
        mean = over_processes(weights.sum()) / batch.size
        return rounded(weights / (mean * self.scale) * cross_entropy(self.scale * scores, labels), outputs)

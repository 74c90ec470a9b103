"""Logit standardisation: teacher and student agree on the order and the gaps of logits, not on their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Method
from robustdistill.methods.parts import cross_entropy, divergence, finite, labels_of, require, teacher_logits_of


@dataclass
class LogitStdKd(Method):
    """Cross-entropy on labels plus distillation of standardised logits.

    Attributes:
        temperature: T of the standardised logits of both.
        weight: of the distillation term.
    """

    temperature: float = 2.0
    weight: float = 9.0

    name: ClassVar[str] = "logit-std-kd"
    card: ClassVar[Card] = Card(
        title="Logit-standardised distillation",
        equation="CE(f, y) + weight · T² KL(softmax(z(f^t)/T) ‖ softmax(z(f)/T)),"
        " z(f) = (f − mean f)/(std f + 1e-7) for each example",
        source="Sun et al. 2024, 'Logit standardization in knowledge distillation'; settings from the authors' code",
        when="a student much smaller than its teacher, that cannot reach its range of logits",
        when_not="few classes at the default T: a z-score is below √C, so that of ten classes none gets more than 0.35"
        " from the teacher. Worst-class aims on long tails: nothing in it knows of rare classes. A last layer that"
        " starts at zero: equal logits have no z-score",
        deviations="none in the loss; std divides by C−1, as in the authors' code. The temperature of the targets does"
        " not apply to it: T is its own, of the student too",
    )
    uses_temperature: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive = finite(self.temperature) and self.temperature > 0
        require(positive, self.name, "temperature", "finite and positive", self.temperature)
        require(finite(self.weight), self.name, "weight", "finite and not negative", self.weight)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels, f = labels_of(batch, outputs), exact(outputs)
        teacher, student = standardised(teacher_logits_of(batch, outputs)), standardised(f)
        distilled = self.temperature**2 * divergence(teacher / self.temperature, student / self.temperature)
        return rounded(cross_entropy(f, labels) + self.weight * distilled, outputs)


def standardised(logits: Tensor) -> Tensor:
    """(B, C) z-scores of the logits of each example."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    # Far below the 1e-7 that is added, and it keeps the gradient of equal logits finite: that of √0 is not.
    return centred / (variance.clamp_min(1e-30).sqrt() + 1e-7)

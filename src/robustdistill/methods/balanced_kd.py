"""Balanced knowledge distillation: the teacher's probabilities are re-weighted towards rare classes."""

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
    divergence,
    effective_number_weights,
    finite,
    labels_of,
    require,
    teacher_logits_of,
)


@dataclass
class BalancedKd(Method):
    """Cross-entropy on labels plus distillation from a re-weighted teacher.

    Attributes:
        temperature: T of teacher and student in the distillation term.
        alpha: weight of the distillation term.
        beta: of the effective numbers (1−β^n)/(1−β) whose inverses weight the teacher; 0 is plain distillation.
        deferred: share of the epochs before the weights set in.
    """

    temperature: float = 2.0
    alpha: float = 1.0
    beta: float = 0.9999
    deferred: float = 0.0

    name: ClassVar[str] = "balanced-kd"
    card: ClassVar[Card] = Card(
        title="Balanced knowledge distillation (BKD)",
        equation="CE(f, y) + α T² KL(p̃ ‖ softmax(f/T)), p̃_j ∝ w_j softmax_j(f^t/T), w_j = (1−β)/(1−β^n_j)",
        source="Zhang et al. 2023, 'Balanced knowledge distillation for long-tailed learning'; settings from the"
        " authors' code",
        when="long tails, with labels and a teacher trained plainly",
        when_not="balanced data, where it is plain distillation, or a worst class that is not a rare one",
        deviations="the authors weight from the start on CIFAR-100 (the default here) and from 80 % of the epochs on"
        " CIFAR-10 (deferred=0.8). The temperature of the targets does not apply to it: T is its own, of the student"
        " too",
    )
    uses_temperature: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive = finite(self.temperature) and self.temperature > 0
        require(positive, self.name, "temperature", "finite and positive", self.temperature)
        require(finite(self.alpha), self.name, "alpha", "finite and not negative", self.alpha)
        require(0 <= self.beta < 1, self.name, "beta", "in [0, 1)", self.beta)
        require(0 <= self.deferred <= 1, self.name, "deferred", "in [0, 1]", self.deferred)

    def prepare(self, context: Context) -> None:
        self._epochs = context.epochs
        self._later = effective_number_weights(counts_of(context, self.name), self.beta).log()
        self.on_epoch(0)

    def on_epoch(self, epoch: int) -> None:
        started = epoch / self._epochs >= self.deferred
        self._log_weights = self._later if started else torch.zeros_like(self._later)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels, f = labels_of(batch, outputs), exact(outputs)
        # Weights of probabilities are shifts of their logarithms, and the softmax renormalises.
        teacher = teacher_logits_of(batch, outputs) / self.temperature + self._log_weights
        distilled = self.temperature**2 * divergence(teacher, f / self.temperature)
        return rounded(cross_entropy(f, labels) + self.alpha * distilled, outputs)

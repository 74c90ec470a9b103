"""Decoupled knowledge distillation: how sure the teacher is, and what else it sees, weighted apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Context, Method
from robustdistill.methods.parts import cross_entropy, divergence, finite, labels_of, require, teacher_logits_of


@dataclass
class Dkd(Method):
    """Cross-entropy on labels plus distillation of the label against the rest, and within the rest.

    Attributes:
        alpha: weight of the term on the label against the rest.
        beta: weight of the term within the rest.
        temperature: T of teacher and student in both.
        warmup: share of the epochs over which both terms grow to their weight.
    """

    alpha: float = 1.0
    beta: float = 8.0
    temperature: float = 4.0
    warmup: float = 20 / 240

    name: ClassVar[str] = "dkd"
    card: ClassVar[Card] = Card(
        title="Decoupled knowledge distillation (DKD)",
        equation="CE(f, y) + r T² [α KL((p_y, 1−p_y) ‖ (s_y, 1−s_y)) + β KL(p̂ ‖ ŝ)], p = softmax(f^t/T),"
        " s = softmax(f/T), p̂ and ŝ the same over the classes j ≠ y alone, r the warm-up",
        source="Zhao et al. 2022, 'Decoupled knowledge distillation'; settings from the authors' code",
        when="a confident teacher of balanced data: the rest, which plain distillation scales by 1−p_y, counts in full",
        when_not="worst-class aims on long tails: nothing in it knows of rare classes. Two classes: there is no rest",
        deviations="the authors warm up over 20 of 240 epochs, here over the same share of whatever epochs there are;"
        " they choose β for each pair (2 to 8). The label is left out of p̂ exactly, where they subtract 1000 from"
        " its logit. The temperature of the targets does not apply to it: T is its own, of the student too",
    )
    uses_temperature: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(finite(self.alpha), self.name, "alpha", "finite and not negative", self.alpha)
        require(finite(self.beta), self.name, "beta", "finite and not negative", self.beta)
        positive = finite(self.temperature) and self.temperature > 0
        require(positive, self.name, "temperature", "finite and positive", self.temperature)
        require(0 <= self.warmup <= 1, self.name, "warmup", "in [0, 1]", self.warmup)

    def prepare(self, context: Context) -> None:
        self._epochs = context.epochs
        self._strength = exact(context.priors).new_ones(())
        self.on_epoch(0)

    def on_epoch(self, epoch: int) -> None:
        # A tensor, because a compiled loss would be compiled again for each new number.
        length = self.warmup * self._epochs
        self._strength = self._strength.new_tensor(min((epoch + 1) / length, 1.0) if length > 0 else 1.0)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels, f = labels_of(batch, outputs), exact(outputs)
        teacher, student = teacher_logits_of(batch, outputs) / self.temperature, f / self.temperature
        own = labels.unsqueeze(1)
        sure = divergence(_own_and_rest(teacher, own), _own_and_rest(student, own))
        rest = divergence(_only_rest(teacher, own), _only_rest(student, own))
        distilled = self.temperature**2 * (self.alpha * sure + self.beta * rest)
        return rounded(cross_entropy(f, labels) + self._strength * distilled, outputs)


def _own_and_rest(scores: Tensor, own: Tensor) -> Tensor:
    """(B, 2) scores of the label and of all other classes together."""
    rest = scores.scatter(1, own, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat((scores.gather(1, own), rest), dim=1)


def _only_rest(scores: Tensor, own: Tensor) -> Tensor:
    """(B, C−1) scores of the other classes, in an order of their own: the last class stands in for the label."""
    last = scores[:, -1:]
    return scores.scatter(1, own, last)[:, :-1]

"""Group DRO with classes as groups: weights outside the loss, moved by the loss of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.errors import InputError
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Context, Method
from robustdistill.methods.parts import (
    counts_of,
    cross_entropy,
    finite,
    labels_without_teacher,
    over_processes,
    require,
)
from robustdistill.risks import RiskLoss, Risks


@dataclass
class GroupDro(Method):
    """Online group DRO on labels: no teacher, no multipliers of an objective, class weights of its own.

    Attributes:
        eta: step size of the class weights q.
        adjustment: C of the generalisation adjustment C/√n_y, added to a class's loss when q is moved.
        validation: whether q is moved by the cross-entropy on validation, every `every` steps of the recipe, instead of
            by that of each training batch.
        uniform: whether batches are drawn with every class alike, with replacement; otherwise shuffled.
    """

    eta: float = 0.01
    adjustment: float = 0.0
    validation: bool = False
    uniform: bool = True

    name: ClassVar[str] = "group-dro"
    card: ClassVar[Card] = Card(
        title="Group DRO",
        equation="step loss Σ_y q_y L_y with q_y ∝ q_y exp(η (L_y + C/√n_y)) moved first, L_y the mean cross-entropy of"
        " class y in the batch",
        source="Sagawa et al. 2020, Algorithm 1; η = 0.01 from the authors' code; Appendix E.7 of the robust"
        " distillation paper",
        when="the usual reference for worst-group training without a teacher",
        when_not="many classes or small ones: a network that fits its training set makes every L_y zero, and q stops"
        " answering; use margins",
        deviations="classes are the groups, and one step sees several of them, as in the authors' code (Algorithm 1"
        " prints one). A class absent from a batch takes no update, adjusted or not, where their code adds the"
        " adjustment. The adjustment stays out of the reported loss, where their code lets it in. q is kept as"
        " logarithms: same values, no underflow. With validation, η is not known: the paper has 0.1 for its own"
        " multipliers",
    )
    takes_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False
    validation_risk: ClassVar[RiskLoss | None] = "cross-entropy"

    def __post_init__(self) -> None:
        require(finite(self.eta), self.name, "eta", "finite and not negative", self.eta)
        require(finite(self.adjustment), self.name, "adjustment", "finite and not negative", self.adjustment)

    @property
    def watches_validation(self) -> bool:
        return self.validation

    @property
    def class_uniform(self) -> bool:
        return self.uniform

    @property
    def weights(self) -> Tensor:
        """q (C,), summing to 1."""
        return self._log_q.exp()

    def prepare(self, context: Context) -> None:
        counts = counts_of(context, self.name)
        self._penalty = self.adjustment / counts.sqrt()
        self._log_q = torch.full_like(counts, -math.log(len(counts)))

    def on_validation(self, risks: Risks) -> None:
        if self.validation:
            self._move(risks.values, ~risks.values.isnan())

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels = labels_without_teacher(batch, outputs, self.name)
        losses = cross_entropy(exact(outputs), labels)
        # Sums and counts of the whole step: every process must move q alike.
        totals = torch.stack((losses.detach(), torch.ones_like(losses)))
        sums, counts = over_processes(totals.new_zeros(2, outputs.shape[1]).index_add(1, labels, totals))
        if not self.validation:
            self._move(sums / counts, counts > 0)
        # Σ_y q_y L_y as a mean over the step's examples.
        share = self.weights / counts.clamp_min(1)
        return rounded(batch.size * share[labels] * losses, outputs)

    def state(self) -> dict[str, Tensor]:
        return {"log_q": self._log_q.clone()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        log_q = state["log_q"]
        if log_q.shape != self._log_q.shape:
            raise InputError(f"state must be of {len(self._log_q)} classes, got {tuple(log_q.shape)}")
        self._log_q = log_q.to(self._log_q).clone()

    def _move(self, risks: Tensor, seen: Tensor) -> None:
        moved = self._log_q + self.eta * torch.where(seen, risks.to(self._log_q) + self._penalty, 0.0)
        self._log_q = moved - moved.logsumexp(dim=0)

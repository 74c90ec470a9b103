"""Logit adjustment: frequent classes get a head start in training, so that scores are fair without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.errors import InputError
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Context, Method
from robustdistill.methods.parts import counts_of, cross_entropy, probabilities_of, require


@dataclass
class LogitAdjustment(Method):
    """Cross-entropy of adjusted scores against labels or a teacher's probabilities.

    Attributes:
        tau: strength; 0 is plain cross-entropy, 1 aims at balanced accuracy.
    """

    tau: float = 1.0

    name: ClassVar[str] = "logit-adjustment"
    card: ClassVar[Card] = Card(
        title="Logit-adjusted cross-entropy",
        equation="−Σ_y p_y log softmax_y(f + τ log π), π the shares of the classes among the training labels",
        source="Menon et al. 2021, 'Long-tail learning via logit adjustment', Eq. 10",
        when="long tails, for balanced accuracy: one setting, no validation set",
        when_not="balanced data, where it is plain cross-entropy, or a worst class that is not a rare one",
        deviations="π always counts true labels; with a teacher's targets the margin loss with the balanced objective"
        " takes the mean of the targets instead (with labels and τ = 1 the two are one loss). The authors' code adds"
        " 1e-12 to π^τ. Predictions take the scores as they are, as in the paper",
    )
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(math.isfinite(self.tau), self.name, "tau", "finite", self.tau)

    def prepare(self, context: Context) -> None:
        counts = counts_of(context, self.name)
        self._shift = self.tau * (counts / counts.sum()).log()

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        if batch.targets is None:
            raise InputError("the batch must carry targets, got None")
        soft = batch.targets.is_floating_point()
        targets = probabilities_of(batch, outputs) if soft else batch.targets.long()
        return rounded(cross_entropy(exact(outputs) + self._shift, targets), outputs)

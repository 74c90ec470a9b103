"""AdaAlpha: each class trusts the teacher as far as the teacher is right on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustdistill.data.batches import Batch
from robustdistill.errors import InputError, unknown
from robustdistill.losses import exact, rounded
from robustdistill.methods.base import Card, Context, Method
from robustdistill.methods.parts import class_margins, cross_entropy, labels_of, probabilities_of

SOURCES = ("validation", "train")


@dataclass
class AdaAlpha(Method):
    """A mixture of the one-hot and the distillation loss, with a weight for each class.

    Attributes:
        source: the examples that the weights are measured on: "validation", held out from the teacher, or "train".
    """

    source: str = "validation"

    name: ClassVar[str] = "ada-alpha"
    card: ClassVar[Card] = Card(
        title="AdaAlpha",
        equation="(1 − α_y) · CE(f, y) + α_y · CE(f, p), y the label, p the teacher's probabilities,"
        " α_y = max(0, mean of γ_y over examples of class y), γ_y = p_y − (1/(C−1)) Σ_{j≠y} p_j",
        source="Lukasik et al. 2021, 'Teacher's pet'; Section 6 and Appendix E.5 of the robust distillation paper",
        when="a teacher that is good on some classes and wrong on others, with labels at hand",
        when_not="few validation examples a class (α_y is their mean), or unlabelled data",
        deviations="written from Section 6, which does not say on which examples α_y is measured: held-out (validation)"
        " ones by default. On training examples a teacher that has memorised them gets α = 1, which is plain"
        " distillation. p is at the temperature of the targets, in α too",
    )
    needs_teacher: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    uses_costs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown(f"source of method {self.name}", self.source, SOURCES)

    def prepare(self, context: Context) -> None:
        held_out = self.source == "validation"
        teacher = context.teacher_val if held_out else context.teacher_train
        labels = context.val_labels if held_out else context.train_labels
        if teacher is None or labels is None:
            raise InputError(f"method {self.name} needs labels and a teacher's predictions on {self.source}")
        self.alpha = class_alphas(teacher(), labels)

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        labels, p, f = labels_of(batch, outputs), probabilities_of(batch, outputs), exact(outputs)
        alpha = self.alpha[labels]
        return rounded((1 - alpha) * cross_entropy(f, labels) + alpha * cross_entropy(f, p), outputs)


def class_alphas(p: Tensor, labels: Tensor) -> Tensor:
    """α (C,) in [0, 1] from a teacher's probabilities (M, C) on examples with `labels` (M,).

    Raises:
        InputError: a class has no example to measure it on.
    """
    labels = labels.long()
    own = class_margins(exact(p)).gather(1, labels.unsqueeze(1)).squeeze(1)
    counts = torch.bincount(labels, minlength=p.shape[1])
    missing = torch.nonzero(counts == 0).flatten().tolist()
    if missing:
        raise InputError(f"method ada-alpha needs examples of every class to measure; none of {missing[:5]}")
    return (torch.zeros_like(p[0], dtype=own.dtype).index_add(0, labels, own) / counts).clamp(0, 1)

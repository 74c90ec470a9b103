"""Random problems for methods: batches with everything that a method may ask for, and the context of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustdistill import methods
from robustdistill.data.batches import Batch
from robustdistill.methods import Context, Method


@dataclass(frozen=True)
class Problem:
    """Logits (B, C), a teacher's logits, labels, and class counts; the targets are the teacher's at temperature 2."""

    logits: Tensor
    teacher: Tensor
    labels: Tensor
    counts: Tensor
    temperature: float = 2.0

    @property
    def targets(self) -> Tensor:
        return torch.softmax(self.teacher / self.temperature, dim=1)

    def batch(self, *, teacher: bool = True) -> Batch:
        size = len(self.labels)
        where = torch.arange(size)
        if not teacher:
            return Batch(where, where, torch.zeros(size, 1), size, self.labels, self.labels)
        return Batch(where, where, torch.zeros(size, 1), size, self.targets, self.labels, self.teacher)

    def batch_for(self, method: Method) -> Batch:
        """What a run gives this method: a teacher where it needs one, labels as targets otherwise."""
        return self.batch(teacher=method.needs_teacher)

    def context(self, epochs: int = 10) -> Context:
        """Held-out predictions are those of one more problem, with examples of every class."""
        num_classes = len(self.counts)
        labels = torch.arange(num_classes).repeat(3)

        def held_out(sharpness: float) -> Tensor:
            logits = torch.randn(len(labels), num_classes, generator=torch.Generator().manual_seed(5))
            logits[torch.arange(len(labels)), labels] += 2
            return torch.softmax(sharpness * logits / self.temperature, dim=1)

        return Context(
            epochs,
            self.counts,
            self.counts / self.counts.sum(),
            labels,
            labels,
            lambda: held_out(1),
            lambda: held_out(3),
        )

    def prepared(self, text: str, *, epoch: int | None = None) -> Method:
        method = methods.get(text)
        method.prepare(self.context())
        if epoch is not None:
            method.on_epoch(epoch)
        return method

    def with_(self, **changes: Tensor) -> Problem:
        return replace(self, **changes)


def problem(rows: int = 7, num_classes: int = 5, *, kind: str = "ordinary", seed: int = 0) -> Problem:
    """A problem of one kind:

    ordinary: nothing special. huge: logits of both up to 1e4. certain: a teacher whose probabilities are exactly 0 and
    1. agreeing: student and teacher alike. equal: all logits of the student are one number. spiked: one logit of 1e4.
    """
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, rows, num_classes, generator=generator)
    labels = torch.randint(num_classes, (rows,), generator=generator)
    if kind == "huge":
        logits, teacher = 1e4 * (2 * torch.rand(2, rows, num_classes, generator=generator) - 1)
    elif kind == "certain":
        teacher = torch.zeros_like(teacher).scatter_(1, labels.unsqueeze(1), 1e4)
    elif kind == "agreeing":
        teacher = logits.clone()
    elif kind == "equal":
        logits = torch.full_like(logits, 2.5)
    elif kind == "spiked":
        logits[torch.arange(rows), (labels + torch.arange(rows) % 2) % num_classes] = 1e4
    counts = torch.floor(500 * 0.01 ** (torch.arange(num_classes) / (num_classes - 1))).long()
    return Problem(logits, teacher, labels, counts)


KINDS = ["ordinary", "huge", "certain", "agreeing", "equal", "spiked"]

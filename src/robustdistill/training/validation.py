"""What validation is used for while training: the risks that move the multipliers, and the scores of the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill.data.stream import Loaded
from robustdistill.errors import DivergedError
from robustdistill.groups import Groups
from robustdistill.methods.parts import over_processes
from robustdistill.metrics import Scores
from robustdistill.models import evaluating
from robustdistill.risks import RiskLoss, Risks, class_risks
from robustdistill.training.evaluate import BATCH_SIZE
from robustdistill.training.processes import Processes
from robustdistill.training.replicas import joint_logits


class Validation:
    """Validation examples with the targets that their risks are taken against.

    Args:
        data: the examples.
        targets: (M,) labels or (M, C) a teacher's probabilities.
        risk: the loss whose risks are measured.
        sample: examples drawn afresh for each update; None for all of them.
        seed: of those draws.
        processes: each takes its share of the batches, the sums are added.
        groups: whose risks are measured; classes by default.
    """

    def __init__(
        self,
        data: Loaded,
        targets: Tensor,
        *,
        risk: RiskLoss,
        sample: int | None,
        seed: int,
        processes: Processes,
        groups: Groups | None = None,
    ) -> None:
        self.data, self.targets, self.risk, self.seed, self.processes = data, targets, risk, seed, processes
        self.labels = targets.argmax(dim=1) if data.labels is None else data.labels
        self.groups, self.sides = groups, None
        if groups is not None:
            self.sides = torch.from_numpy(data.examples.require_groups()).to(data.device)
        self.labelled_by: Literal["true", "teacher"] = "teacher" if data.labels is None else "true"
        self.sample = sample if sample is not None and sample < len(data) else None

    def risks(self, model: nn.Module, step: int) -> Risks:
        """The model's risk on each class (or group), measured after optimiser step `step`, which decides the draw."""
        size = self.data.examples.num_classes if self.groups is None else len(self.groups.names)
        nothing = torch.zeros(size, dtype=torch.float64, device=self.data.device)
        risks = Risks(nothing, nothing)
        for seen, logits in self._batches(model, self._draw(step)):
            if self.groups is None or self.sides is None:
                risks = risks + class_risks(logits, self.targets[seen], loss=self.risk)
            else:
                risks = risks + self.groups.risks(logits, self.targets[seen], self.sides[seen], loss=self.risk)
        return Risks(*over_processes(torch.stack([risks.sums, risks.counts])))

    def scores(self, model: nn.Module) -> Scores:
        """Accuracy by class, as in `all_scores`."""
        return self.all_scores(model)[0]

    def all_scores(self, model: nn.Module) -> tuple[Scores, Scores | None]:
        """Accuracy by class on all validation examples, against their labels or, where they have none, the teacher's.

        Returns:
            Scores by class, and by group where there are groups.

        Raises:
            DivergedError: the model's logits are not finite.
        """
        examples, classes = self.data.examples, self.data.examples.num_classes
        group = None if self.groups is None or self.sides is None else self.groups.index(self.sides, self.labels)
        size = 0 if self.groups is None else len(self.groups.names)
        right = torch.zeros(classes + 1 + size + 1, dtype=torch.float64, device=self.data.device)
        for seen, logits in self._batches(model, torch.arange(len(self.data))):
            labels = self.labels[seen]
            hits = (logits.argmax(dim=1) == labels).double()
            right.index_add_(0, labels, hits)
            right[classes] += (~logits.isfinite()).any()
            if group is not None:  # -1, of those in no group, is the last place
                right.index_add_(0, torch.where(group[seen] < 0, size, group[seen]) + classes + 1, hits)
        found = over_processes(right).cpu().numpy()
        if found[classes]:
            raise DivergedError("the model's validation logits are not finite; lower learning_rate")
        counts = torch.bincount(self.labels, minlength=classes).cpu().numpy()
        by_class = Scores(found[:classes].astype(np.int64), counts, examples.class_names)
        if group is None or self.groups is None:
            return by_class, None
        counts = torch.bincount(group[group >= 0], minlength=size).cpu().numpy()
        return by_class, Scores(found[classes + 1 : -1].astype(np.int64), counts, self.groups.names)

    def _batches(self, model: nn.Module, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (B,) and logits (B, C) of clean examples, a batch at a time: (M, C) may be more than fits.

        Of several processes each gets whole batches, the very ones of one process: hence the very same logits.
        """
        shares = torch.split(positions, BATCH_SIZE)[self.processes.index :: self.processes.count]
        mine = torch.cat([positions[:0], *shares]).to(self.data.device)
        for batch in self.data.clean(BATCH_SIZE, mine):
            with evaluating(model), torch.inference_mode():
                together = joint_logits(model, batch.inputs)
                logits = (model(batch.inputs) if together is None else together).float()
            yield batch.positions, logits

    def _draw(self, step: int) -> Tensor:
        if self.sample is None:
            return torch.arange(len(self.data))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return torch.randperm(len(self.data), generator=generator)[: self.sample].sort().values

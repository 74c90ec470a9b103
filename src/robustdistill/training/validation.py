"""What validation is used for while training: the risks that move the multipliers, and the scores of the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill.data.stream import Loaded
from robustdistill.errors import DivergedError
from robustdistill.methods.parts import over_processes
from robustdistill.metrics import Scores
from robustdistill.models import evaluating
from robustdistill.risks import RiskLoss, Risks, class_risks
from robustdistill.training.evaluate import BATCH_SIZE
from robustdistill.training.processes import Processes


class Validation:
    """Validation examples with the targets that their risks are taken against.

    Args:
        data: the examples.
        targets: (M,) labels or (M, C) a teacher's probabilities.
        risk: the loss whose risks are measured.
        sample: examples drawn afresh for each update; None for all of them.
        seed: of those draws.
        processes: each takes its share of the batches, the sums are added.
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
    ) -> None:
        self.data, self.targets, self.risk, self.seed, self.processes = data, targets, risk, seed, processes
        self.labels = targets.argmax(dim=1) if data.labels is None else data.labels
        self.labelled_by: Literal["true", "teacher"] = "teacher" if data.labels is None else "true"
        self.sample = sample if sample is not None and sample < len(data) else None

    def risks(self, model: nn.Module, step: int) -> Risks:
        """The model's risk on each class, measured after optimiser step `step`, which decides what is drawn."""
        nothing = torch.zeros(self.data.examples.num_classes, dtype=torch.float64, device=self.data.device)
        risks = Risks(nothing, nothing)
        for seen, logits in self._batches(model, self._draw(step)):
            risks = risks + class_risks(logits, self.targets[seen], loss=self.risk)
        return Risks(*over_processes(torch.stack([risks.sums, risks.counts])))

    def scores(self, model: nn.Module) -> Scores:
        """Accuracy by class on all validation examples, against their labels or, where they have none, the teacher's.

        Raises:
            DivergedError: the model's logits are not finite.
        """
        examples, classes = self.data.examples, self.data.examples.num_classes
        right = torch.zeros(classes + 1, dtype=torch.float64, device=self.data.device)
        for seen, logits in self._batches(model, torch.arange(len(self.data))):
            labels = self.labels[seen]
            right.index_add_(0, labels, (logits.argmax(dim=1) == labels).double())
            right[classes] += (~logits.isfinite()).any()
        *correct, broken = over_processes(right).tolist()
        if broken:
            raise DivergedError("training diverged: the model's validation logits are not finite; lower learning_rate")
        counts = torch.bincount(self.labels, minlength=classes).cpu().numpy()
        return Scores(np.array(correct, dtype=np.int64), counts, examples.class_names)

    def _batches(self, model: nn.Module, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (B,) and logits (B, C) of clean examples, a batch at a time: (M, C) may be more than fits.

        Of several processes each gets whole batches, the very ones of one process: hence the very same logits.
        """
        shares = torch.split(positions, BATCH_SIZE)[self.processes.index :: self.processes.count]
        mine = torch.cat([positions[:0], *shares]).to(self.data.device)
        for batch in self.data.clean(BATCH_SIZE, mine):
            with evaluating(model), torch.inference_mode():
                logits = model(batch.inputs).float()
            yield batch.positions, logits

    def _draw(self, step: int) -> Tensor:
        if self.sample is None:
            return torch.arange(len(self.data))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return torch.randperm(len(self.data), generator=generator)[: self.sample].sort().values

"""What validation is used for while training: the risks that move the multipliers, and the scores of the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from robustdistill.data.stream import Loaded
from robustdistill.errors import DivergedError
from robustdistill.metrics import Scores
from robustdistill.models import evaluating
from robustdistill.risks import RiskLoss, Risks, class_risks
from robustdistill.training.evaluate import BATCH_SIZE

if TYPE_CHECKING:
    from accelerate import Accelerator


class Validation:
    """Validation examples with the targets that their risks are taken against.

    Args:
        data: the examples.
        targets: (M,) labels or (M, C) a teacher's probabilities.
        risk: the loss whose risks are measured.
        sample: examples drawn afresh for each update; None for all of them.
        seed: of those draws.
        accelerator: each process measures its share, the sums are added.
    """

    def __init__(
        self,
        data: Loaded,
        targets: Tensor,
        *,
        risk: RiskLoss,
        sample: int | None,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self.data, self.targets, self.risk, self.seed, self.accelerator = data, targets, risk, seed, accelerator
        self.labels = targets.argmax(dim=1) if data.labels is None else data.labels
        self.labelled_by: Literal["true", "teacher"] = "teacher" if data.labels is None else "true"
        self.sample = sample if sample is not None and sample < len(data) else None

    def risks(self, model: nn.Module, step: int) -> Risks:
        """The model's risk on each class, measured after optimiser step `step`, which decides what is drawn."""
        positions = self._draw(step)[self.accelerator.process_index :: self.accelerator.num_processes]
        nothing = torch.zeros(self.data.examples.num_classes, dtype=torch.float64, device=self.data.device)
        risks = Risks(nothing, nothing)
        for seen, logits in self._batches(model, positions.to(self.data.device)):
            risks = risks + class_risks(logits, self.targets[seen], loss=self.risk)
        if self.accelerator.num_processes == 1:
            return risks
        return Risks(self.accelerator.reduce(risks.sums, "sum"), self.accelerator.reduce(risks.counts, "sum"))

    def scores(self, model: nn.Module) -> Scores:
        """Accuracy by class on all validation examples, against their labels or, where they have none, the teacher's.

        Raises:
            DivergedError: the model's logits are not finite.
        """
        examples = self.data.examples
        predicted, finite = zip(
            *((logits.argmax(dim=1), logits.isfinite().all()) for _, logits in self._batches(model)), strict=True
        )
        if not bool(torch.stack(finite).all()):
            raise DivergedError("training diverged: the model's validation logits are not finite; lower learning_rate")
        return Scores.of(
            torch.cat(predicted).cpu().numpy(),
            labels=self.labels.cpu().numpy(),
            num_classes=examples.num_classes,
            class_names=examples.class_names,
        )

    def _batches(self, model: nn.Module, positions: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (B,) and logits (B, C) of clean examples, a batch at a time: (M, C) may be more than fits."""
        for batch in self.data.clean(BATCH_SIZE, positions):
            with evaluating(model), torch.inference_mode():
                logits = model(batch.inputs).float()
            yield batch.positions, logits

    def _draw(self, step: int) -> Tensor:
        if self.sample is None:
            return torch.arange(len(self.data))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return torch.randperm(len(self.data), generator=generator)[: self.sample].sort().values

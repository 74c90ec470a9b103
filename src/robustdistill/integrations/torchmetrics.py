"""`torchmetrics.Metric` classes of the accuracies in `robustdistill.metrics`.

Each keeps two counts a class, which add over batches and processes, and computes by `robustdistill.metrics.Scores`, so
that the numbers are the same wherever they are taken. A class that has not been seen has recall NaN, and the worst
class, the worst k and the balanced accuracy are then NaN too.

    from robustdistill.integrations.torchmetrics import WorstClassAccuracy

    metric = WorstClassAccuracy(num_classes=10)
    metric.update(logits, labels)  # any number of times
    metric.compute()
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustdistill.errors import InputError
from robustdistill.metrics import Scores

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "robustdistill.integrations.torchmetrics needs torchmetrics, which is not installed: "
        "pip install 'robustdistill[torchmetrics]'"
    ) from error

__all__ = ["BalancedAccuracy", "PerClassRecall", "StandardAccuracy", "WorstClassAccuracy", "WorstKAccuracy"]


class _ClassCounts(Metric):
    """How often each class was seen and was right.

    Args:
        num_classes: C, at least 2.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise InputError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        for state in ("correct", "counts"):
            self.add_state(state, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            predictions: logits or probabilities (B, C), of which the highest counts, or predicted classes (B,).
            labels: (B,) true class indices.

        Raises:
            InputError: shapes or dtypes do not fit, an index lies outside [0, C), or a score is NaN or infinite.
        """
        predicted = self._indices(self._chosen(predictions), "predictions")
        true = self._indices(labels, "labels")
        if predicted.shape != true.shape:
            raise InputError(f"predictions and labels must be of one length, got {len(predicted)} and {len(true)}")
        self.counts += torch.bincount(true, minlength=self.num_classes)
        self.correct += torch.bincount(true[predicted == true], minlength=self.num_classes)

    def _chosen(self, predictions: Tensor) -> Tensor:
        if not predictions.is_floating_point():
            return predictions
        if predictions.ndim != 2 or predictions.shape[1] != self.num_classes:
            raise InputError(f"scores must have the shape (B, {self.num_classes}), got {tuple(predictions.shape)}")
        if not torch.isfinite(predictions).all():
            raise InputError("scores must be finite, got NaN or infinity")
        return predictions.argmax(dim=1)

    def _indices(self, values: Tensor, name: str) -> Tensor:
        if values.ndim != 1 or values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise InputError(
                f"{name} must be integer class indices of shape (B,), got {values.dtype} {tuple(values.shape)}"
            )
        outside = values[(values < 0) | (values >= self.num_classes)]
        if len(outside):
            raise InputError(f"{name} must lie in 0..{self.num_classes - 1}, got {int(outside[0])}")
        return values.long()

    def _scores(self) -> Scores:
        return Scores(self.correct.cpu().numpy(), self.counts.cpu().numpy())

    def _fraction(self, value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=self.counts.device)


class PerClassRecall(_ClassCounts):
    """(C,) recall of each class, in [0, 1]; NaN for a class that has not been seen."""

    def compute(self) -> Tensor:
        """(C,) float32."""
        return self._fraction(self._scores().per_class)


class WorstClassAccuracy(_ClassCounts):
    """The lowest recall of any class, in [0, 1]; NaN until every class has been seen."""

    def compute(self) -> Tensor:
        """A float32 scalar."""
        return self._fraction(self._scores().worst_class)


class WorstKAccuracy(_ClassCounts):
    """The mean of the k lowest recalls, in [0, 1]; NaN until every class has been seen.

    Args:
        num_classes: C.
        k: in 1..C; 1 is the worst class, C the balanced accuracy.
        **kwargs: those of `torchmetrics.Metric`.
    """

    def __init__(self, num_classes: int, k: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        if not 1 <= k <= num_classes:
            raise InputError(f"k must lie in 1..{num_classes}, got {k}")
        self.k = k

    def compute(self) -> Tensor:
        """A float32 scalar."""
        return self._fraction(self._scores().worst_k(self.k))


class BalancedAccuracy(_ClassCounts):
    """The mean recall over classes, in [0, 1]; NaN until every class has been seen."""

    def compute(self) -> Tensor:
        """A float32 scalar."""
        return self._fraction(self._scores().balanced)


class StandardAccuracy(_ClassCounts):
    """The share of all examples that are right, in [0, 1]; NaN before the first."""

    def compute(self) -> Tensor:
        """A float32 scalar."""
        return self._fraction(self._scores().standard)

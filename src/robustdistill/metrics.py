"""Accuracy by class first, everything else from it, with intervals. NumPy only.

The functions take class indices and are keyword-only in `labels`, so that nobody swaps the two. A class without
examples has recall NaN, and the worst class and the balanced accuracy are then NaN too: unknown is not zero, and
nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError

_CELLS = 2**20  # Of resampled recalls at once: some tens of MB, whatever the number of classes.

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def per_class_recall(predictions: npt.ArrayLike, *, labels: npt.ArrayLike, num_classes: int) -> FloatArray:
    """(C,) the share of each class's examples that were predicted as it, in [0, 1]; NaN for a class without examples.

    Args:
        predictions: (N,) predicted class indices.
        labels: (N,) true class indices.
        num_classes: C.

    Raises:
        InputError: shapes differ, or an index lies outside [0, C).

    >>> per_class_recall([0, 1, 1], labels=[0, 0, 1], num_classes=3)
    array([0.5, 1. , nan])
    """
    return Scores.of(predictions, labels=labels, num_classes=num_classes).per_class


def worst_class_accuracy(predictions: npt.ArrayLike, *, labels: npt.ArrayLike, num_classes: int) -> float:
    """The lowest recall of any class; NaN where a class has no examples. Arguments as in `per_class_recall`."""
    return Scores.of(predictions, labels=labels, num_classes=num_classes).worst_class


def worst_k_accuracy(predictions: npt.ArrayLike, *, labels: npt.ArrayLike, num_classes: int, k: int) -> float:
    """The mean of the k lowest recalls; NaN where a class has no examples. Arguments as in `per_class_recall`."""
    return Scores.of(predictions, labels=labels, num_classes=num_classes).worst_k(k)


def balanced_accuracy(predictions: npt.ArrayLike, *, labels: npt.ArrayLike, num_classes: int) -> float:
    """The mean recall over classes; NaN where a class has no examples. Arguments as in `per_class_recall`."""
    return Scores.of(predictions, labels=labels, num_classes=num_classes).balanced


def standard_accuracy(predictions: npt.ArrayLike, *, labels: npt.ArrayLike, num_classes: int) -> float:
    """The share of all examples that were predicted right. Arguments as in `per_class_recall`."""
    return Scores.of(predictions, labels=labels, num_classes=num_classes).standard


@dataclass(frozen=True, eq=False)
class Scores:
    """How often each class was right, and what follows from it. All figures are fractions in [0, 1].

    Attributes:
        correct: (C,) examples of each class that were predicted right.
        counts: (C,) examples of each class.
        class_names: C names, or None.

    Raises:
        InputError: lengths differ, or a class has more correct examples than examples.
    """

    correct: IntArray
    counts: IntArray
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        correct, counts = np.asarray(self.correct), np.asarray(self.counts)
        for name, array in (("correct", correct), ("counts", counts)):
            if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
                raise InputError(f"{name} must be finite numbers, got {array.dtype} {array.ravel()[:8].tolist()}")
        if correct.ndim != 1 or correct.shape != counts.shape or len(counts) == 0:
            raise InputError(f"correct and counts must both be (C,), C >= 1, got {correct.shape} and {counts.shape}")
        if self.class_names is not None and len(self.class_names) != len(counts):
            raise InputError(f"class_names must be {len(counts)}, one for each count, got {len(self.class_names)}")
        if len(bad := np.flatnonzero((correct < 0) | (correct > counts))):
            index = bad[0]
            raise InputError(f"correct must lie in 0..counts; class {index} has {correct[index]} of {counts[index]}")

    @classmethod
    def of(
        cls,
        predictions: npt.ArrayLike,
        *,
        labels: npt.ArrayLike,
        num_classes: int,
        class_names: Sequence[str] | None = None,
    ) -> Scores:
        """Counts from (N,) predicted and (N,) true class indices; errors as in `per_class_recall`."""
        predicted, true = _indices(predictions, "predictions", num_classes), _indices(labels, "labels", num_classes)
        if predicted.shape != true.shape:
            raise InputError(f"predictions and labels must have one length, got {len(predicted)} and {len(true)}")
        counts = np.bincount(true, minlength=num_classes).astype(np.int64)
        correct = np.bincount(true[predicted == true], minlength=num_classes).astype(np.int64)
        return cls(correct, counts, tuple(class_names) if class_names is not None else None)

    @classmethod
    def by_group(
        cls,
        predictions: npt.ArrayLike,
        *,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike,
        num_classes: int,
        group_names: Sequence[str],
    ) -> Scores:
        """The same counts for groups of examples in the place of classes: `worst_class` is then the worst group.

        Args:
            predictions: (N,) predicted class indices.
            labels: (N,) true class indices.
            groups: (N,) group indices in [0, G).
            num_classes: C.
            group_names: G names, which become `class_names`.

        Raises:
            InputError: shapes differ, or an index lies out of range.

        >>> Scores.by_group([0, 1, 1], labels=[0, 1, 0], groups=[0, 1, 1], num_classes=2, group_names="ab").per_class
        array([1. , 0.5])
        """
        predicted, true = _indices(predictions, "predictions", num_classes), _indices(labels, "labels", num_classes)
        groups = _indices(groups, "groups", len(group_names))
        if not len(predicted) == len(true) == len(groups):
            raise InputError(
                "predictions, labels and groups must have one length, got"
                f" {len(predicted)}, {len(true)} and {len(groups)}"
            )
        right = predicted == true
        counts = np.bincount(groups, minlength=len(group_names)).astype(np.int64)
        correct = np.bincount(groups[right], minlength=len(group_names)).astype(np.int64)
        return cls(correct, counts, tuple(group_names))

    @property
    def per_class(self) -> FloatArray:
        """(C,) recalls; NaN for a class without examples."""
        return _ratio(self.correct, self.counts)

    @property
    def worst_class(self) -> float:
        """The lowest recall."""
        return float(self.per_class.min())

    @property
    def balanced(self) -> float:
        """The mean recall over classes."""
        return float(self.per_class.mean())

    @property
    def standard(self) -> float:
        """The share of all examples that were right; NaN where there are none."""
        return float(_ratio(self.correct.sum(), self.counts.sum()))

    def worst_k(self, k: int) -> float:
        """The mean of the k lowest recalls.

        Raises:
            InputError: k is not in 1..C.
        """
        if not 1 <= k <= len(self.counts):
            raise InputError(f"k must lie in 1..{len(self.counts)}, got {k}")
        return float(np.sort(self.per_class)[:k].mean()) if np.all(self.counts) else float("nan")

    def wilson(self, level: float = 0.95) -> FloatArray:
        """(C, 2) Wilson score interval of each recall (Wilson 1927); NaN for a class without examples."""
        _check_level(level)
        z = NormalDist().inv_cdf(0.5 + level / 2)
        n = np.where(self.counts > 0, self.counts, np.nan)
        recall = self.correct / n
        centre = (recall + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(recall * (1 - recall) / n + z**2 / (4 * n**2))
        return np.stack([np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)], axis=1)

    def intervals(
        self, level: float = 0.95, draws: int = 2000, seed: int = 0, worst_k: int | None = None
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of "worst_class", "balanced" and "standard", resampled within each class.

        With `worst_k`, also of "worst_k", the mean of that many lowest recalls.

        The minimum is taken anew in every draw, so the interval of the worst class is that of the *lowest of C noisy
        recalls*, which lies below the recall of the class that is truly worst; it is not corrected for that.

        Takes O(draws · C) time, 20 seconds for 100,000 classes, and memory for about a million recalls.
        """
        _check_level(level)
        rng, chances = np.random.default_rng(seed), np.nan_to_num(self.per_class)
        rows = max(1, _CELLS // max(1, len(self.counts)))
        # Draw follows draw in the generator's stream, so that it does not matter how many are taken at once.
        parts = [self._resampled(rng, chances, min(rows, draws - start), worst_k) for start in range(0, draws, rows)]
        tail = (1 - level) / 2
        names = ("worst_class", "balanced", "standard") + (() if worst_k is None else ("worst_k",))
        return {
            name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
            for name, values in zip(names, np.concatenate(parts, axis=1), strict=True)
        }

    def _resampled(self, rng: np.random.Generator, chances: FloatArray, draws: int, k: int | None) -> FloatArray:
        """(3 or 4, draws) worst-class, balanced, standard and worst-k accuracies of as many resampled sets."""
        correct = rng.binomial(self.counts, chances, (draws, len(self.counts)))
        recalls = _ratio(correct, np.broadcast_to(self.counts, correct.shape))
        standard = _ratio(correct.sum(axis=1), np.full(draws, self.counts.sum()))
        found = [recalls.min(axis=1), recalls.mean(axis=1), standard]
        if k is not None:
            lowest = np.partition(recalls, k - 1, axis=1)[:, :k].mean(
                axis=1
            )  # NaN sorts last: classes without examples
            found.append(np.where(np.isnan(found[0]), np.nan, lowest))
        return np.stack(found)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as runs record them; `from_dict` reads them back."""
        return {
            "correct": self.correct.tolist(),
            "counts": self.counts.tolist(),
            "worst_class": self.worst_class,
            "balanced": self.balanced,
            "standard": self.standard,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], class_names: Sequence[str] | None = None) -> Scores:
        """From what `as_dict` gave."""
        return cls(
            _whole(values["correct"], "correct"),
            _whole(values["counts"], "counts"),
            tuple(class_names) if class_names is not None else None,
        )


def _counts(array: npt.NDArray[Any]) -> bool:
    """Whether its values are whole numbers; NumPy makes an empty list one of float64."""
    return array.dtype.kind in "iu" or (array.size == 0 and array.dtype.kind == "f")


def _whole(values: npt.ArrayLike, name: str) -> IntArray:
    array = np.asarray(values)
    if not _counts(array):
        raise InputError(f"{name} must be whole numbers, got {array.dtype} {array.ravel()[:8].tolist()}")
    return array.astype(np.int64)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), such as 0.95, got {level}")


def _ratio(part: Any, whole: Any) -> FloatArray:
    whole = np.asarray(whole, dtype=np.float64)
    ratio: FloatArray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


def _indices(values: npt.ArrayLike, name: str, num_classes: int) -> IntArray:
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, got {num_classes}")
    array = np.asarray(values)
    if array.ndim != 1 or not _counts(array):
        raise InputError(f"{name} must be integer class indices of shape (N,), got {array.dtype} {array.shape}")
    array = array.astype(np.int64)
    outside = np.flatnonzero((array < 0) | (array >= num_classes))
    if len(outside):
        raise InputError(f"{name} must lie in 0..{num_classes - 1}; row {outside[0]} has {array[outside[0]]}")
    return array

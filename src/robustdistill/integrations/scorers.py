"""scikit-learn scorers of the accuracies in `robustdistill.metrics`, for `scoring=`. Never imports torch.

A metric of scikit-learn is called as `metric(y_true, y_pred)`, and swapping the two turns recall into precision without
a word. These take an estimator, features and labels, as every scorer does, and refuse anything else in the first place;
labels and predictions that are at hand are named: `scorer.of(predictions=..., labels=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import unique_labels

from robustdistill.errors import InputError, unknown
from robustdistill.metrics import Scores

__all__ = ["AccuracyScorer", "balanced_accuracy_scorer", "worst_class_accuracy_scorer", "worst_k_accuracy_scorer"]

Measure = Literal["worst_class", "worst_k", "balanced"]


@dataclass(frozen=True)
class AccuracyScorer:
    """`scorer(estimator, X, y)`, higher is better: a summary of the recalls of the estimator's classes, in [0, 1].

    The classes are those of `estimator.classes_` and of y together; a class that the estimator does not know has
    recall 0. A class without rows has no recall, so that the summary is unknown and refused; within cross-validation
    scikit-learn turns that into NaN and a warning that says which class it was.

    Attributes:
        measure: "worst_class", the lowest recall; "worst_k", the mean of the k lowest; "balanced", the mean of all.
        k: of "worst_k".
        leave_out_absent: whether classes without rows are left out instead. Folds are then over different classes,
            and the worst class of one is not that of another.

    Raises:
        InputError: the measure is unknown, or k is missing, below 1 or without effect.

    >>> worst_class_accuracy_scorer.of(predictions=["cat", "cat", "dog"], labels=["cat", "dog", "dog"])
    0.5
    """

    measure: Measure = "worst_class"
    k: int | None = None
    leave_out_absent: bool = False

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise unknown("measure", str(self.measure), get_args(Measure))
        if (self.k is None) == (self.measure == "worst_k"):
            raise InputError(
                f"k must be given with measure 'worst_k' and only there, got {self.k} with {self.measure!r}"
            )
        if self.k is not None and self.k < 1:
            raise InputError(f"k must be at least 1, got {self.k}")

    def __call__(self, estimator: Any, X: Any, y: npt.ArrayLike) -> float:  # noqa: N803  # as scikit-learn names it
        """The estimator's figure on rows X (N, F) with labels y (N,).

        Raises:
            InputError: `estimator` cannot predict, or as `of`.
        """
        if not hasattr(estimator, "predict"):
            raise InputError(
                f"a scorer is called as scorer(estimator, X, y), got {type(estimator).__name__} for the estimator;"
                " for predictions at hand call scorer.of(predictions=..., labels=...)"
            )
        return self.of(predictions=estimator.predict(X), labels=y, classes=getattr(estimator, "classes_", None))

    def of(self, *, predictions: npt.ArrayLike, labels: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> float:
        """The figure of predicted labels (N,) against true labels (N,), names or numbers.

        Args:
            predictions: what was predicted.
            labels: what is true.
            classes: that there are besides those of `labels`.

        Raises:
            InputError: lengths differ, there are more lowest classes wanted than there are, or a class has no rows.
        """
        predicted, true = np.asarray(predictions), np.asarray(labels)
        if predicted.shape != true.shape or true.ndim != 1 or len(true) == 0:
            raise InputError(f"predictions and labels must both be (N,), got {predicted.shape} and {true.shape}")
        unique_labels(true, predicted)  # refuses names against numbers, which would never be equal
        names, indices = np.unique(true, return_inverse=True)
        counts = np.bincount(indices)
        correct = np.bincount(indices[predicted == true], minlength=len(names))
        there = set(names.tolist())
        absent = [] if classes is None else [name for name in np.asarray(classes).tolist() if name not in there]
        if absent and not self.leave_out_absent:
            raise InputError(
                f"labels must have rows of every class; class {absent[0]!r} has none of {len(true)}"
                + (f" (and {len(absent) - 1} more)" if len(absent) > 1 else "")
                + ": take stratified folds and fewer of them, or AccuracyScorer(..., leave_out_absent=True)"
            )
        scores = Scores(correct, counts)
        if self.measure == "worst_k":
            assert self.k is not None
            return scores.worst_k(self.k)
        return scores.worst_class if self.measure == "worst_class" else scores.balanced


worst_class_accuracy_scorer = AccuracyScorer("worst_class")
balanced_accuracy_scorer = AccuracyScorer("balanced")


def worst_k_accuracy_scorer(k: int) -> AccuracyScorer:
    """The scorer of the mean of the k lowest recalls."""
    return AccuracyScorer("worst_k", k)

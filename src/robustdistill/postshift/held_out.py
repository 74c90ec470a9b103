"""What a shift is worth on examples that it was not fitted on, when there is only one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from robustdistill.errors import InputError
from robustdistill.metrics import Scores
from robustdistill.predictions import IntArray, Predictions

if TYPE_CHECKING:
    from robustdistill.postshift.estimator import PostShift


def cross_fitted(
    shift: PostShift, table: Predictions, robustness: Sequence[float], folds: int = 5, seed: int = 0
) -> list[Scores]:
    """Accuracy at each `robustness` of shifts that are fitted on all folds but one and counted on that one.

    The shifts so judged are fitted on fewer examples than one of the whole table, and are somewhat worse for it.

    Args:
        shift: whose method and settings to use; it stays as it is.
        table: with labels.
        robustness: the points of the curve.
        folds: parts, equal in every class.
        seed: of the parts.

    Raises:
        InputError: as `PostShift.fit`; or a class has fewer examples than there are folds, or folds are fewer than 2.
    """
    if folds < 2:
        raise InputError(f"folds must be at least 2, got {folds}")
    if table.labels is None:
        raise InputError("fitting needs labels, and these predictions have none")
    counts = np.bincount(table.labels, minlength=table.num_classes)
    if len(few := np.flatnonzero(counts < folds)):
        raise InputError(
            f"each class must have at least as many examples as folds ({folds}); {table.class_names[few[0]]!r} has "
            f"{counts[few[0]]}"
        )
    order = np.random.default_rng(seed).permutation(len(table))
    order = order[np.argsort(table.labels[order], kind="stable")]
    part = np.empty(len(table), dtype=np.int64)
    part[order] = np.arange(len(table)) % folds
    correct = np.zeros((len(robustness), table.num_classes), dtype=np.int64)
    for fold in range(folds):
        rest, held = table.rows(part != fold), table.rows(part == fold)
        labels = cast(IntArray, held.labels)
        for row, point in enumerate(shift.curve(rest, robustness)):
            right = labels[point.predict(held) == labels]
            correct[row] += np.bincount(right, minlength=table.num_classes)
    return [Scores(row, counts, table.class_names) for row in correct]

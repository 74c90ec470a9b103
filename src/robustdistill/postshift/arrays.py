"""Arrays in the place of tables, as scikit-learn's users have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.predictions import Kind, Predictions

Scored = Predictions | npt.ArrayLike


def as_table(scores: Scored, y: npt.ArrayLike | None, kind: Kind) -> tuple[Predictions, npt.NDArray[Any]]:
    """A labelled table of (N, C) scores and (N,) labels, and the (C,) distinct labels; a table as it is.

    Raises:
        InputError: labels are missing, not as many as rows, or not of as many classes as there are columns.
    """
    if isinstance(scores, Predictions):
        if y is not None:
            raise InputError("y must be left out where a table is given: it has its own labels")
        return scores, np.array(scores.class_names)
    if y is None:
        raise InputError("y must be given with an array of scores, got None")
    array, labels = np.asarray(scores), np.asarray(y)
    classes, indices = np.unique(labels, return_inverse=True)
    if array.ndim != 2 or labels.shape != array.shape[:1]:
        raise InputError(f"scores must be (N, C) and y (N,), got {array.shape} and {labels.shape}")
    if len(classes) != array.shape[1]:
        raise InputError(
            f"y must have examples of each of the {array.shape[1]} classes that scores have columns for, got "
            f"{len(classes)}: {', '.join(map(repr, classes[:6].tolist()))}"
        )
    names = tuple(map(str, classes.tolist()))
    return Predictions(np.arange(len(array)), array, kind, names, indices.reshape(-1)), classes


def as_unlabelled(scores: npt.ArrayLike, kind: Kind, class_names: Sequence[str]) -> Predictions:
    """A table of (N, C) scores in the order of these classes."""
    array = np.asarray(scores)
    if array.ndim != 2 or array.shape[1] != len(class_names):
        raise InputError(f"scores must be (N, {len(class_names)}), a column for each class, got {array.shape}")
    return Predictions(np.arange(len(array)), array, kind, tuple(class_names))

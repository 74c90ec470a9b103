"""Class priors: those that are given, and those that scores imply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.postshift.fit_table import FitTable
from robustdistill.predictions import FloatArray

Priors = Mapping[str, float] | Sequence[float] | npt.NDArray[Any]


def implied_log_priors(fit: FitTable, iterations: int = 200, tolerance: float = 1e-5) -> FloatArray:
    """Log π (C,), up to a constant, such that p_y/π_y, normalised, is uniform on average over the classes.

    This is the maximum of the likelihood of the labels over biases, classes weighing alike. The alternating
    normalisation of rows and columns (Sinkhorn & Knopp 1967) climbs to it. Its start, the mean log-score of each
    column, is itself equivariant, so the result is, wherever the iteration stops.
    """
    num_classes = len(fit.counts)
    shares = 1.0 / (num_classes * fit.counts[fit.labels])  # of each row; every class has 1/C in all
    centres = fit.scores.mean(axis=1, keepdims=True)
    start = shares @ (fit.scores - centres)
    scores = fit.scores - start.astype(fit.scores.dtype)
    with np.errstate(under="ignore"):
        # The bounds keep single precision from underflow and overflow; they bind for scores that are absurd.
        matrix = np.maximum(np.exp(scores - scores.max(axis=1, keepdims=True)), 1e-30)
    log_weights = np.zeros(num_classes)
    for _ in range(iterations):
        totals = matrix @ np.exp(log_weights).astype(matrix.dtype)
        update = -np.log((shares / totals).astype(matrix.dtype) @ matrix).astype(np.float64)
        update = np.clip(update - update.mean(), -60.0, 60.0)
        moved = np.abs(update - log_weights).max()
        log_weights = update
        if moved < tolerance:
            break
    log_priors: FloatArray = start - log_weights
    return log_priors


def checked_priors(priors: Priors, class_names: Sequence[str]) -> FloatArray:
    """π (C,) in the order of `class_names`."""
    if isinstance(priors, Mapping):
        check_same_names(priors, class_names, "class names of the priors must be those of the table")
        priors = [priors[name] for name in class_names]
    try:
        values = np.asarray(priors)
    except ValueError:  # rows of several lengths
        values = np.asarray(None)
    if values.dtype.kind not in "iuf":
        raise InputError(f"priors must be numbers, got {str(priors)[:80]!r}")
    values = values.astype(np.float64)
    if values.shape != (len(class_names),):
        raise InputError(f"priors must be (C,) = ({len(class_names)},), got {values.shape}")
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if len(bad):
        raise InputError(f"priors must be positive and finite; class {class_names[bad[0]]!r} has {values[bad[0]]:g}")
    with np.errstate(over="ignore"):
        total = values.sum()
    if not np.isfinite(total):
        raise InputError(f"priors must have a finite sum, got {values.tolist()[:8]}")
    shares: FloatArray = values / total
    return shares


def check_same_names(own: Mapping[str, Any], wanted: Sequence[str], rule: str) -> None:
    """Raises InputError, with `rule` and the differences, unless both hold the same names."""
    differences = {"missing": sorted(own.keys() - set(wanted)), "extra": [name for name in wanted if name not in own]}
    if any(differences.values()):
        parts = [f"{what} {', '.join(map(repr, names[:5]))}" for what, names in differences.items() if names]
        raise InputError(f"{rule}: {'; '.join(parts)}")

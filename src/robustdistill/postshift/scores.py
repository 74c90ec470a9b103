"""Log-scores of a table, and what wins when they are shifted."""

from __future__ import annotations

import numpy as np

from robustdistill.errors import InputError
from robustdistill.predictions import FloatArray, IntArray, Predictions

_CHUNK = 1 << 20  # entries of a block of rows that is worked on at once, so that it stays in the cache


def log_scores(table: Predictions) -> FloatArray:
    """(N, C) log-probabilities in the precision of the table; raises InputError where it holds classes only."""
    if table.kind == "classes":
        raise InputError("a shift needs logits or probabilities; these predictions hold predicted classes only")
    return table.log_probabilities()


def winners(scores: FloatArray, offsets: FloatArray) -> IntArray:
    """(N,) argmax of scores + offsets, in the precision of the scores."""
    offsets = offsets.astype(scores.dtype)
    winners = np.empty(len(scores), dtype=np.int64)
    step = max(1, _CHUNK // scores.shape[1])
    for begin in range(0, len(scores), step):
        winners[begin : begin + step] = (scores[begin : begin + step] + offsets).argmax(axis=1)
    return winners


def centred(offsets: FloatArray) -> FloatArray:
    """The same shift in float64, of mean 0."""
    centred: FloatArray = offsets.astype(np.float64) - offsets.mean(dtype=np.float64)
    return centred


def shifted_probabilities(scores: FloatArray, offsets: FloatArray) -> FloatArray:
    """(N, C) exp(scores + offsets), normalised, in the precision of the scores."""
    shifted = scores + offsets.astype(scores.dtype)
    with np.errstate(under="ignore"):
        weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        probabilities: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return probabilities

"""The labelled table that coefficients are fitted on, and what they are worth there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from robustdistill.errors import InputError
from robustdistill.postshift.scores import centred, log_scores, winners
from robustdistill.predictions import FloatArray, IntArray, Predictions


class Candidate(NamedTuple):
    """Coefficients that were tried."""

    offsets: FloatArray  # (C,) float64 log w, of mean 0
    recalls: FloatArray  # (C,) on the fit table


class FitTable(NamedTuple):
    """A labelled table, checked: every class has examples."""

    scores: FloatArray  # (N, C) log-probabilities
    labels: IntArray  # (N,)
    counts: IntArray  # (C,)
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, table: Predictions) -> FitTable:
        if table.labels is None:
            raise InputError("fitting needs labels, and these predictions have none")
        counts = np.bincount(table.labels, minlength=table.num_classes)
        if missing := [table.class_names[index] for index in np.flatnonzero(counts == 0)]:
            shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(f"the fit table must have examples of every class; it has none of {shown}")
        scores = log_scores(table)
        most = np.finfo(scores.dtype).max / (4 * table.num_classes)
        if max(scores.max(), -scores.min()) > most:
            raise InputError(
                f"logits to fit a shift on must be at most {most:.3g} in size, so that their means are finite"
            )
        return cls(scores, table.labels, counts, table.class_names)

    def recalls(self, predicted: IntArray) -> FloatArray:
        hits = self.labels[predicted == self.labels]
        recalls: FloatArray = np.bincount(hits, minlength=len(self.counts)) / self.counts
        return recalls

    def candidate(self, offsets: FloatArray) -> Candidate:
        offsets = centred(offsets)
        return Candidate(offsets, self.recalls(winners(self.scores, offsets)))


def merit_of(recalls: FloatArray, robustness: float) -> tuple[float, float, float]:
    """What is maximised, then what decides ties; rounded, so that the order of the classes does not matter."""
    balanced, worst = float(recalls.mean()), float(recalls.min())
    return round((1 - robustness) * balanced + robustness * worst, 12), round(balanced, 12), round(worst, 12)

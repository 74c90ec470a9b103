"""Search: one coefficient at a time, each set to the best of all its values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robustdistill.postshift.fit_table import Candidate, FitTable, merit_of
from robustdistill.predictions import FloatArray, IntArray

# Thresholds of the search that are closer than this (in log w) count as one: a coefficient between them would not
# survive rounding.
RESOLUTION = 1e-6


def search(fit: FitTable, start: FloatArray, robustness: float) -> Iterator[Candidate]:
    """The optimum reached from `start` and, where no shift at all is better than it, the one reached from there."""
    found = _climb(fit, start, robustness)
    yield found
    unshifted = np.zeros_like(start)
    if merit_of(fit.candidate(unshifted).recalls, robustness) > merit_of(found.recalls, robustness):
        yield _climb(fit, unshifted, robustness)


def _climb(fit: FitTable, start: FloatArray, robustness: float) -> Candidate:
    """Moves one coefficient at a time from `start`, that of the worst class first, until none improves."""
    offsets = start.astype(fit.scores.dtype)
    shifted = fit.scores + offsets
    rows = np.arange(len(shifted))
    first, second = _top_two(shifted)
    recalls = fit.recalls(first)
    by_name = np.argsort(np.argsort(np.array(fit.class_names)))  # so that the order of the columns does not matter
    improved = True
    while improved:
        improved = False
        for label in np.lexsort((by_name, recalls)):
            rivals = np.where(first == label, second, first)
            thresholds = shifted[rows, rivals] - shifted[:, label]
            step, merit = _line_search(thresholds, rivals, fit, label, robustness)
            if merit <= merit_of(recalls, robustness):
                continue
            before = shifted[:, label].copy()
            shifted[:, label] = fit.scores[:, label] + (offsets[label] + offsets.dtype.type(step))
            stale = (first == label) | (second == label) | (shifted[:, label] >= shifted[rows, second])
            kept = first[stale], second[stale]
            first[stale], second[stale] = _top_two(shifted[stale])
            moved = fit.recalls(first)
            if merit_of(moved, robustness) > merit_of(recalls, robustness):
                offsets[label] += offsets.dtype.type(step)
                recalls, improved = moved, True
            else:  # rounding has eaten what the line search saw
                shifted[:, label] = before
                first[stale], second[stale] = kept
    return fit.candidate(offsets)


def _line_search(
    thresholds: FloatArray, rivals: IntArray, fit: FitTable, label: int, robustness: float
) -> tuple[float, tuple[float, float, float]]:
    """The best change of log w_label, and its merit. Above its threshold a row is `label`'s, below it its rival's."""
    counts, num_classes = fit.counts, len(fit.counts)
    gain = fit.labels == label
    matter = np.flatnonzero(gain | (fit.labels == rivals))  # other rows are wrong either way
    matter = matter[np.argsort(thresholds[matter], kind="stable")]
    edges, classes, gain = thresholds[matter].astype(np.float64), fit.labels[matter], gain[matter]

    # Recalls where `label` wins nothing, then what each threshold that is passed adds to it or takes from another.
    correct = np.bincount(classes[~gain], minlength=num_classes)
    own = np.concatenate([[0], np.cumsum(gain)]) / counts[label]
    left = np.where(gain, np.inf, (correct[classes] - _occurrence(classes)) / counts[classes])
    others = np.delete(correct / counts, label)
    # The others only ever fall, so the lowest value seen so far is the lowest of them now.
    lowest = np.minimum.accumulate(np.concatenate([[others.min()], left]))
    changes = np.where(gain, 1.0, -1.0) / counts[classes]
    balanced = (np.concatenate([[0.0], np.cumsum(changes)]) + others.sum()) / num_classes
    worst = np.minimum(own, lowest)

    merits = np.round([(1 - robustness) * balanced + robustness * worst, balanced, worst], 12)
    usable = np.concatenate([[True], np.diff(edges) > RESOLUTION, [True]]) if len(edges) else np.array([True])
    best = np.flatnonzero(usable)
    for merit in merits:
        best = best[merit[best] == merit[best].max()]
    lower, upper = np.concatenate([[-np.inf], edges])[best], np.concatenate([edges, [np.inf]])[best]
    middles = np.where(np.isinf(lower), upper - 1.0, np.where(np.isinf(upper), lower + 1.0, (lower + upper) / 2))
    nearest = int(np.abs(middles).argmin())
    objective, mean, minimum = merits[:, best[nearest]].tolist()
    return float(middles[nearest]), (objective, mean, minimum)


def _occurrence(values: IntArray) -> IntArray:
    """1 for the first occurrence of a value, 2 for its second, and so on."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    positions = np.arange(len(values))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, positions, 0))
    occurrence = np.empty(len(values), dtype=np.int64)
    occurrence[order] = positions - starts + 1
    return occurrence


def _top_two(scores: FloatArray) -> tuple[IntArray, IntArray]:
    rows, first = np.arange(len(scores)), scores.argmax(axis=1)
    rest = scores.copy()
    rest[rows, first] = -np.inf
    return first, rest.argmax(axis=1)

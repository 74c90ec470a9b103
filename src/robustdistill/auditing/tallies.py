"""One pass over a table: every count and sum that an audit is made of, block by block, so that memory stays bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.predictions import IntArray, Predictions

BINS = 15  # of confidence, equally wide, as Guo et al. (2017) have them
MOST_CELLS = 2_000_000  # groups times classes beyond which a group column is taken for something else, such as an id
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bins:
    """Per key and bin of predicted probability: examples, the sum of what was predicted, and how often it was true.

    Attributes:
        counts: (K, BINS).
        predicted: (K, BINS) sums of predicted probabilities.
        true: (K, BINS) sums of outcomes.
    """

    counts: FloatArray
    predicted: FloatArray
    true: FloatArray

    @property
    def error(self) -> FloatArray:
        """(K,) expected calibration error: Σ_b n_b/n · |mean prediction − frequency|; NaN without examples."""
        totals = self.counts.sum(axis=1)
        gaps = np.abs(self.predicted - self.true).sum(axis=1)
        error: FloatArray = np.divide(gaps, totals, out=np.full(len(totals), np.nan), where=totals > 0)
        return error

    def merged(self, owner: IntArray, size: int) -> Bins:
        """The same for coarser keys: `owner` (K,) says which of `size` each key becomes."""
        return Bins(*(_summed(part, owner, size) for part in (self.counts, self.predicted, self.true)))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What probabilities say, against what happened.

    Attributes:
        top: bins of the confidence max_y p_y, keyed by the predicted cell (group · C + predicted class).
        classes: bins of p_y over all examples, keyed by class.
        log_loss: mean of −log p at the label, where p below 1e-12 counts as that.
        brier: mean of Σ_y (p_y − 1[y is the label])², in [0, 2].
    """

    top: Bins
    classes: Bins
    log_loss: float
    brier: float


@dataclass(frozen=True, eq=False)
class Tallies:
    """Counts by cell, a cell being a class, or a class within a group: group · C + class.

    Attributes:
        groups: names of the G groups; (None,) where a table has none.
        counts: (G·C,) examples by true cell.
        correct: (G·C,) of them those predicted right.
        predicted: (G·C,) examples by predicted cell.
        wrong: (M, 3) columns true cell, predicted class, count: each confusion that occurs, once.
        calibration: None where only classes are predicted.
    """

    class_names: tuple[str, ...]
    groups: tuple[str | None, ...]
    counts: IntArray
    correct: IntArray
    predicted: IntArray
    wrong: IntArray
    calibration: Calibration | None


def tally(table: Predictions) -> Tallies:
    """Counts a labelled table.

    Raises:
        InputError: there are no labels, or far more groups than an audit can show.
    """
    if table.labels is None:
        raise InputError("an audit needs labels, and these predictions have none")
    num_classes, labels, predicted = table.num_classes, table.labels, table.predicted
    names, owner = _grouped(table)
    cells = len(names) * num_classes
    if cells > MOST_CELLS:
        raise InputError(f"groups must be few, got {len(names):,} of them for {len(table):,} rows: is it an id?")
    true_cell, predicted_cell = owner * num_classes + labels, owner * num_classes + predicted
    right = predicted == labels
    codes, counts = np.unique(true_cell[~right] * num_classes + predicted[~right], return_counts=True)
    return Tallies(
        class_names=table.class_names,
        groups=names,
        counts=np.bincount(true_cell, minlength=cells),
        correct=np.bincount(true_cell[right], minlength=cells),
        predicted=np.bincount(predicted_cell, minlength=cells),
        wrong=np.stack([codes // num_classes, codes % num_classes, counts], axis=1),
        calibration=None if table.kind == "classes" else _calibration(table, labels, right, predicted_cell, cells),
    )


def _grouped(table: Predictions) -> tuple[tuple[str | None, ...], IntArray]:
    if table.groups is None:
        return (None,), np.zeros(len(table), dtype=np.int64)
    names = sorted(set(table.groups.tolist()), key=natural)
    position = {name: index for index, name in enumerate(names)}
    return tuple(names), np.array([position[name] for name in table.groups.tolist()], dtype=np.int64)


def natural(name: str) -> tuple[int, float, str]:
    """Whole numbers in their order, before text in its own."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


def _calibration(
    table: Predictions, labels: IntArray, right: npt.NDArray[np.bool_], predicted_cell: IntArray, cells: int
) -> Calibration:
    num_classes = table.num_classes
    confidence, at_label, squares = (np.empty(len(table)) for _ in range(3))
    counts, sums, hits = (np.zeros(num_classes * BINS) for _ in range(3))
    marginal = np.zeros(num_classes)
    for place, block in table.probability_blocks():
        truth = labels[place]
        confidence[place] = block.max(axis=1)
        at_label[place] = block[np.arange(len(block)), truth]
        squares[place] = np.einsum("nc,nc->n", block, block)
        marginal += block.sum(axis=0, dtype=np.float64)
        # Nearly all of many classes' probabilities lie in the lowest bin: it is what is left of the whole.
        rows, columns = np.nonzero(block >= 1 / BINS)
        values = block[rows, columns]
        codes = columns * BINS + _bin(values)
        counts += np.bincount(codes, minlength=len(counts))
        sums += np.bincount(codes, weights=values, minlength=len(counts))
        hits += np.bincount(codes[columns == truth[rows]], minlength=len(counts))
    classes = Bins(*(part.reshape(num_classes, BINS) for part in (counts, sums, hits)))
    totals = (np.full(num_classes, len(table)), marginal, np.bincount(labels, minlength=num_classes))
    for part, total in zip((classes.counts, classes.predicted, classes.true), totals, strict=True):
        part[:, 0] += total - part.sum(axis=1)
    codes = predicted_cell * BINS + _bin(confidence)
    top = (np.bincount(codes, weights=weights, minlength=cells * BINS) for weights in (None, confidence, right))
    return Calibration(
        top=Bins(*(np.asarray(part, dtype=np.float64).reshape(cells, BINS) for part in top)),
        classes=classes,
        log_loss=float(-np.log(np.maximum(at_label, 1e-12)).mean()),
        brier=float((squares - 2 * at_label + 1).mean()),
    )


def _bin(values: npt.NDArray[np.floating[Any]]) -> IntArray:
    return np.minimum((values * BINS).astype(np.int64), BINS - 1)


def _summed(part: FloatArray, owner: IntArray, size: int) -> FloatArray:
    result = np.zeros((size, part.shape[1]))
    np.add.at(result, owner, part)
    return result

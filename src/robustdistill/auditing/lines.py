"""The lines of an audit: one for each class, each group, and each class within a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.auditing.credible import LEVEL, Worst, worst
from robustdistill.auditing.tallies import Bins, Tallies
from robustdistill.metrics import Scores

MOST_MISTAKES = 3  # kept of each line
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One class, group, or class within a group. Fractions in [0, 1]; NaN or None where nothing is known.

    Attributes:
        name: of the class; of the group where the line is a group's.
        group: the group of a class within one, else None.
        count: its examples.
        recall: the share of them predicted right, and `interval`, its 95 % Wilson interval. Of a group: its accuracy.
        predicted: examples predicted as it; of a group, its examples.
        precision: the share of those that are right.
        mistaken_for: what it is most often taken for, with how often. Of a group: "true class → predicted class".
        confidence: mean probability of the predicted class where that is this one; a calibrated model's is `precision`.
        calibration_error: ECE over the same examples, in 15 bins of confidence.
        class_calibration_error: ECE of this class's probability over *all* examples (class-wise ECE, Kull et al. 2019).
        probability_worst: that this one's recall is the lowest of all lines of its kind; see `Worst`.
        among_worst: that it is among the k lowest.
        expected_recall: the recall to expect of other examples: drawn towards the other lines, the fewer, the more.
        further: examples that would settle whether it is the worst; None where it is not in question.
        verdict: "the worst", "may be the worst", "among the worst K", or "".
    """

    name: str
    group: str | None
    count: int
    correct: int
    recall: float
    interval: tuple[float, float]
    predicted: int
    precision: float
    mistaken_for: tuple[tuple[str, int], ...]
    confidence: float
    calibration_error: float
    class_calibration_error: float
    probability_worst: float
    among_worst: float
    expected_recall: float
    further: float | None
    verdict: str

    @property
    def label(self) -> str:
        """ "cat", or "cat in Peru"."""
        return self.name if self.group is None else f"{self.name} in {self.group}"

    def as_dict(self) -> dict[str, Any]:
        mistakes = [{"class": name, "count": count} for name, count in self.mistaken_for]
        return {**vars(self), "interval": list(self.interval), "mistaken_for": mistakes}


@dataclass(frozen=True, eq=False)
class Lines:
    """All lines of one kind, their scores and the judgement on the worst of them."""

    lines: tuple[Line, ...]
    scores: Scores
    worst: Worst

    def sorted(self) -> list[Line]:
        """Worst first: by recall, then by how sure that is; those without examples last."""
        return sorted(self.lines, key=lambda line: (line.count == 0, line.recall, -line.count))

    @property
    def candidates(self) -> list[Line]:
        """The lines that hold the worst one with 95 % probability, likeliest first."""
        return [self.lines[index] for index in self.worst.candidates]


def class_lines(tallies: Tallies, k: int, draws: int, seed: int) -> Lines:
    """A line for each class, groups taken together."""
    num_classes = len(tallies.class_names)
    cells = np.arange(len(tallies.counts))
    return _lines(tallies, cells % num_classes, list(tallies.class_names), None, k, draws, seed)


def group_lines(tallies: Tallies, k: int, draws: int, seed: int) -> Lines:
    """A line for each group, classes taken together."""
    cells = np.arange(len(tallies.counts))
    names = [str(name) for name in tallies.groups]
    return _lines(tallies, cells // len(tallies.class_names), names, None, k, draws, seed, of_groups=True)


def cell_lines(tallies: Tallies, k: int, draws: int, seed: int) -> Lines:
    """A line for each class within a group that has examples or predictions."""
    used = np.flatnonzero(tallies.counts + tallies.predicted)
    owner = np.full(len(tallies.counts), len(used))
    owner[used] = np.arange(len(used))
    names = [tallies.class_names[cell % len(tallies.class_names)] for cell in used.tolist()]
    groups = [str(tallies.groups[cell // len(tallies.class_names)]) for cell in used.tolist()]
    return _lines(tallies, owner, names, groups, k, draws, seed)


def _lines(
    tallies: Tallies,
    owner: npt.NDArray[np.int64],
    names: list[str],
    groups: list[str] | None,
    k: int,
    draws: int,
    seed: int,
    of_groups: bool = False,
) -> Lines:
    """`owner` (G·C,) says which line each cell belongs to; len(names) is none of them."""
    size = len(names)

    def total(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(owner, weights=values, minlength=size)[:size].astype(np.int64)

    scores = Scores(total(tallies.correct), total(tallies.counts))
    predicted = scores.counts if of_groups else total(tallies.predicted)
    precision = np.divide(scores.correct, predicted, out=np.full(size, np.nan), where=predicted > 0)
    confidence, error, class_error = (np.full(size, np.nan) for _ in range(3))
    if tallies.calibration is not None:
        bins = tallies.calibration.top.merged(owner, size + 1)
        bins = Bins(bins.counts[:size], bins.predicted[:size], bins.true[:size])
        totals = bins.counts.sum(axis=1)
        np.divide(bins.predicted.sum(axis=1), totals, out=confidence, where=totals > 0)
        error = bins.error
        if groups is None and not of_groups:
            class_error = tallies.calibration.classes.error
    judged = worst(scores, k, draws=draws, seed=seed)
    mistakes = _mistakes(tallies, owner, size, of_groups)
    recall, intervals, label = scores.per_class.tolist(), scores.wilson().tolist(), _verdicts(judged)
    lines = tuple(
        Line(
            name=names[index],
            group=None if groups is None else groups[index],
            count=int(scores.counts[index]),
            correct=int(scores.correct[index]),
            recall=recall[index],
            interval=(intervals[index][0], intervals[index][1]),
            predicted=int(predicted[index]),
            precision=float(precision[index]),
            mistaken_for=mistakes.get(index, ()),
            confidence=float(confidence[index]),
            calibration_error=float(error[index]),
            class_calibration_error=float(class_error[index]),
            probability_worst=float(judged.probability[index]),
            among_worst=float(judged.among_k[index]),
            expected_recall=float(judged.expected[index]),
            further=None if np.isnan(judged.further[index]) else float(judged.further[index]),
            verdict=label[index],
        )
        for index in range(size)
    )
    return Lines(lines, scores, judged)


def _verdicts(judged: Worst) -> list[str]:
    words = [
        f"among the worst {judged.k}" if share >= LEVEL and judged.k > 1 else "" for share in judged.among_k.tolist()
    ]
    for index in judged.candidates:
        words[index] = "the worst" if judged.settled else "may be the worst"
    return words


def _mistakes(
    tallies: Tallies, owner: npt.NDArray[np.int64], size: int, of_groups: bool
) -> dict[int, tuple[tuple[str, int], ...]]:
    """The most frequent confusions of each line."""
    num_classes = len(tallies.class_names)
    cells, taken, counts = tallies.wrong.T
    pairs = (cells % num_classes) * num_classes + taken if of_groups else taken
    span = num_classes**2
    codes, inverse = np.unique(owner[cells] * span + pairs, return_inverse=True)
    totals = np.bincount(inverse, weights=counts).astype(np.int64)
    found: dict[int, tuple[tuple[str, int], ...]] = {}
    for position in np.lexsort((codes, -totals)).tolist():
        line, pair = divmod(int(codes[position]), span)
        if line < size and len(found.get(line, ())) < MOST_MISTAKES:
            name = tallies.class_names[pair % num_classes]
            name = f"{tallies.class_names[pair // num_classes]} → {name}" if of_groups else name
            found[line] = (*found.get(line, ()), (name, int(totals[position])))
    return found

"""What a table of predictions shows about a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustdistill.auditing.lines import Lines, cell_lines, class_lines, group_lines
from robustdistill.auditing.tallies import Calibration, Tallies, tally
from robustdistill.errors import InputError
from robustdistill.metrics import Scores
from robustdistill.predictions import Predictions

if TYPE_CHECKING:
    from robustdistill.auditing.teacher import TeacherAudit

DRAWS = 2000  # of the bootstrap
MEASURES = ("worst_class", "worst_k", "balanced", "standard")
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A figure over all classes with its 95 % bootstrap interval, resampled within each class."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Audit:
    """An audit; `as_dict()` has all of it for JSON, `write_html(path)` makes a page.

    Attributes:
        name: what was audited, for headings.
        rows: examples.
        k: of the worst-k accuracy; None where there are too few classes for it to say anything of its own.
        measures: "worst_class", "worst_k" (where there is a k), "balanced" and "standard".
        classes: a line for each class, and which of them are credibly the worst.
        groups: likewise for groups, and
        cells: for classes within groups; None where the table has no groups.
        absent: classes without examples. Unless they are left out, the worst-class and balanced accuracy are then NaN.
        left_out: whether they are.
        tallies: the counts behind all of this.
        teacher: how fit the predictions are to teach a robust student; None where that was not asked for.
        notes: sentences that a reader of the figures has to know.
    """

    name: str
    rows: int
    k: int | None
    measures: dict[str, Measure]
    classes: Lines
    groups: Lines | None
    cells: Lines | None
    absent: tuple[str, ...]
    left_out: bool
    tallies: Tallies
    teacher: TeacherAudit | None
    notes: tuple[str, ...]

    @property
    def calibration(self) -> Calibration | None:
        """None where the table has predicted classes only."""
        return self.tallies.calibration

    @property
    def confidence(self) -> float:
        """Mean probability of the predicted class; NaN without probabilities."""
        found = self.calibration
        return math.nan if found is None else float(found.top.predicted.sum() / self.rows)

    @property
    def calibration_error(self) -> float:
        """ECE of the confidence over all examples; NaN without probabilities."""
        found = self.calibration
        if found is None:
            return math.nan
        return float(found.top.merged(np.zeros(len(found.top.counts), dtype=np.int64), 1).error[0])

    def confusions(self, most: int = 20) -> list[tuple[str, str, int, float]]:
        """(true class, predicted class, count, share of the true class's examples), the most frequent share first."""
        num_classes = len(self.tallies.class_names)
        cells, taken, counts = self.tallies.wrong.T
        codes, inverse = np.unique((cells % num_classes) * num_classes + taken, return_inverse=True)
        totals = np.bincount(inverse, weights=counts)
        shares = totals / self.classes.scores.counts[codes // num_classes]
        names = self.tallies.class_names
        return [
            (names[codes[i] // num_classes], names[codes[i] % num_classes], int(totals[i]), float(shares[i]))
            for i in np.lexsort((codes, -totals, -shares))[:most].tolist()
        ]

    def values(self) -> dict[str, float]:
        """The figures over all classes without their intervals."""
        return {name: measure.value for name, measure in self.measures.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and text. NaN stands for what is unknown."""
        judged = self.classes.worst
        return {
            "name": self.name,
            "rows": self.rows,
            "k": self.k,
            "measures": {name: vars(measure) for name, measure in self.measures.items()},
            "worst": {
                "settled": judged.settled,
                "candidates": [line.name for line in self.classes.candidates],
                "recall": dict(zip(("mean", "low", "high"), judged.lowest, strict=True)),
            },
            "classes": [line.as_dict() for line in self.classes.lines],
            "groups": None if self.groups is None else [line.as_dict() for line in self.groups.lines],
            "cells": None if self.cells is None else [line.as_dict() for line in self.cells.lines],
            "absent": list(self.absent),
            "left_out": self.left_out,
            "calibration": None
            if self.calibration is None
            else {
                "confidence": self.confidence,
                "error": self.calibration_error,
                "log_loss": self.calibration.log_loss,
                "brier": self.calibration.brier,
            },
            "confusions": [
                {"true": true, "predicted": taken, "count": count, "share": share}
                for true, taken, count, share in self.confusions()
            ],
            "teacher": None if self.teacher is None else self.teacher.as_dict(),
            "notes": list(self.notes),
        }

    def write_html(self, path: str | Path) -> Path:
        """Writes a page that needs nothing else, in one step."""
        from robustdistill.auditing.page import write

        return write(path, audit=self)


def audit(
    table: Predictions,
    *,
    name: str = "predictions",
    worst_k: int | None = None,
    leave_out_absent: bool = False,
    teacher: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Audit:
    """How good a classifier is for each class, each group and each class within a group, and how sure that is.

    Args:
        table: with labels; of any kind. Its `groups` are audited where it has them.
        name: for headings.
        worst_k: k of the worst-k accuracy; by default one in twenty classes, at least two.
        leave_out_absent: take worst-class, worst-k and balanced accuracy over the classes that have examples.
        teacher: also judge how fit the predictions are to teach a robust student.
        draws: of the bootstrap.
        seed: of everything drawn.

    Raises:
        InputError: the table has no labels; it holds several splits, which one figure would mix; k is not in 1..C;
            there is an absurd number of groups; or `teacher` without probabilities or with a class that has no example.

    >>> table = Predictions(range(4), [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], "probabilities",
    ...                     ("cat", "dog"), labels=[0, 0, 1, 1])
    >>> found = audit(table)
    >>> found.measures["worst_class"].value, found.classes.sorted()[0].name
    (0.0, 'dog')
    >>> found.classes.worst.settled, round(float(found.classes.worst.probability[1]), 1)
    (False, 0.8)
    """
    if table.splits is not None and len(kinds := sorted(set(table.splits.tolist()))) > 1:
        raise InputError(
            f"an audit needs one split, and the table holds {len(kinds)}: {', '.join(kinds[:6])}; choose with split="
        )
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}")
    tallies = tally(table)
    num_classes = table.num_classes
    k = max(2, -(-num_classes // 20)) if worst_k is None else worst_k
    if not 1 <= k <= num_classes:
        raise InputError(f"worst_k must lie in 1..{num_classes}, got {k}")
    classes = class_lines(tallies, k, 2 * draws, seed)
    counts = classes.scores.counts
    absent = tuple(name for name, count in zip(table.class_names, counts.tolist(), strict=True) if count == 0)
    grouped = table.groups is not None
    shown_k = None if worst_k is None and num_classes < 4 else k
    return Audit(
        name=name,
        rows=len(table),
        k=shown_k,
        measures=measured(classes.scores, shown_k, leave_out_absent, draws, seed),
        classes=classes,
        groups=group_lines(tallies, 1, 2 * draws, seed) if grouped else None,
        cells=cell_lines(tallies, k, 2 * draws, seed) if grouped else None,
        absent=absent,
        left_out=leave_out_absent and bool(absent),
        tallies=tallies,
        teacher=_teacher(table, tallies, seed) if teacher else None,
        notes=tuple(_notes(absent, leave_out_absent, table, classes)),
    )


def measured(scores: Scores, k: int | None, leave_out: bool, draws: int, seed: int) -> dict[str, Measure]:
    """The figures over all classes, with intervals."""
    if leave_out:
        present = scores.counts > 0
        scores = Scores(scores.correct[present], scores.counts[present])
        k = None if k is None else min(k, len(scores.counts))
    values = {"worst_class": scores.worst_class, "balanced": scores.balanced, "standard": scores.standard}
    if k is not None:
        values["worst_k"] = scores.worst_k(k)
    intervals = scores.intervals(draws=draws, seed=seed, worst_k=k)
    return {name: Measure(values[name], *intervals[name]) for name in MEASURES if name in values}


def _teacher(table: Predictions, tallies: Tallies, seed: int) -> TeacherAudit:
    from robustdistill.auditing.teacher import audit_teacher

    return audit_teacher(table, tallies, seed=seed)


def _notes(absent: tuple[str, ...], left_out: bool, table: Predictions, classes: Lines) -> list[str]:
    notes = []
    if absent:
        few = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        then = "left out of every figure over classes" if left_out else "so the figures over all classes are unknown"
        notes.append(f"No examples of {few}: {then}.")
    taken = [line.name for line in classes.lines if line.predicted == 0 and line.count]
    if taken:
        few = ", ".join(taken[:5]) + (f" and {len(taken) - 5} more" if len(taken) > 5 else "")
        notes.append(f"Never predicted: {few}.")
    if table.kind == "classes":
        notes.append("These are predicted classes without probabilities, so nothing can be said about calibration.")
    small = sum(0 < count < 30 for count in classes.scores.counts.tolist())
    if small:
        notes.append(
            f"{small} class{'' if small == 1 else 'es'} with fewer than 30 examples: read intervals, not figures."
        )
    return notes

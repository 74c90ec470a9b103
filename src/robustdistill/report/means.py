"""What figures and sections show of a panel: the combinations that are compared, and means over repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustdistill.experiments.journal import Record, history
from robustdistill.experiments.select import Group
from robustdistill.report.panels import Panel
from robustdistill.report.style import BLUE, VERMILLION

FloatArray = npt.NDArray[np.float64]


def compared(panel: Panel) -> list[tuple[Group, str]]:
    """Plain distillation and the best robust student with their colours; teachers where there is no student."""
    plain, robust = panel.plain, panel.best_robust
    if plain is None and robust is None:
        plain, robust = panel.teacher("standard"), panel.teacher("robust")
    return [(group, colour) for group, colour in ((plain, BLUE), (robust, VERMILLION)) if group is not None]


def mean_recall(group: Group, panel: Panel) -> FloatArray:
    """(C,) recall of each class, mean over repeats."""
    mean: FloatArray = np.mean([metrics.scores.per_class for metrics in group.metrics(panel.split)], axis=0)
    return mean


def class_order(panel: Panel) -> npt.NDArray[np.intp]:
    """(C,) class indices from the most training examples to the fewest."""
    return np.argsort(-np.array(panel.train_counts), kind="stable")


def mean_multipliers(group: Group) -> FloatArray | None:
    """(epochs, C) mean of λ over repeats, cut to the shortest history; None where none was recorded."""
    found = [_multipliers(record) for record in group.records]
    found = [trace for trace in found if trace]
    if not found:
        return None
    epochs = min(len(trace) for trace in found)
    mean: FloatArray = np.mean([np.array(trace[:epochs], dtype=np.float64) for trace in found], axis=0)
    return mean


def _multipliers(record: Record) -> list[list[float]]:
    return [line.multipliers for line in history(record) if line.multipliers is not None]

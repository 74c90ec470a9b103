"""What figures and sections show of a panel: the combinations that are compared, and means over repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustdistill.experiments.journal import Record, SplitMetrics, history
from robustdistill.experiments.select import Group
from robustdistill.metrics import Scores
from robustdistill.report.panels import Panel
from robustdistill.report.style import BLUE, VERMILLION

FloatArray = npt.NDArray[np.float64]


def compared(panel: Panel) -> list[tuple[Group, str]]:
    """Plain distillation and the best robust student with their colours; teachers where there is no student."""
    plain, robust = panel.plain, panel.best_robust
    if plain is None and robust is None:
        plain, robust = panel.teacher("standard"), panel.teacher("robust")
    return [(group, colour) for group, colour in ((plain, BLUE), (robust, VERMILLION)) if group is not None]


def unit_scores(metrics: SplitMetrics, panel: Panel) -> Scores:
    """(C,) of classes or (G,) of groups, as `panel.units`; one that does not occur in this split has no examples."""
    if panel.unit == "class":
        return metrics.scores
    counted: dict[str, tuple[int, int]] = {}
    if (found := metrics.groups) is not None:
        counted = dict(zip(found.names, zip(found.correct, found.counts, strict=True), strict=True))
    correct, counts = np.array([counted.get(name, (0, 0)) for name in panel.units], dtype=np.int64).T
    return Scores(correct, counts)


def mean_recall(group: Group, panel: Panel) -> FloatArray:
    """(C,) recall of each class, or (G,) accuracy of each group, mean over repeats."""
    mean: FloatArray = np.mean([unit_scores(found, panel).per_class for found in group.metrics(panel.split)], axis=0)
    return mean


def unit_order(panel: Panel) -> npt.NDArray[np.intp]:
    """(C,) or (G,) indices from the most training examples to the fewest."""
    return np.argsort(-np.array(panel.unit_counts), kind="stable")


def mean_multipliers(group: Group) -> FloatArray | None:
    """(epochs, C or G) mean of λ over repeats, cut to the shortest history; None where none was recorded."""
    found = [_multipliers(record) for record in group.records]
    found = [trace for trace in found if trace]
    if not found:
        return None
    epochs = min(len(trace) for trace in found)
    mean: FloatArray = np.mean([np.array(trace[:epochs], dtype=np.float64) for trace in found], axis=0)
    return mean


def _multipliers(record: Record) -> list[list[float]]:
    by_group = record.spec.groups != "class"
    found = (line.group_multipliers if by_group else line.multipliers for line in history(record))
    return [values for values in found if values is not None]

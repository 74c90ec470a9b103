"""Intervals of a report: which uncertainty each of them is about, and how the minimum over classes is treated.

- Wilson, for the recall of one class: `metrics.Scores.wilson`.
- Bootstrap over test examples, for the worst class (or group) and the K worst: `group_interval`.
- Paired bootstrap over test examples, for the difference of two models: `paired_bootstrap`.
- t over repeats, for a mean of n trainings: `over_repeats`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Group, Split, estimate, lowest
from robustdistill.metrics import Scores
from robustdistill.predictions import Predictions

LEVEL = 0.95
DRAWS = 1000
PREDICTIONS = "predictions"  # the folder in a run's folder that may hold val.npz and test.npz

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure with its interval at `LEVEL`; `low` and `high` are None where nothing is known of the spread."""

    value: float
    low: float | None
    high: float | None
    n: int


def over_repeats(values: Sequence[float]) -> Interval | None:
    """Mean ± t(n − 1) · s/√n; without bounds for one repeat, and where all are equal, which says nothing of a spread.

    >>> found = over_repeats([0.1, 0.2, 0.3])
    >>> found.value, round(found.low, 6), round(found.high, 6), found.n
    (0.2, -0.048414, 0.448414, 3)
    """
    found = estimate(values)
    if found is None or math.isnan(found.mean):
        return None
    mean = round(found.mean, 15)
    if found.error is None or max(values) == min(values):
        return Interval(mean, None, None, found.n)
    half = t_quantile(found.n - 1) * found.error
    return Interval(mean, mean - half, mean + half, found.n)


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """The t with P(|T| ≤ t) = level for Student's T, by bisection of Abramowitz & Stegun (1964), 26.7.3 and 26.7.4.

    >>> round(t_quantile(2), 4)
    4.3027

    Raises:
        InputError: `degrees` is below 1.
    """
    if degrees < 1:
        raise InputError(f"degrees of freedom must be at least 1, got {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| ≤ t) with angle = arctan(t/√degrees)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= (k - 1) / k * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def group_interval(group: Group, metric: str, split: Split, draws: int = DRAWS) -> tuple[float, float] | None:
    """Bootstrap over the split's examples, for the worst class, the K worst or the balanced accuracy of a combination.

    Of each repeat, examples are drawn anew within each class (or group, for the worst group), and the minimum (or the K
    lowest) taken anew in every draw; the interval's ends are the means over repeats of those of the repeats. The
    repeats share their examples, so their number does not narrow it.
    """
    by_group = metric not in ("balanced", "standard") and lowest(metric)[1]
    found = (metrics.groups if by_group else metrics for metrics in group.metrics(split))
    ends = [_bootstrap(one.scores, metric, draws) for one in found if one and sum(one.counts) and all(one.counts)]
    return (float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends]))) if ends else None


def _bootstrap(scores: Scores, metric: str, draws: int) -> tuple[float, float]:
    if metric in ("worst_class", "worst_group", "balanced", "standard"):
        return scores.intervals(LEVEL, draws)["worst_class" if metric == "worst_group" else metric]
    correct = np.random.default_rng(0).binomial(scores.counts, scores.per_class, (draws, len(scores.counts)))
    return _ends(lowest_mean(correct / scores.counts, metric))


def lowest_mean(recalls: FloatArray, metric: str) -> FloatArray:
    """(...,) what a worst metric, or balanced, makes of (..., C) recalls, or accuracies of groups."""
    if metric == "balanced":
        return np.asarray(recalls.mean(axis=-1))
    k, _ = lowest(metric)
    return np.asarray(np.sort(recalls, axis=-1)[..., :k].mean(axis=-1))


def paired_bootstrap(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    metric: str,
    draws: int = DRAWS,
    seed: int = 0,
    over: str = "class",
) -> Interval:
    """`second` minus `first` on the same examples: their mean difference over repeats, and its percentile interval.

    Every draw takes examples within each class (or group, for the worst group) with replacement, the *same* for all
    models, and takes each model's minimum anew. So what makes an example hard for both cancels; the choice of these
    examples is covered, training again is not.

    Args:
        first: one table for each repeat, of one set of ids, with labels.
        second: as many, for the same repeats.
        metric: worst_class, worst_K, worst_group, worst_K_groups or balanced.
        over: what groups are, as the runs': the tables' "group", or these within each class, "class-group".

    Raises:
        InputError: the tables' ids, classes or labels differ, there are no labels or, for groups, no groups, or a class
            has no examples.
    """
    if not first or len(first) != len(second):
        raise InputError(f"first and second must have a table for each repeat, got {len(first)} and {len(second)}")
    reference = first[0]
    if reference.labels is None:
        raise InputError("a paired bootstrap needs labels, and these predictions have none")
    right = np.stack([_right(table, reference) for table in (*first, *second)], axis=1)
    rng = np.random.default_rng(seed)
    point, drawn = [], []
    for name, here in _cells(reference, metric, over):
        members = right[here]
        if not len(members):
            raise InputError(f"a paired bootstrap needs examples of every class; {name!r} has none")
        # Examples on which all models do alike are exchangeable, so it is enough to draw how many of each pattern.
        patterns, counts = np.unique(members, axis=0, return_counts=True)
        times = rng.multinomial(len(members), counts / len(members), draws)
        point.append(members.mean(axis=0))
        drawn.append(times @ patterns / len(members))
    value = float(_difference(np.stack(point, axis=-1), metric))
    low, high = _ends(_difference(np.stack(drawn, axis=-1), metric))
    return Interval(value, low, high, len(first))


def _cells(reference: Predictions, metric: str, over: str) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Name and (N,) members of each class or, where the metric is of groups, of each group that occurs."""
    labels = np.asarray(reference.labels)
    if metric == "balanced" or not lowest(metric)[1]:
        for label, name in enumerate(reference.class_names):
            yield name, labels == label
        return
    if reference.groups is None:
        raise InputError("a paired bootstrap over groups needs tables with groups, and these have none")
    for value in np.unique(reference.groups).tolist():
        here = reference.groups == value
        if over != "class-group":
            yield value, here
            continue
        for label in np.unique(labels[here]).tolist():
            yield f"{reference.class_names[label]} / {value}", here & (labels == label)


def _right(table: Predictions, reference: Predictions) -> npt.NDArray[np.bool_]:
    joined = table.match_classes(reference.class_names).join(reference.ids)
    if joined.labels is None or not np.array_equal(joined.labels, np.asarray(reference.labels)):
        raise InputError("a paired bootstrap needs tables of the same examples, and their labels differ")
    return np.asarray(joined.predicted == joined.labels)


def _difference(recalls: FloatArray, metric: str) -> FloatArray:
    """(...,) from (..., 2R, C) recalls: the mean over the last R models less that over the first R."""
    values = lowest_mean(recalls, metric)
    repeats = values.shape[-1] // 2
    return np.asarray(values[..., repeats:].mean(axis=-1) - values[..., :repeats].mean(axis=-1))


def _ends(values: FloatArray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def stored_predictions(record: Record, split: Split) -> Path | None:
    """The file of a run's predictions on a split, where its folder has one."""
    path = record.path / PREDICTIONS / f"{split}.npz" if record.path else None
    return path if path is not None and path.is_file() else None


def paired_groups(first: Group, second: Group, metric: str, split: Split) -> Interval | None:
    """`paired_bootstrap` of two combinations over the repeats in which both have stored predictions; None without."""
    pairs = []
    others: Mapping[int, Record] = {record.repeat: record for record in second.records}
    for record in first.records:
        other = others.get(record.repeat)
        paths = [stored_predictions(one, split) for one in (record, other) if one is not None]
        if len(paths) == 2 and paths[0] and paths[1]:
            pairs.append((Predictions.read(paths[0]), Predictions.read(paths[1])))
    if not pairs:
        return None
    return paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs], metric, over=first.over)

"""The points of the worst-against-balanced plane, by families of models, and the Pareto front of each family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustdistill.experiments.select import Estimate, Group
from robustdistill.report.panels import Panel


@dataclass(frozen=True)
class Point:
    """One combination: balanced accuracy `x` and the worst metric `y`, means over repeats with standard errors."""

    group: Group
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class Family:
    """Models that one would choose among: the teachers, the students of them, models of no teacher, other methods.

    `front` joins the means that no other mean of the family beats on both axes, from left to right.
    """

    name: str
    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]


def families(panel: Panel) -> list[Family]:
    """Of the groups whose two accuracies are known on the panel's split; teachers first."""
    found: dict[str, list[Point]] = defaultdict(list)

    def place(group: Group) -> tuple[bool, bool, bool]:
        return not is_teacher(group, panel), group.role == "teacher", group.method != "margin"

    for group in sorted(panel.groups, key=place):
        x, y = panel.estimate(group, "balanced"), panel.estimate(group)
        if x is not None and y is not None and np.isfinite([x.mean, y.mean]).all():
            found[_family(group, panel)].append(Point(group, x, y))
    return [Family(name, tuple(points), tuple(_front(points))) for name, points in found.items()]


def _family(group: Group, panel: Panel) -> str:
    if group.role == "teacher":
        kind = "teachers" if is_teacher(group, panel) else "without a teacher"
    else:
        kind = "students" if group.method == "margin" else "students, other methods"
    return f"{group.model} {kind}"


def is_teacher(group: Group, panel: Panel) -> bool:
    """Whether a group is the panel's teacher, and not its student's architecture trained on labels."""
    return group.role == "teacher" and group.model == panel.teacher_model


def _front(points: Sequence[Point]) -> list[tuple[float, float]]:
    return pareto([(point.x.mean, point.y.mean) for point in points])


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in one coordinate without losing in the other, by the first coordinate."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]

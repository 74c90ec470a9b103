"""The colours, markers and lines of the worst-against-balanced plane, as a figure and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustdistill.report.fronts import is_teacher
from robustdistill.report.panels import Panel, objective_order, row_name
from robustdistill.report.style import MARKERS, OBJECTIVES, SPARE

# Of the Pareto fronts of the families, in their order; the page has the same as stroke-dasharray.
FRONT_STYLES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.5)), (0, (7, 2, 1, 2)), "-")


def objective_colours(objectives: Sequence[str | None]) -> dict[str | None, str]:
    """A colour for each objective of a teacher, in the order of legends; the paper's three keep theirs."""
    names = sorted(set(objectives), key=lambda name: objective_order(name or "~"))
    spare = iter(SPARE * (len(names) // len(SPARE) + 1))
    return {name: OBJECTIVES[name] if name in OBJECTIVES else next(spare) for name in names}


def kind_markers(panel: Panel) -> dict[str, str]:
    """Row of the table -> matplotlib marker, for all that is not the teacher itself."""
    kinds = list(dict.fromkeys(row_name(group, panel) for group in panel.groups if not is_teacher(group, panel)))
    kinds.sort(key=lambda kind: not kind.startswith("Student: "))  # The paper's own keep their markers beside others.
    return {kind: MARKERS[index % len(MARKERS)] for index, kind in enumerate(kinds)}


def marker_name(kind: str) -> str:
    """A row's name, short enough for a legend of two columns."""
    return kind.removeprefix("Student: ").removesuffix(", student: standard").replace(", student’s architecture", "")

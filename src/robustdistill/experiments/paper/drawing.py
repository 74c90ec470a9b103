"""The pictures of a comparison: a table's cells beside the paper's, and the trade-off of a figure.

Drawn like those of `robustdistill.report.plots`, in the same colours.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustdistill.experiments.paper import texts
from robustdistill.experiments.paper.compare import half_width
from robustdistill.experiments.paper.results import CellResult, FigureResult, Point, TableResult
from robustdistill.experiments.select import metric_name
from robustdistill.report.numbers import capital
from robustdistill.report.style import GRID, INK, MUTED, OBJECTIVES, PAPER, SPARE, percent_axis, styled

_COLOURS = {"": INK, **OBJECTIVES}
_MARKERS = "oD^vPX<>ph*d8H"


@styled
def beside(result: TableResult, student: str) -> Figure:
    """The worst metric of every cell of a panel with its 95 % interval; the paper's hollow, where it is comparable."""
    layout = result.plan.layout
    panel = [found for found in result.cells if found.cell.student == student]
    lanes = len(layout.columns)
    figure = Figure(figsize=(7.2, 1.3 + len(layout.rows) * (0.18 + 0.16 * lanes)), layout="constrained")
    axes = figure.subplots()
    for index, found in enumerate(panel):
        row, column = divmod(index, lanes)
        height = row + (column - (lanes - 1) / 2) * 0.74 / lanes
        _interval(axes, found, height, _COLOURS[layout.columns[column]])
    axes.set_yticks(range(len(layout.rows)), [row.name for row in layout.rows])
    axes.set_ylim(len(layout.rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    for row in range(1, len(layout.rows)):
        axes.axhline(row - 0.5, color=GRID, linewidth=0.7)
    axes.set_xlabel(capital(f"{metric_name(result.plan.setup.worst)} on test"))
    axes.xaxis.set_major_formatter(percent_axis())
    handles = [_key("o", f"{name} teacher", _COLOURS[name]) for name in layout.columns if name]
    if any(found.worst.comparable and found.worst.printed for found in panel):
        handles += [_key("o", "here", INK), _key("D", "paper", INK, hollow=True)]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def _interval(axes: Axes, found: CellResult, height: float, colour: str) -> None:
    common: dict[str, Any] = {"color": colour, "linestyle": "none", "elinewidth": 1.1, "capsize": 0}
    if found.worst.comparable and (paper := found.worst.printed) is not None:
        error = half_width(paper.error, paper.n)
        hollow: dict[str, Any] = {"marker": "D", "markersize": 4.5, "markerfacecolor": PAPER, "markeredgewidth": 1.1}
        axes.errorbar(paper.mean, height + 0.05, xerr=error, alpha=0.9, zorder=2, **common, **hollow)
    if (ours := found.worst.ours) is not None and ours.mean == ours.mean:
        error = half_width(ours.error, ours.n)
        axes.errorbar(ours.mean, height - 0.05, xerr=error, marker="o", markersize=5.5, zorder=3, **common)


@styled
def trade_off(result: FigureResult) -> Figure:
    """Worst-class against standard accuracy, a point for each teacher's and student's α, means over repeats.

    Colours are the teachers' objectives, markers the students'. Where all temperatures are shown, the ones that
    validation picks are filled. The line joins the teachers themselves, in the order of α.
    """
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    objectives = list(result.plan.teachers)
    spare = iter(SPARE * (len(objectives) // len(SPARE) + 1))
    colours = {name: _COLOURS.get(name) or next(spare) for name in objectives}
    markers = {name: _MARKERS[index % len(_MARKERS)] for index, name in enumerate(objectives)}
    own = [point for point in result.points if point.student is None and point.teacher != "standard"]
    line: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 2))}
    axes.plot([p.standard.mean for p in own], [p.worst.mean for p in own], zorder=2.5, **line)
    for point in sorted(result.shown, key=lambda point: point.chosen):
        _point(axes, point, colours[point.teacher], markers)
    axes.set_xlabel("Standard accuracy on the test half")
    axes.set_ylabel("Worst-class accuracy on the test half")
    axes.margins(0.07)
    axes.xaxis.set_major_formatter(percent_axis())
    axes.yaxis.set_major_formatter(percent_axis())
    by_colour = [_key("o", texts.objective_name(name), colour) for name, colour in colours.items()]
    by_marker = [_key(marker, texts.objective_name(name), INK) for name, marker in markers.items()]
    kinds = [_key("s", "teacher itself", INK, hollow=True), Line2D([], [], label="teachers’ trade-off", **line)]
    if result.plan.layout.all_temperatures:
        kinds += [_key("o", "temperature chosen", MUTED), _key("o", "other temperature", MUTED, hollow=True)]
    figure.legend(handles=by_colour, title="Teacher (colour)", loc="outside upper left", alignment="left", ncols=7)
    figure.legend(
        handles=[*by_marker, *kinds], title="Student (marker)", loc="outside lower left", alignment="left", ncols=4
    )
    return figure


def _point(axes: Axes, point: Point, colour: str, markers: dict[str, str]) -> None:
    teacher = point.student is None
    hollow = teacher or not point.chosen
    if point.chosen:
        errors: dict[str, Any] = {"xerr": point.standard.error, "yerr": point.worst.error, "elinewidth": 0.8}
        axes.errorbar(point.standard.mean, point.worst.mean, ecolor=colour, alpha=0.5, fmt="none", zorder=1.5, **errors)
    axes.plot(
        point.standard.mean,
        point.worst.mean,
        color=colour,
        marker="s" if point.student is None else markers[point.student],
        markersize=8 if teacher else 6,
        markerfacecolor=PAPER if hollow else colour,
        markeredgecolor=colour if hollow else PAPER,
        markeredgewidth=1.6 if teacher else 0.9 if hollow else 0.5,
        linestyle="none",
        zorder=4 if teacher else 3 if point.chosen else 2,
    )


def _key(marker: str, label: str, colour: str, hollow: bool = False) -> Line2D:
    face = PAPER if hollow else colour
    return Line2D(
        [], [], marker=marker, color=colour, markerfacecolor=face, linestyle="none", markersize=6, label=label
    )

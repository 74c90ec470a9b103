"""The figures of a report. Each function returns a Figure, or None where the runs that it shows do not exist.

Figures are drawn without pyplot, so nothing global is opened or left behind. Colours are those of Okabe & Ito (2008),
told apart by colour-blind readers, and markers or line styles say the same again.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from robustdistill import pages
from robustdistill.experiments.journal import history
from robustdistill.files import replacing
from robustdistill.report.fronts import families, is_teacher
from robustdistill.report.marks import FRONT_STYLES, kind_markers, marker_name, objective_colours
from robustdistill.report.means import FloatArray, compared, mean_multipliers, mean_recall, unit_order
from robustdistill.report.numbers import capital
from robustdistill.report.panels import Panel, objective_name, pair_name, row_name, worst_name
from robustdistill.report.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    STYLE,
    VERMILLION,
    percent_axis,
    styled,
)

_WIDTH = 7.2
# Beyond this many classes bars become thinner than they can be read, beyond the second even one dot a class.
_BARS, _DOTS = 24, 120
_LABELLED = 6
# Letters of a name: that of a group within a class has both in it.
_LONGEST = {"class": 14, "group": 22}
TRACES = 6


@styled
def plane(panel: Panel) -> Figure | None:
    """Worst-class against balanced accuracy, a point for each combination: means over repeats ± standard error.

    Teachers are hollow squares; what was trained without one in the student's architecture is grey. A line joins, for
    the teachers and for each family of students, the means that no other mean of the family beats on both axes.
    """
    found = families(panel)
    points = [point for family in found for point in family.points]
    if not points:
        return None
    markers = kind_markers(panel)
    crowded = len(markers) > 5
    figure = _figure(5.6 if crowded else 4.7)
    axes = figure.subplots()
    colours = objective_colours([point.group.teacher_objective for point in points])
    fronts = []
    for number, family in enumerate(found):
        if len(family.front) > 1:
            style = FRONT_STYLES[number % len(FRONT_STYLES)]
            line: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "linestyle": style}
            axes.plot(*zip(*family.front, strict=True), zorder=1, **line)
            fronts.append(Line2D([], [], label=f"front: {family.name}", **line))
    for point in points:
        group = point.group
        teacher = is_teacher(group, panel)
        colour = colours[group.teacher_objective] if teacher or group.role == "student" else MUTED
        axes.errorbar(
            point.x.mean,
            point.y.mean,
            xerr=point.x.error,
            yerr=point.y.error,
            color=colour,
            marker="s" if teacher else markers[row_name(group, panel)],
            markersize=9 if teacher else 7.5,
            markerfacecolor=PAPER if teacher else colour,
            markeredgecolor=colour if teacher else PAPER,
            markeredgewidth=1.8 if teacher else 0.7,
            elinewidth=1,
            capsize=2,
            linestyle="none",
            zorder=2 if teacher else 3,
        )
    axes.set_xlabel(f"Balanced accuracy on {panel.split_name}")
    axes.set_ylabel(f"{capital(worst_name(panel))} on {panel.split_name}")
    axes.margins(0.08)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_axis())
    by_marker = [_marker(marker, marker_name(kind), INK) for kind, marker in markers.items()]
    if panel.teachers:
        by_marker.insert(0, _marker("s", "teacher itself", INK, hollow=True))
    by_marker += fronts
    by_colour = [_marker("o", objective_name(name), colour) for name, colour in colours.items()]
    figure.legend(
        handles=by_colour,
        title="Teacher (colour)",
        loc="outside upper left" if crowded else "outside lower left",
        alignment="left",
        ncols=min(len(by_colour), 4) if crowded else 1,
    )
    figure.legend(
        handles=by_marker,
        title="Student (marker)",
        loc="outside lower left" if crowded else "outside lower right",
        alignment="left",
        ncols=1 if len(by_marker) < 4 else 2,
    )
    return figure


@styled
def recalls(panel: Panel) -> Figure | None:
    """Recall of each class, head to tail, plain distillation against the best robust student, means over repeats.

    Of runs over groups it is the accuracy of each group.

    Bars for few classes; a dot each, joined, for many; means of neighbours for very many.
    """
    shown = [(group, colour) for group, colour in compared(panel) if group.metrics(panel.split)]
    if not shown:
        return None
    counts = np.array(panel.unit_counts)
    values = [mean_recall(group, panel) for group, _ in shown]
    order = unit_order(panel)
    names = [_label(panel.units[index], _LONGEST[panel.unit]) for index in order]
    classes = len(order)
    figure = _figure(3.9)
    axes = figure.subplots()
    labels = [pair_name(group, panel) for group, _ in shown]
    if classes <= _BARS:
        width = 0.8 / len(shown)
        for position, ((_, colour), value, label) in enumerate(zip(shown, values, labels, strict=True)):
            offset = (position - (len(shown) - 1) / 2) * width
            axes.bar(np.arange(classes) + offset, value[order], width * 0.94, color=colour, label=label)
        ticks = [f"{name}\n{counts[index]:,}" for name, index in zip(names, order, strict=True)]
        crowded = max(map(len, names)) * classes > 110
        axes.set_xticks(
            np.arange(classes), ticks, rotation=60 if crowded else 0, ha="right" if crowded else "center", fontsize=8
        )
        axes.grid(False, axis="x")
        axes.set_xlabel(f"{capital(panel.unit)}, and its number of training examples")
    else:
        ordered, colours = [value[order] for value in values], [colour for _, colour in shown]
        _many(axes, capital(panel.unit), ordered, colours, labels, counts[order])
    for (_, colour), value in zip(shown, values, strict=True):
        if np.isfinite(value).all():
            axes.axhline(float(value.min()), color=colour, linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
    axes.set_ylim(0, 1.0)
    axes.set_ylabel(f"{'Recall' if panel.unit == 'class' else 'Accuracy'} on {panel.split_name}")
    axes.yaxis.set_major_formatter(percent_axis())
    figure.legend(loc="outside upper left", ncols=1)
    return figure


def _many(
    axes: Axes,
    what: str,
    values: list[FloatArray],
    colours: list[str],
    labels: list[str],
    counts: npt.NDArray[np.int64],
) -> None:
    classes = len(counts)
    bins = np.array_split(np.arange(classes), min(classes, _DOTS // 2 if classes > _DOTS else classes))
    centres = np.array([members.mean() for members in bins])
    binned = [np.array([value[members].mean() for members in bins]) for value in values]
    if len(binned) > 1:
        axes.vlines(centres, np.min(binned, axis=0), np.max(binned, axis=0), color=GRID, linewidth=1.4, zorder=1)
    for value, colour, label, marker in zip(binned, colours, labels, "oD", strict=False):
        axes.plot(centres, value, marker, color=colour, markersize=4, label=label, zorder=2)
    ticks = np.unique(np.linspace(0, classes - 1, 9).astype(int))
    axes.set_xticks(ticks, [f"{position + 1}\n{counts[position]:,}" for position in ticks])
    each = (
        f"a point is the mean of about {round(classes / len(bins))} neighbours"
        if len(bins) < classes
        else "a point each"
    )
    axes.set_xlabel(f"{what} by rank, and its number of training examples ({each})")


@styled
def traces(panel: Panel) -> Figure | None:
    """The multipliers λ over epochs, a plot for the robust teacher and for each robust student; means over repeats."""
    groups = sorted((g for g in panel.students if g.robust), key=lambda group: -panel.on_validation(group))
    teachers = [group for group in panel.teachers if group.robust]
    # The best of each come first; what does not fit is left out, and the page's caption says which are shown.
    found = ((group, mean_multipliers(group)) for group in [*teachers[:1], *groups])
    shown = list(islice(((group, trace) for group, trace in found if trace is not None), TRACES))
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    # Names beside the lines come out a little wider than the layout measures them.
    figure = _figure(0.5 + 2.35 * rows, pad=1 / 10)
    grid = np.atleast_1d(figure.subplots(rows, columns, sharex=False, sharey=True)).ravel()
    names = [_label(name, _LONGEST[panel.unit]) for name in panel.units]
    top = max(float(trace.max()) for _, trace in shown) * 1.06
    for axes, (group, trace) in zip(grid, shown, strict=False):
        _trace(axes, trace, names, top)
        axes.set_title(_wrapped(pair_name(group, panel)), fontsize=8.5)
        axes.set_ylim(0, top)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    figure.supylabel(f"Multiplier λ of the {panel.unit}", fontsize=9)
    figure.supxlabel("Epoch", fontsize=9)
    return figure


def _trace(axes: Axes, trace: FloatArray, names: list[str], top: float) -> None:
    epochs, classes = np.arange(1, len(trace) + 1), trace.shape[1]
    heaviest = np.argsort(-trace[-1], kind="stable")[:_LABELLED]
    palette = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
    if classes > _BARS:
        axes.fill_between(epochs, trace.min(axis=1), trace.max(axis=1), color=GRID, linewidth=0, zorder=0.5)
    else:
        others = [index for index in range(classes) if index not in heaviest]
        axes.plot(epochs, trace[:, others], color=MUTED, linewidth=0.8, alpha=0.55)
    axes.axhline(1 / classes, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    positions = spread([float(trace[-1, index]) for index in heaviest], gap=0.085 * top, ceiling=top)
    for index, colour, height in zip(heaviest, palette, positions, strict=False):
        axes.plot(epochs, trace[:, index], color=colour)
        beside = axes.get_yaxis_transform()  # x in shares of the plot's width
        ends = [float(trace[-1, index]), height]
        axes.plot([1.0, 1.025], ends, color=colour, linewidth=0.6, transform=beside, clip_on=False)
        axes.text(1.03, height, names[index], color=colour, fontsize=7.5, va="center", transform=beside)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


@styled
def curves(panel: Panel) -> Figure | None:
    """Validation accuracy by epoch, standard against robust: worst class or group, balanced; mean ± standard error."""
    shown: list[tuple[str, FloatArray, FloatArray, str, Any]] = []
    for group, colour, style in (
        (panel.plain, BLUE, "-"),
        (panel.best_robust, VERMILLION, "-"),
        (panel.teacher("standard"), BLUE, (0, (4, 2))),
        (panel.teacher("robust"), VERMILLION, (0, (4, 2))),
    ):
        lines = [] if group is None else [history(record) for record in group.records]
        if group is not None and (epochs := min(map(len, lines))) > 0:
            worst, balanced = (
                np.array([[getattr(line, key) for line in each[:epochs]] for each in lines], dtype=np.float64)
                for key in (f"worst_{panel.unit}", "balanced")
            )
            shown.append((pair_name(group, panel), worst, balanced, colour, style))
    if not shown:
        return None
    figure = _figure(3.7)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, worst, balanced, colour, style in shown:
        for axes, values in ((left, worst), (right, balanced)):
            steps, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
            axes.plot(steps, mean, color=colour, linestyle=style, label=name if axes is left else None)
            if len(values) > 1:
                error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
                axes.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    for axes, title in (
        (left, f"Worst-{panel.unit} accuracy on validation"),
        (right, "Balanced accuracy on validation"),
    ):
        axes.set_title(title)
        axes.set_xlabel("Epoch")
        axes.set_ylim(0, 1)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(percent_axis())
    figure.legend(loc="outside lower left", ncols=1 if len(shown) < 3 else 2)
    return figure


FIGURES: dict[str, Callable[[Panel], Figure | None]] = {
    "plane": plane,
    "recalls": recalls,
    "multipliers": traces,
    "curves": curves,
}


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Writes `name`.svg (text as text) and `name`.png below `folder`; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A script that the bundled font lacks is drawn by the reader's own font in the SVG.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        # Laid out once for both files: without a layout engine, saving neither lays out nor draws a first time for it.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
        figure.set_layout_engine(None)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        pages.write(svg, buffer.getvalue())
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=170, metadata={"Software": None})
    return svg, png


def spread(heights: Sequence[float], gap: float, ceiling: float = float("inf")) -> list[float]:
    """The heights, moved as little as can be until neighbours are `gap` apart, within 0 and `ceiling`.

    So that labels do not overlap. In least squares: with p sorted downwards, pᵢ − pᵢ₊₁ ≥ gap says that pᵢ + i·gap never
    grows, which is isotonic regression, solved by pooling neighbours.

    >>> spread([0.5, 0.5], gap=0.5)
    [0.75, 0.25]
    """
    order = np.argsort(-np.asarray(heights), kind="stable")
    ramp = gap * np.arange(len(order))
    pools: list[tuple[float, int]] = []
    for value in np.asarray(heights, dtype=np.float64)[order] + ramp:
        mean, size = float(value), 1
        while pools and pools[-1][0] < mean:
            earlier, count = pools.pop()
            mean, size = (earlier * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    levels = np.concatenate([np.full(size, mean) for mean, size in pools])
    result = np.empty(len(order))
    result[order] = np.clip(levels, ramp[-1], max(ceiling, ramp[-1])) - ramp
    return [float(value) for value in result]


def _figure(height: float, pad: float = 1 / 24) -> Figure:
    return Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=pad))


def _marker(marker: str, label: str, colour: str, hollow: bool = False) -> Line2D:
    face = PAPER if hollow else colour
    return Line2D(
        [], [], marker=marker, color=colour, markerfacecolor=face, linestyle="none", markersize=7, label=label
    )


def _label(text: str, longest: int = 14) -> str:
    """A class name that fits beside a line: printable characters only, cut with an ellipsis."""
    clean = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip() or "?"
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def _wrapped(text: str) -> str:
    return text.replace(" (", "\n(", 1)

"""The worst-against-balanced plane for the page: points that name their runs when pointed at or focused.

The markup works without its script too: every point carries its words as `aria-label` and `<title>`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from markupsafe import Markup, escape
from matplotlib.markers import MarkerStyle

from robustdistill.experiments.select import Group
from robustdistill.report import style
from robustdistill.report.fronts import Family, Point, families, is_teacher
from robustdistill.report.marks import FRONT_STYLES, kind_markers, marker_name, objective_colours
from robustdistill.report.numbers import capital, plus_minus
from robustdistill.report.panels import Panel, objective_name, pair_name, row_name, worst_name

# In units of the drawing, which is as wide as its place on the page.
_WIDTH, _HEIGHT = 720, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 14, 44, 62
_SIZE = 7.0
_NAMED_RUNS = 12


def interactive(panel: Panel, slug: str, variables: Mapping[str, str]) -> Markup:
    """The plane of a panel with its legend, or nothing where no accuracy is known.

    Args:
        slug: a prefix of ids, unlike that of other panels.
        variables: colour of `style` -> variable of the page's colour scheme.
    """
    found = families(panel)
    if not found:
        return Markup("")
    points = [point for family in found for point in family.points]
    colours = objective_colours([point.group.teacher_objective for point in points])
    markers = kind_markers(panel)
    x_axis = _Axis([(p.x.mean, p.x.error or 0.0) for p in points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis([(p.y.mean, p.y.error or 0.0) for p in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(panel, x_axis, y_axis)]
    for number, family in enumerate(found):
        parts.append(_line(family, number, x_axis, y_axis))
        for point in family.points:
            group = point.group
            own = is_teacher(group, panel)
            grey = group.role == "teacher" and not own
            colour = style.MUTED if grey else colours[group.teacher_objective]
            colour = f"var({variables[colour]})" if colour in variables else colour
            shape = "s" if own else markers[row_name(group, panel)]
            parts.append(_point(panel, point, number, shape, colour, own, x_axis, y_axis))
    drawing = Markup(
        '<svg class="plane" viewBox="0 0 {} {}" role="group" aria-label="{}" id="{}-plane-svg">{}</svg>'
    ).format(_WIDTH, _HEIGHT, _label(panel), slug, Markup("").join(parts))
    shown_colours = {name: f"var({variables[c]})" if c in variables else c for name, c in colours.items()}
    box = Markup('<div class="plane-box" data-plane>{}<div class="tip" aria-hidden="true" hidden></div></div>')
    return box.format(drawing) + _legend(panel, found, shown_colours, markers)


def words(panel: Panel, group: Group) -> str:
    """What a point says, in parts with semicolons between them: the combination, its figures, its runs."""
    temperature = "" if group.temperature is None else f"temperature {group.temperature:g}, "
    names = [record.name for record in group.records]
    more = f" and {len(names) - _NAMED_RUNS} more" if len(names) > _NAMED_RUNS else ""
    runs = ", ".join(names[:_NAMED_RUNS]) + more
    name = pair_name(group, panel)
    return "; ".join(
        (
            capital(name),
            f"{worst_name(panel)} {plus_minus(panel.estimate(group))} %",
            f"balanced accuracy {plus_minus(panel.estimate(group, 'balanced'))} %",
            f"{temperature}n = {len(group.metrics(panel.split))}",
            f"run{'s' * (len(names) > 1)} {runs}",
        )
    )


class _Axis:
    """From fractions to places on the drawing, with round ticks."""

    def __init__(self, values: list[tuple[float, float]], start: float, end: float) -> None:
        low, high = min(v - e for v, e in values), max(v + e for v, e in values)
        room = max(0.06 * (high - low), 0.01)
        self.low, self.high = max(low - room, -0.02), min(high + room, 1.02)
        self.start, self.end = start, end
        step = _step((self.high - self.low) / 6)
        self.ticks = [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def at(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _step(rough: float) -> float:
    """The round number (1, 2 or 5 times a power of ten) next above."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _grid(panel: Panel, x_axis: _Axis, y_axis: _Axis) -> Markup:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    parts = []
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        parts.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 22}" text-anchor="middle">{100 * tick:.4g} %</text>')
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<path class="grid" d="M{left} {y}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{y}" dy=".35em" text-anchor="end">{100 * tick:.4g} %</text>')
    worst = escape(worst_name(panel))
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>')
    below = f'x="{(left + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle"'
    parts.append(f"<text {below}>Balanced accuracy, {panel.split_name}</text>")
    # Level and above the axis: a turned title would lie on the ticks of a phone, whose letters are larger.
    parts.append(f'<text x="4" y="22">{capital(worst)}, {panel.split_name}</text>')
    return Markup('<g aria-hidden="true">{}</g>').format(Markup("".join(parts)))


def _line(family: Family, number: int, x_axis: _Axis, y_axis: _Axis) -> Markup:
    if len(family.front) < 2:
        return Markup("")
    path = "L".join(f"{x_axis.at(x)} {y_axis.at(y)}" for x, y in family.front)
    return Markup('<path class="front front-{}" data-family="{}" d="M{}" aria-hidden="true"/>').format(
        number % len(FRONT_STYLES), number, path
    )


def _point(
    panel: Panel, point: Point, number: int, shape: str, colour: str, hollow: bool, x_axis: _Axis, y_axis: _Axis
) -> Markup:
    x, y = x_axis.at(point.x.mean), y_axis.at(point.y.mean)
    bars = ""
    if point.x.error:
        ends = [x_axis.at(point.x.mean + sign * point.x.error) for sign in (-1, 1)]
        bars += f"M{ends[0]} {y}H{ends[1]}"
    if point.y.error:
        ends = [y_axis.at(point.y.mean + sign * point.y.error) for sign in (-1, 1)]
        bars += f"M{x} {ends[0]}V{ends[1]}"
    said = words(panel, point.group)
    return Markup(
        '<g class="pt{}" data-family="{}" data-x="{}" data-y="{}" style="--c:{}" role="img" tabindex="-1" '
        'aria-label="{}"><title>{}</title><path class="bar" d="{}"/>'
        '<g transform="translate({} {})"><path class="mark" d="{}"/></g></g>'
    ).format(
        *(" hollow" if hollow else "", number, x, y, colour, said, said.replace("; ", "\n")),
        *(bars or "M0 0", x, y, _shape(shape)),
    )


@lru_cache
def _shape(marker: str) -> str:
    """The outline of one of matplotlib's markers, so that the page and the printed figure use the same."""
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform())
    scale = _SIZE * (1.0 if marker in "sPX*o" else 1.14)  # Slim shapes look smaller than they are.
    polygons = [np.asarray(polygon, dtype=np.float64) for polygon in outline.to_polygons(closed_only=False)]
    size = max(float(np.abs(np.concatenate(polygons)).max()), 1e-9)
    paths = []
    for polygon in polygons:
        ends = " ".join(f"{scale * x / size:.1f} {-scale * y / size:.1f}" for x, y in polygon)
        paths.append(f"M{ends}Z")
    return "".join(paths)


def _label(panel: Panel) -> str:
    return (
        f"Scatter plot of {worst_name(panel)} against balanced accuracy on {panel.split_name}, a point for each "
        "combination. The arrow keys go from point to point; the table of every combination has the same numbers."
    )


def _legend(panel: Panel, found: list[Family], colours: Mapping[str | None, str], markers: Mapping[str, str]) -> Markup:
    def symbol(marker: str, style: str, hollow: bool = False) -> Markup:
        return Markup(
            '<svg viewBox="-10 -10 20 20" aria-hidden="true"><g class="pt{}" style="--c:{}">'
            '<path class="mark" d="{}"/></g></svg>'
        ).format(" hollow" if hollow else "", style, _shape(marker))

    by_colour = Markup("").join(
        Markup("<li>{} {}</li>").format(symbol("o", colour), objective_name(name)) for name, colour in colours.items()
    )
    kinds = [(marker, marker_name(kind), False) for kind, marker in markers.items()]
    if any(is_teacher(point.group, panel) for family in found for point in family.points):
        kinds.insert(0, ("s", "teacher itself", True))
    by_marker = Markup("").join(
        Markup("<li>{} {}</li>").format(symbol(marker, "var(--ink)", hollow), name) for marker, name, hollow in kinds
    )
    switches = Markup("").join(
        Markup(
            '<li><label><input type="checkbox" checked data-switch="{}"> '
            '<svg viewBox="0 0 30 10" class="dash" aria-hidden="true"><path class="front front-{}" d="M0 5H30"/></svg>'
            " {}</label></li>"
        ).format(number, number % len(FRONT_STYLES), family.name)
        for number, family in enumerate(found)
    )
    return Markup(
        '<div class="legend"><div><h3>Teacher (colour)</h3><ul>{}</ul></div>'
        "<div><h3>Student (marker)</h3><ul>{}</ul></div>"
        "<div><h3>Shown, with the Pareto front of each</h3><ul>{}</ul></div></div>"
    ).format(by_colour, by_marker, switches)

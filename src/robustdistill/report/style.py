"""How every figure of this package is drawn: the colours of Okabe & Ito (2008), without pyplot, legible in print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib
from matplotlib.ticker import FuncFormatter

DrawT = TypeVar("DrawT", bound=Callable[..., Any])

# The page replaces all of these by variables of its colour scheme; the first four must not be used for data.
INK, MUTED, GRID, PAPER = "#1f2429", "#69727d", "#dde1e6", "#ffffff"
BLUE, GREEN, VERMILLION, PURPLE, ORANGE, SKY = "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9"
# After the three of the objectives, for whatever else is shown.
SPARE = (PURPLE, ORANGE, SKY, "#999933", "#882255", "#44aa99")
OBJECTIVES = {"standard": BLUE, "balanced": GREEN, "robust": VERMILLION}
MARKERS = "o^DvPX<>ph*d8H"

STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    # Class names are other people's text: a dollar sign in one must not start a formula.
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}


def styled(draw: DrawT) -> DrawT:
    """Draws in this style whatever the caller's matplotlib is set to, and leaves that as it was."""
    return matplotlib.rc_context(STYLE)(draw)


def percent_axis() -> FuncFormatter:
    """Labels of an axis of fractions: 0.25 as "25 %"."""
    return FuncFormatter(lambda value, _: f"{100 * value:.4g} %")

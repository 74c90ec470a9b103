"""Pictures of the theory. Each function returns a Figure, drawn without pyplot."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustdistill.theory.bounds import theorem8
from robustdistill.theory.convergence import Convergence
from robustdistill.theory.plans import Plan

# Of Okabe & Ito (2008), told apart by colour-blind readers.
BLUE, VERMILLION, MUTED = "#0072b2", "#d55e00", "#69727d"


def planned(plan: Plan, *, bound: float, Z: float, classes: int, example: Convergence) -> Figure:  # noqa: N803
    """A plan's bound against the number of updates; beside it an example's exact gap with its own bound."""
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.unique(np.logspace(0, math.log10(plan.updates * 10), 60).astype(np.int64))
    fixed = plan.terms.approximation + plan.terms.validation + plan.terms.train
    moving = [theorem8(0.0, bound=bound, Z=Z, classes=classes, updates=int(k)).convergence for k in counts]
    left.plot(counts, fixed + np.array(moving), color=VERMILLION, label="Theorem 4’s bound")
    left.axhline(plan.gap, color=MUTED, linestyle="--", label=f"wanted gap, {plan.gap:g}")
    if fixed > 0:
        left.axhline(fixed, color=MUTED, linestyle=":", label="what no update removes")
    left.plot([plan.updates], [plan.gap], "o", color=BLUE, label=f"plan: K = {plan.updates:,}")
    _finish(left, f"Your numbers: B = {bound:g}, Z = {Z:g}, C = {classes}")
    _example(right, example)
    return figure


def converged(example: Convergence) -> Figure:
    """The exact gap of Algorithm 1 against its bound."""
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    _example(figure.subplots(), example)
    return figure


def _example(axes: Axes, example: Convergence) -> None:
    axes.plot(example.updates, example.bounds, color=VERMILLION, label="Theorem 4: 4BZ √(log C / K)")
    axes.plot(example.updates, example.gaps, "o-", color=VERMILLION, markersize=4, label="exact gap, γ of Theorem 4")
    axes.plot(example.updates, example.tight_bounds, color=BLUE, label="2r √(log C / K), r the largest risk")
    axes.plot(example.updates, example.tight_gaps, "s-", color=BLUE, markersize=4, label="exact gap, γ for r")
    _finish(axes, f"A known problem: B = {example.bound:.3g}, Z = {example.Z:.3g}, r = {example.largest_risk:.3g}")


def _finish(axes: Axes, title: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel="number of updates K", ylabel="gap to the best robust scorer")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(True, color="#dde1e6", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)

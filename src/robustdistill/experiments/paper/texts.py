"""What a comparison says in words, computed from its numbers and its settings."""

from __future__ import annotations

from robustdistill.experiments.paper.layouts import HARD, FigureLayout, Layout
from robustdistill.experiments.paper.plan import Cell, Pair, Plan
from robustdistill.experiments.paper.results import CellResult, FigureResult, Point, TableResult
from robustdistill.experiments.paper.scales import Setup
from robustdistill.experiments.select import Estimate, metric_name
from robustdistill.objectives import Objective
from robustdistill.report import numbers

Result = TableResult | FigureResult
DIGITS = 2  # decimals of a percentage, as many as the paper prints


def plus_minus(found: Estimate | None) -> str:
    """ "71.23 ± 0.44"; without ± for a single repeat."""
    return numbers.plus_minus(found, DIGITS)


def signed(fraction: float | None) -> str:
    """ "+1.20" or "−4.36" points."""
    return numbers.signed(fraction, DIGITS)


def overlap(found: CellResult) -> str:
    """Of the worst metric: "overlap", "apart", or nothing where it cannot be said."""
    return {True: "overlap", False: "apart", None: ""}[found.worst.overlap]


def temperatures(pair: Pair | None) -> str:
    """ "3", or "3, validation 0.1" where the teacher labels validation at another one."""
    if pair is None or pair[0] is None:
        return "–"
    return f"{pair[0]:g}" if pair[1] in (None, pair[0]) else f"{pair[0]:g}, validation {pair[1]:g}"


def objective_name(objective: str) -> str:
    """ "tradeoff:0.5" -> "α = 0.5"; the standard, balanced and robust objectives keep their names."""
    return f"α = {Objective.parse(objective).robustness:g}" if ":" in objective else objective


def cell_name(cell: Cell) -> str:
    """ "balanced teacher → robust student (teacher val)"."""
    name = cell.row.name
    if not cell.column:
        return name
    lowered = name if name.startswith("Ada") else name[0].lower() + name[1:]
    joint = ", " if cell.row.method in ("none", "post-shift") else " → "
    return f"{cell.column} teacher{joint}{lowered}"


def point_name(point: Point) -> str:
    """ "teacher α = 0.5 → student robust, T = 3"."""
    if point.student is None:
        return f"teacher {objective_name(point.teacher)}"
    student = objective_name(point.student)
    return f"teacher {objective_name(point.teacher)} → student {student}, T = {temperatures(point.temperatures)}"


def title(plan: Plan) -> str:
    """ "Table 1 on digits-lt, in place of cifar10-lt"."""
    layout, setup = plan.layout, plan.setup
    name = f"{'Table' if isinstance(layout, Layout) else 'Figure'} {layout.number}"
    return f"{name} on {setup.data.name}" + (f", in place of {layout.data}" if setup.stand_in else "")


def headline(result: Result) -> str:
    """What a reader wants to know first: does it agree with the paper; without comparable numbers, what is best."""
    if isinstance(result, FigureResult):
        best = max((point for point in result.points if point.chosen), key=lambda point: point.worst.mean, default=None)
        if best is None:
            return f"{title(result.plan)}: no run is finished yet."
        return (
            f"{title(result.plan)}: worst-class accuracy is highest, {plus_minus(best.worst)} %, for"
            f" {point_name(best)} (of the temperatures that validation picks)."
        )
    known = [found for found in result.cells if found.worst.ours is not None]
    if not known:
        return f"{title(result.plan)}: no run is finished yet."
    judged = [found.worst.overlap for found in known if found.worst.overlap is not None]
    if judged:
        scale = result.plan.setup.scale
        return (
            f"{title(result.plan)}, {scale} scale: {metric_name(result.plan.setup.worst)} overlaps with the paper’s in"
            f" {sum(judged)} of {len(judged)} cells."
        )
    best_cell = max(known, key=_mean)
    return (
        f"{title(result.plan)}: {metric_name(result.plan.setup.worst)} is highest,"
        f" {plus_minus(best_cell.worst.ours)} %, for {cell_name(best_cell.cell)}."
    )


def lede(result: Result, failed: int = 0) -> list[str]:
    """The sentences below the headline."""
    setup, sentences = result.plan.setup, []
    if setup.stand_in:
        shown = (
            "; the paper’s numbers for that are shown for orientation only" if isinstance(result, TableResult) else ""
        )
        sentences.append(
            f"The paper has no numbers for {setup.data.name}. These runs follow its protocol on stand-in data, so they"
            f" show that the protocol works and nothing about {setup.stands_for}{shown}."
        )
    elif isinstance(result, FigureResult):
        sentences.append("The paper prints no numbers for its figures: compare by eye.")
    if setup.changes:
        sentences.append(
            f"This is the {setup.scale} scale: {_settings(len(setup.changes))} from the paper’s; “What differs from the"
            " paper” lists all."
            + ("" if setup.stand_in or setup.scale == "paper" else " Other numbers than its own are to be expected.")
        )
    else:
        sentences.append("Data, models, recipe, temperatures and repeats are those that the paper prints.")
    if isinstance(result, TableResult):
        sentences += _best(result)
        done, planned = sum(found.done for found in result.cells), sum(found.planned for found in result.cells)
        if done < planned:
            lost = f" ({failed} failed)" if failed else ""
            sentences.append(f"Not all runs are finished: {done} of {planned} results are in{lost}.")
    elif failed:
        sentences.append(f"{failed} runs failed; their points are missing or means of fewer repeats.")
    return sentences


def _settings(count: int) -> str:
    return "1 setting differs" if count == 1 else f"{count} settings differ"


def _best(result: TableResult) -> list[str]:
    """The best combination here and in the paper, panel by panel."""
    sentences = []
    for student in result.plan.layout.students:
        panel = [found for found in result.cells if found.cell.student == student]
        ours = [found for found in panel if found.worst.ours is not None]
        printed = [found for found in panel if found.worst.printed is not None]
        if not ours or not printed or len(panel) < 2:
            continue
        here = max(ours, key=_mean)
        there = max(printed, key=lambda found: found.worst.printed.mean if found.worst.printed else 0.0)
        text = there.worst.printed.text if there.worst.printed else ""
        where = f" with {student} students" if len(result.plan.layout.students) > 1 else ""
        sentences.append(
            f"The best combination{where} is {cell_name(here.cell)} here ({plus_minus(here.worst.ours)} %), and"
            f" {cell_name(there.cell)} in the paper ({text} %, {result.plan.layout.data})."
        )
    return sentences


def _mean(found: CellResult) -> float:
    return found.worst.ours.mean if found.worst.ours is not None else float("-inf")


def choices(layout: Layout | FigureLayout, setup: Setup) -> list[str]:
    """Where the paper is silent or ambiguous, what these runs do."""
    said = [
        f"Multipliers are updated every {setup.recipe.every} optimiser steps (the paper: “a few steps of SGD”), from"
        " uniform ones, by zero-one risks.",
        "Augmentation is that of the data set in this library: the paper prints none.",
        "One half of the held-out examples moves the multipliers, chooses the temperature and fits post-shift; the"
        " other half is test. Split and subset are the same in all repeats, training seeds differ.",
    ]
    if isinstance(layout, FigureLayout):
        said += [
            "The paper does not print its α: the grid is α = " + ", ".join(f"{alpha:g}" for alpha in setup.alphas) + ","
            " between the balanced (α = 0) and the robust objective (α = 1), and the standard objective beside it.",
            "All students of a teacher objective learn from its first teacher; the teachers’ own curve is the mean"
            " over retrained ones.",
        ]
        if layout.labels == "teacher":
            said.append(_pairs())
        return said
    methods = {row.method for row in layout.rows}
    if any(row.labels == "teacher" for row in layout.rows):
        said.append(_pairs())
    if methods & {"distill", "ada-margin", "ada-alpha"}:
        said.append(
            "The temperature is chosen once per combination, by the mean over repeats of the table’s own worst metric"
            " on validation."
        )
    notes = {
        "post-shift": "Post-shift finds one coefficient a class on validation that maximises worst-class accuracy, from"
        " the priors that the scores imply, and keeps the best iterate.",
        "ada-margin": "AdaMargin is written from its description: the margin is the teacher’s, for each example and"
        " class, at the temperature of the targets, with scale 1.",
        "ada-alpha": "AdaAlpha’s weights are measured on validation examples.",
        "group-dro": "Group DRO has η = 0.01 and draws its batches uniformly over classes, as its authors’ code does;"
        " with validation, the weights are moved by the cross-entropy on validation, as often as multipliers are.",
    }
    return said + [text for method, text in notes.items() if method in methods]


def _pairs() -> str:
    return (
        f"Where the teacher labels validation, it does so at the temperature T of the targets and at {HARD:g}, nearly"
        f" hard labels: the pairs (T, T) and (T, {HARD:g})."
    )

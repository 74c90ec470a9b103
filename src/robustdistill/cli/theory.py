"""`robustdistill theory`: what the theorems ask for, and how good a teacher is by them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE
from rich.table import Table

from robustdistill.cli.options import AsJson, Quiet
from robustdistill.cli.output import escaped, out_console, print_json, say, warn
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.predictions import Predictions
    from robustdistill.theory.fitness import Estimates, Fitness
    from robustdistill.theory.plans import Plan
    from robustdistill.theory.study import Cell, Correlation

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Plan updates and validation size by the theorems, and measure what makes a good teacher.",
)


@app.command(epilog="Example: `robustdistill theory plan --gap 1 --bound 2 --Z 10 --classes 10`")
def plan(
    gap: Annotated[
        float, typer.Option(help="Wanted: how much worse than the best robust scorer the student's loss may be.")
    ],
    bound: Annotated[float, typer.Option(help="B, the largest cross-entropy loss.")],
    classes: Annotated[int, typer.Option(help="C, the number of classes.")],
    z: Annotated[
        float | None,
        typer.Option("--Z", help="1 over the smallest class marginal of the teacher.", show_default="the classes"),
    ] = None,
    delta: Annotated[float, typer.Option(help="Chance that the promise fails.")] = 0.05,
    approximation: Annotated[
        float, typer.Option(help="The teacher's largest E|p/π^t − η/π|; `theory fitness` estimates it.")
    ] = 0.0,
    delta_train: Annotated[float, typer.Option(help="Δ(n, δ/2), estimation error on the training set.")] = 0.0,
    delta_val: Annotated[
        float, typer.Option(help="Δ(n_val, δ/2), on the validation set; of one-hot labels if these are.")
    ] = 0.0,
    tau: Annotated[float, typer.Option(help="τ of Theorem 8 (one-hot validation labels); 1 is Theorem 4.")] = 1.0,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of convergence against its bound to write (.png, .svg or .pdf).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the number of updates, the step size and the validation size that Theorem 4 (8) asks for."""
    from robustdistill import theory

    Z = float(classes) if z is None else z  # noqa: N806 (the paper's letter)
    if figure is not None and figure.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"figure= must end in .png, .svg or .pdf, got {str(figure)!r}")
    found = theory.plan(
        gap,
        bound,
        Z,
        classes,
        delta,
        approximation=approximation,
        delta_train=delta_train,
        delta_val=delta_val,
        tau=tau,
    )
    if figure is not None:
        _draw(figure, found, bound, Z, classes)
    if as_json:
        written = {} if figure is None else {"figure": str(figure.resolve())}
        terms = {name: getattr(found.terms, name) for name in ("approximation", "validation", "train", "convergence")}
        settings = {
            name: getattr(found, name) for name in ("gap", "updates", "step_size", "validation_size", "vacuous")
        }
        print_json({**settings, "Z": Z, "terms": {**terms, "total": found.terms.total}, **written})
        return
    _print_plan(found, bound, Z, delta)
    if figure is not None:
        say(False, f"picture: {figure}")


@app.command(epilog="Example: `robustdistill theory fitness teacher.npz --beside other.npz`")
def fitness(
    table: Annotated[Path, typer.Argument(help="The teacher's predictions on labelled held-out examples.")],
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another model's predictions on them, for the second model of η; may be repeated."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the student's targets.")] = 1.0,
    priors: Annotated[
        str | None,
        typer.Option(help="Class counts or shares of the training data, with commas.", show_default="the table's own"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-fitting.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print how far a teacher is from what a robust student needs, class by class (Theorem 2)."""
    import numpy as np

    from robustdistill import theory
    from robustdistill.cli.options import numbers
    from robustdistill.predictions import Predictions

    teacher = Predictions.read(table)
    features = None
    if beside:
        features = np.hstack([_beside(path, teacher) for path in beside])
    found = theory.teacher_fitness(
        teacher,
        temperature=temperature,
        features=features,
        priors=None if priors is None else numbers("priors", priors),
        folds=folds,
        seed=seed,
    )
    if as_json:
        print_json({"table": str(table), "temperature": temperature, "examples": len(teacher), **found.as_dict()})
    else:
        _print_fitness(found, table, len(teacher))


@app.command(epilog="Example: `robustdistill theory teachers runs`")
def teachers(
    root: Annotated[Path, typer.Argument(help="Folder of finished runs; teachers keep predictions/SPLIT.npz.")],
    split: Annotated[Literal["val", "test"], typer.Option(help="On which the teachers' fitness is measured.")] = "val",
    outcome: Annotated[Literal["val", "test"], typer.Option(help="On which the students are.")] = "test",
    draws: Annotated[int, typer.Option(min=100, help="Of the bootstrap over teachers.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and bootstrap.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Correlate teachers' fitness with the worst class of their robust students, over all runs below a folder."""
    from dataclasses import asdict

    from robustdistill.theory.study import good_teachers

    def progress(line: str) -> None:
        if not (quiet or as_json):
            warn(line)

    cells = good_teachers(root, split=split, outcome=outcome, draws=draws, seed=seed, progress=progress)
    if as_json:
        print_json({"root": str(root), "split": split, "outcome": outcome, "cells": [asdict(cell) for cell in cells]})
        return
    for cell in cells:
        _print_cell(cell)
    if not quiet:
        say(False, "Spearman's rank correlation with the students' worst-class accuracy, 95 % bootstrap over teachers.")
        say(False, "An error that predicts has a negative correlation. Few teachers give wide intervals.")


def _beside(path: Path, teacher: Predictions) -> Any:
    from robustdistill.predictions import Predictions

    other = Predictions.read(path, class_names=teacher.class_names)
    return other.match_classes(teacher.class_names).join(teacher.ids).log_probabilities()


def _draw(path: Path, found: Plan, bound: float, Z: float, classes: int) -> None:  # noqa: N803
    from robustdistill.files import replacing
    from robustdistill.theory.convergence import example
    from robustdistill.theory.figures import planned

    drawn = planned(found, bound=bound, Z=Z, classes=classes, example=example())
    with replacing(path) as temporary:
        drawn.savefig(temporary, dpi=150)


def _print_plan(found: Plan, bound: float, Z: float, delta: float) -> None:  # noqa: N803
    terms = found.terms
    say(False, f"updates of the multipliers   K      {found.updates:,}")
    say(False, f"step size of each            γ      {found.step_size:.4g}")
    say(False, f"validation examples          n_val  {found.validation_size:,} at least")
    say(False, "")
    say(False, f"gap promised, with probability {1 - delta:g}: {terms.total:.6g}, of which")
    for name, value in (
        ("the teacher (2B · approximation)", terms.approximation),
        ("validation set (2Δ)", terms.validation),
        ("training set (2τΔ)", terms.train),
        ("updates (4BZ √(log C / K))", terms.convergence),
    ):
        say(False, f"  {name:<34} {value:.6g}")
    if found.vacuous:
        say(False, f"note: no loss exceeds B = {bound:g}, so every scorer has a gap of {found.gap:g} or less")
    say(
        False, f"γ · K = {found.step_size * found.updates:.4g}; the bound is a worst case over problems with Z = {Z:g}:"
    )
    say(False, "the paper's own runs make fewer updates with larger steps, γ = 0.1 (see docs/theory.md)")


def _print_fitness(found: Fitness, path: Path, examples: int) -> None:
    table = Table(title=f"E|p/π^t − η/π| of {escaped(path)}, {examples:,} examples", title_justify="left", box=SIMPLE)
    columns = {"lower": found.lower, "estimate": found.estimate, "upper": found.upper}
    columns |= {"left out": found.refinement, "miscalibrated": found.miscalibration}
    shown_columns = {name: part for name, part in columns.items() if part is not None}
    for heading in ("class", *shown_columns, "marginal", "variance"):
        table.add_column(heading, justify="left" if heading == "class" else "right", no_wrap=True)
    for index, name in enumerate(found.class_names):
        ratio = found.variances.ratios[index]
        table.add_row(
            escaped(name),
            *(_with_error(part, index) for part in shown_columns.values()),
            f"{found.marginal_mismatch[index]:.2f}",
            "" if math.isnan(ratio) else f"{ratio:.2f}",
        )
    out_console.print(table)
    kind = "upper bound" if found.estimate is None else "estimate"
    say(False, f"score: {found.score:.3f} (largest {kind}; 0 is best, 2 the most). ± is one standard error.")
    if found.estimate is None:
        say(False, "Without --beside nothing beyond the prediction is seen: the truth lies between lower and upper.")
    else:
        say(False, "left out: what the prediction does not say of η, E|E[η|p] − η|/π.")
    say(False, "miscalibrated: E|p − E[η|p]|/π. marginal: |π^t/π − 1|. variance: of the loss, distilled over one-hot.")


def _with_error(part: Estimates, index: int) -> str:
    return f"{part.values[index]:.2f} ± {part.errors[index]:.2f}"


def _print_cell(cell: Cell) -> None:
    some = next(iter(cell.correlations.values()))
    title = f"{escaped(cell.name)}: {some.teachers} teachers, {some.points} points"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for heading in ("predictor", "correlation", "among teachers of one objective"):
        table.add_column(heading, justify="left" if heading == "predictor" else "right")
    for name in cell.correlations:
        table.add_row(name, shown(cell.correlations[name]), shown(cell.within[name]))
    out_console.print(table)


def shown(found: Correlation) -> str:
    """A correlation with its interval, for people."""
    if math.isnan(found.value):
        return "unknown"
    ends = "" if math.isnan(found.low) else f" ({found.low:+.2f} to {found.high:+.2f})"
    return f"{found.value:+.2f}{ends}"

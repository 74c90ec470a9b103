"""Does a teacher's fitness (Theorem 2) predict the worst-class accuracy of its robust students?

    python benchmarks/good_teacher.py ROOT [ROOT ...] --figures results/good-teacher > results/good-teacher/README.md

prints a page in Markdown: for each comparison below the folders of runs, Spearman's correlation of several predictors
with the students' worst class, with bootstrap intervals over teachers, and the points behind it. Teachers need
predictions/val.npz in their run folders. Progress goes to stderr; no training, no download.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path

from matplotlib.figure import Figure

from robustdistill.cli.theory import shown
from robustdistill.environment import environment
from robustdistill.errors import InputError
from robustdistill.theory.study import PREDICTORS, Cell, good_teachers

ABOUT = """# What makes a good teacher: does fitness predict the worst class of robust students?

Fitness is measured on {split}, the students' worst-class accuracy on {outcome}. A point is a teacher at one
temperature; its outcome is the mean over its robust students there. *estimate*: E|p/π^t − η/π| with a cross-fitted
second model of η that sees the mean log-probabilities of the other teachers too; what no teacher sees, it does not see
either. Examples are weighted to the class frequencies of the training data. docs/theory.md says what each predictor is.

Spearman's ρ with a 95 % percentile interval from {draws:,} resamples of teachers, each with all its points. With few
teachers the interval is rough (below five there is none), and a perfect order stays perfect in every resample. The
second column takes the mean of each teacher objective from both sides first: what is left is among teachers of one
objective.
"""
MARKERS = "osD^vP"


def print_cell(cell: Cell) -> None:
    some = next(iter(cell.correlations.values()))
    print(f"\n## {cell.name}\n\n{some.teachers} teachers, {some.points} points.\n")
    print("| predictor | | correlation | among teachers of one objective |\n|---|---|--:|--:|")
    for name, meaning in PREDICTORS.items():
        safe = meaning.replace("|", "\\|")
        print(f"| {name} | {safe} | {shown(cell.correlations[name])} | {shown(cell.within[name])} |")
    print(
        "\n| teacher | T | validation T | students | worst class % | estimate, worst | estimate, mean | own worst % |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for point in sorted(cell.points, key=lambda point: -point.outcome):
        second = "" if point.validation_temperature is None else f"{point.validation_temperature:g}"
        worst, mean, own = (
            point.predictors[name] for name in ("estimate, worst class", "estimate, mean", "teacher's worst class")
        )
        print(
            f"| {point.objective} ({point.teacher[:6]}) | {point.temperature:g} | {second} | {point.students} "
            f"| {100 * point.outcome:.1f} | {number(worst)} | {number(mean)} | {100 * own:.1f} |"
        )


def number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3f}"


def draw(cell: Cell, folder: Path) -> Path:
    """Students' worst class against the teacher's fitness and against the teacher's own worst class."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    objectives = sorted({point.objective for point in cell.points})
    for axis, predictor in zip(axes, ("estimate, mean", "teacher's worst class"), strict=True):
        for index, objective in enumerate(objectives):
            points = [point for point in cell.points if point.objective == objective]
            axis.plot(
                [point.predictors[predictor] for point in points],
                [point.outcome for point in points],
                MARKERS[index % len(MARKERS)],
                label=f"{objective} teacher",
            )
        axis.set_xlabel("E|p/π^t − η/π|, mean over classes" if predictor.startswith("est") else predictor)
        axis.set_title(f"ρ = {shown(cell.correlations[predictor])}", loc="left", fontsize=10)
        axis.grid(True, color="#dde1e6", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("robust students’ worst class")
    axes[0].legend(frameon=False, fontsize=8.5)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', cell.name.lower()).strip('-')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="*", default=[Path(__file__).resolve().parents[1] / "results"])
    parser.add_argument("--split", choices=("val", "test"), default="val", help="on which the fitness is measured")
    parser.add_argument("--outcome", choices=("val", "test"), default="test", help="on which the students are")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--figures", type=Path, help="folder for a picture of each comparison")
    given = parser.parse_args()
    cells = []
    for root in given.roots:
        try:
            cells += good_teachers(
                root,
                split=given.split,
                outcome=given.outcome,
                draws=given.draws,
                progress=lambda line: print(line, file=sys.stderr, flush=True),
            )
        except InputError as error:
            print(f"{root} is left out: {error}", file=sys.stderr)
    if not cells:
        print("nothing to study: run a grid first, such as `robustdistill grid`", file=sys.stderr)
        return
    print(ABOUT.format(split=given.split, outcome=given.outcome, draws=given.draws), end="")
    for cell in cells:
        print_cell(cell)
        if given.figures is not None:
            print(f"\n![{cell.name}]({draw(cell, given.figures).name})")
    roots = " ".join(str(root) for root in given.roots)
    print(f"\nCommand: `python benchmarks/good_teacher.py {roots}`\n")
    for name, value in environment().items():
        print(f"- {name}: {value}")


if __name__ == "__main__":
    main()

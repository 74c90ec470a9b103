"""`robustdistill shift`: better worst-class accuracy from predictions alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from robustdistill.cli.audit import Columns, parse_columns, read_table
from robustdistill.cli.options import AsJson, Quiet
from robustdistill.cli.output import out_console, print_json, say, scores_json, warn
from robustdistill.errors import InputError
from robustdistill.shown import in_line

if TYPE_CHECKING:
    from robustdistill.metrics import Scores
    from robustdistill.postshift import PostShift

CURVE = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
FOLDS = 5
MOST_CELLS = 5_000_000  # of scores up to which cross-fitting is a matter of seconds

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Scale a classifier's probabilities by class, so that its worst class gets better. Nothing is retrained.",
)

File = Annotated[Path, typer.Argument(help="Logits or probabilities: .csv, .parquet or .npz.")]
SplitName = Annotated[
    str | None, typer.Option(help="Split to take, where a file has a column of them.", show_default=False)
]


@app.command(epilog="Example: `robustdistill shift fit val.parquet -o shift.json`")
def fit(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("shift.json"),
    robustness: Annotated[
        float, typer.Option(min=0, max=1, help="0 for balanced accuracy, 1 for the worst class, or between.")
    ] = 1.0,
    method: Annotated[Literal["exponentiated-gradient", "search"], typer.Option(help="How it is found.")] = (
        "exponentiated-gradient"
    ),
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Parts for the cross-fitted figures; 0 for none.",
            show_default=f"{FOLDS} unless the table is large",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of these parts.")] = 0,
    column: Columns = None,
    split: SplitName = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find a coefficient for each class on labelled predictions that the model was not trained on.

    The whole curve from balanced to worst-class accuracy is kept in the file; `apply --robustness` takes a point of it.
    """
    from robustdistill.postshift import PostShift, cross_fitted

    if out.suffix.lower() != ".json":
        raise InputError(f"--out must be a .json file, got {str(out)!r}")
    table = read_table(file, parse_columns(column), split)
    amounts = sorted({*CURVE, robustness})
    curve = PostShift(robustness, method).curve(table, amounts)
    chosen = curve[amounts.index(robustness)]
    counts = [] if chosen.fit_scores_ is None else chosen.fit_scores_.counts.tolist()
    small = table.scores.size <= MOST_CELLS and min(counts) >= FOLDS
    parts = (FOLDS if small else 0) if folds is None else folds
    checked = cross_fitted(PostShift(robustness, method), table, amounts, parts, seed) if parts else None
    chosen.save(out, curve)
    if as_json:
        print_json(
            {
                "out": str(out),
                "fit_table": chosen.fingerprint_,
                "unshifted": _summary(chosen.unshifted_scores_),
                "curve": [
                    {
                        "robustness": point.robustness,
                        "fit": _summary(point.fit_scores_),
                        "cross_fitted": None if checked is None else _summary(checked[index]),
                    }
                    for index, point in enumerate(curve)
                ],
                "coefficients": dict(zip(chosen.class_names_, chosen.coefficients_.tolist(), strict=True)),
            }
        )
        return
    if not quiet:
        _print_curve(chosen, curve, checked, parts)
        _print_classes(chosen, None if checked is None else checked[amounts.index(robustness)])
    say(
        quiet,
        f"{out} has the coefficients; to use them: robustdistill shift apply FILE --shift {out} --out SHIFTED.csv",
    )


@app.command(epilog="Example: `robustdistill shift apply test.parquet --shift shift.json -o shifted.parquet`")
def apply(
    file: File,
    shift: Annotated[Path, typer.Option(help="File that `shift fit` wrote.")] = Path("shift.json"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write: .parquet, .csv or .npz.")] = Path(
        "shifted.parquet"
    ),
    robustness: Annotated[
        float | None, typer.Option(help="Another point of the curve in the file.", show_default="the one fitted for")
    ] = None,
    column: Columns = None,
    split: SplitName = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the shifted probabilities of a table; ids, labels, groups and splits stay. Classes are matched by name."""
    from robustdistill.postshift import PostShift

    fitted = PostShift.load(shift, robustness)
    table = read_table(file, parse_columns(column), split)
    try:
        shifted = fitted.transform(table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    shifted.write(out)
    if table.fingerprint == fitted.fingerprint_:
        warn(f"{file} is the table that the shift was fitted on: its figures here are better than others will be")
    before, after = (table.evaluate(), shifted.evaluate()) if table.labels is not None else (None, None)
    if as_json:
        print_json(
            {
                "out": str(out),
                "rows": len(shifted),
                "robustness": fitted.robustness,
                "before": None if before is None else scores_json(before),
                "after": None if after is None else scores_json(after),
            }
        )
        return
    if before is not None and after is not None and not quiet:
        found = Table(title=Text(f"{file.name}, accuracy in percent"), title_justify="left", box=SIMPLE, pad_edge=False)
        for name in ("", "before", "after"):
            found.add_column(name, justify="right" if name else "left")
        for name, words in (("worst_class", "worst class"), ("balanced", "balanced"), ("standard", "standard")):
            found.add_row(words, *(_percent(getattr(scores, name)) for scores in (before, after)))
        out_console.print(found)
    say(quiet, f"{len(shifted):,} shifted predictions (robustness {fitted.robustness:g}) are in {out}")


def _summary(scores: Scores | None) -> dict[str, float] | None:
    if scores is None:
        return None
    return {name: getattr(scores, name) for name in ("worst_class", "balanced", "standard")}


def _print_curve(chosen: PostShift, curve: list[PostShift], checked: list[Scores] | None, folds: int) -> None:
    table = Table(title="worst-class / balanced accuracy, percent", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("robustness")
    table.add_column("on the fit table", justify="right")
    if checked is not None:
        table.add_column(f"cross-fitted, {folds} folds", justify="right")
    plain = _pair(chosen.unshifted_scores_)
    table.add_row("none (unshifted)", plain, *([] if checked is None else [plain]))
    for index, point in enumerate(curve):
        cells = [_pair(point.fit_scores_), *([] if checked is None else [_pair(checked[index])])]
        table.add_row(f"{point.robustness:g}", *cells, style="bold" if point.robustness == chosen.robustness else "")
    out_console.print(table)
    if checked is None:
        say(False, "Figures on the fit table are too good, since it was fitted on: evaluate on another table.")
    else:
        say(
            False,
            "Figures on the fit table are too good, since it was fitted on; the cross-fitted ones are what to expect.",
        )


def _print_classes(chosen: PostShift, checked: Scores | None) -> None:
    table = Table(title=f"by class, robustness {chosen.robustness:g}", title_justify="left", box=SIMPLE, pad_edge=False)
    after = chosen.fit_scores_ if checked is None else checked
    for name in ("class", "coefficient", "n", "recall before", "recall after" if checked is None else "cross-fitted"):
        table.add_column(name, justify="left" if name == "class" else "right")
    if after is not None and chosen.unshifted_scores_ is not None:
        before = chosen.unshifted_scores_.per_class
        for index in before.argsort(kind="stable")[:20].tolist():
            cells = (f"{chosen.coefficients_[index]:.3g}", f"{after.counts[index]:,}", _percent(before[index]))
            table.add_row(Text(in_line(chosen.class_names_[index])), *cells, _percent(after.per_class[index]))
    out_console.print(table)
    if len(chosen.class_names_) > 20:
        say(False, f"and {len(chosen.class_names_) - 20} more that were better; all are in the file")


def _pair(scores: Scores | None) -> str:
    return "" if scores is None else f"{_percent(scores.worst_class)} / {_percent(scores.balanced)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"

"""`robustdistill audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from robustdistill.cli.options import AsJson
from robustdistill.cli.output import out_console, print_json, say
from robustdistill.errors import InputError, unknown
from robustdistill.predictions import Predictions
from robustdistill.shown import in_line

if TYPE_CHECKING:
    from robustdistill.auditing import Audit, Comparison, Lines
    from robustdistill.auditing.teacher import TeacherAudit

MOST_LINES = 20
WIDE = 110  # Columns of a terminal from which on every figure of a class has room.

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "--columns",
        help="What the file calls a column: label=y_true, group=country, `probability='score_*'` (the star is the "
        "class; `'*'` alone: every other column); also id, prediction, split, logit. Can be repeated.",
        show_default=False,
    ),
]


def audit(
    file: Annotated[Path, typer.Argument(help="Predictions with labels: .csv, .parquet or .npz.")],
    other: Annotated[
        Path | None, typer.Argument(help="Another classifier's, on the same examples: the two are compared.")
    ] = None,
    column: Columns = None,
    split: Annotated[
        str | None, typer.Option(help="Split to audit, where a file has a column of them.", show_default=False)
    ] = None,
    worst_k: Annotated[
        int | None,
        typer.Option(min=1, help="k of worst-k accuracy.", show_default="a 20th of the classes, at least 2"),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Also judge how fit the predictions are to teach a robust student.")
    ] = False,
    leave_out_absent: Annotated[
        bool, typer.Option("--leave-out-absent", help="Figures over classes skip those that have no examples.")
    ] = False,
    common: Annotated[
        bool, typer.Option("--common", help="Compare on the ids that both files have, where they differ.")
    ] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 1 below this: worst_class=0.5, worst_k=0.6, balanced=0.7, standard=0.8. Of two files the "
            "second must have it. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a page (index.html) and audit.json.", show_default="no page")
    ] = None,
    all_lines: Annotated[
        bool, typer.Option("--all", help=f"Print every line, not only the worst {MOST_LINES}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how good each class is and how sure that is, from predictions in a file; with two files, what changed."""
    from robustdistill import auditing

    wanted = _requirements(require or [])
    columns = parse_columns(column)
    if other is not None and teacher:
        raise InputError("--teacher judges one file, got two")
    if other is None and common:
        raise InputError("--common needs two files, got one")
    first = read_table(file, columns, split)
    if other is None and first.labels is None:
        raise InputError(
            f"{file}: an audit needs true classes, in a column 'label' or in one named by --column label=NAME; "
            "there is none"
        )
    if other is None:
        found: Audit | Comparison = auditing.audit(
            first, name=file.name, worst_k=worst_k, leave_out_absent=leave_out_absent, teacher=teacher
        )
    else:
        if leave_out_absent:
            raise InputError("--leave-out-absent is for one file, got two")
        names = (file.name, other.name) if file.name != other.name else (str(file), str(other))
        found = auditing.compare(first, read_table(other, columns, split), names=names, common=common, worst_k=worst_k)
    missed = _missed(wanted, found.values())
    if out is not None:
        from robustdistill.files import write_json

        found.write_html(out / "index.html")
        write_json(out / "audit.json", found.as_dict())
    if as_json:
        print_json({**found.as_dict(), "missed": missed, "page": None if out is None else str(out / "index.html")})
    else:
        _print(found, all_lines)
        for text in missed:
            say(False, Text(text, style="bold red"))
        if out is not None:
            say(False, f"page: {out / 'index.html'}")
    if missed:
        raise typer.Exit(1)


def parse_columns(column: list[str] | None) -> dict[str, str]:
    """ROLE=NAME of each --column."""
    pairs = [text.partition("=") for text in column or []]
    for text, (role, equals, name) in zip(column or [], pairs, strict=True):
        if not (role and equals and name):
            raise InputError(f"--column must be ROLE=NAME, such as label=y_true, got {text!r}")
    return {role: name for role, _, name in pairs}


def read_table(path: Path, columns: dict[str, str], split: str | None) -> Predictions:
    """A file of predictions, or one split of it; errors name the file."""
    table = Predictions.read(path, columns=columns)
    try:
        return table if split is None else table.split(split)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _requirements(texts: list[str]) -> dict[str, float]:
    from robustdistill.auditing.audits import MEASURES

    wanted = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in MEASURES:
            raise unknown("measure to require", name, MEASURES)
        try:
            wanted[name] = float(value)
        except ValueError:
            raise InputError(f"--require must be a measure and a fraction, such as {name}=0.5, got {text!r}") from None
        if not 0 <= wanted[name] <= 1:
            raise InputError(f"--require {name} must be a fraction in [0, 1], got {value}")
    return wanted


def _missed(wanted: dict[str, float], values: dict[str, float]) -> list[str]:
    """What falls short, as sentences; an unknown figure does."""
    if idle := [name for name in wanted if name not in values]:
        raise InputError(f"--require {idle[0]} needs --worst-k where there are fewer than 4 classes")
    return [
        f"{name} is {'unknown' if values[name] != values[name] else f'{values[name]:.4g}'}, required was {least:g}"
        for name, least in wanted.items()
        if not values[name] >= least
    ]


def _print(found: Audit | Comparison, every: bool) -> None:
    from robustdistill.auditing import Audit, words

    if isinstance(found, Audit):
        _print_audit(found, every)
        head, details = words.headline(found), words.details(found)
    else:
        _print_comparison(found, every)
        head, details = words.comparison_headline(found), words.comparison_details(found)
    say(False, "")
    say(False, Text(in_line(head), style="bold"))
    for sentence in details:
        say(False, in_line(sentence))
    if isinstance(found, Audit) and found.teacher is not None:
        say(False, "")
        _print_teacher(found.teacher)


def _print_audit(found: Audit, every: bool) -> None:
    from robustdistill.auditing.words import measure_name, percent, span

    title = f"{found.name}: {found.rows:,} examples, {len(found.classes.lines)} classes"
    _print_lines(found.classes, title, "class", every, calibrated=found.calibration is not None)
    if found.groups is not None and found.cells is not None:
        calibrated = found.calibration is not None
        _print_lines(found.groups, "groups", "group", every, calibrated=calibrated)
        _print_lines(
            found.cells, "classes within groups", "class in group", every, calibrated=calibrated, most=MOST_LINES // 2
        )
    for name, measure in found.measures.items():
        interval = f"  (bootstrap 95 %: {span(measure.low, measure.high, 1)})" if measure.low == measure.low else ""
        say(False, f"{measure_name(name, found.k):>12}  {percent(measure.value):>5} %{interval}")


def _print_lines(
    lines: Lines, title: str, heading: str, every: bool, *, calibrated: bool, most: int = MOST_LINES
) -> None:
    from robustdistill.auditing.words import percent, span, verdict

    narrow = calibrated and out_console.width < WIDE
    calibrated = calibrated and not narrow
    table = Table(title=Text(in_line(title)), title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column(heading, overflow="fold")
    right = ["accuracy %" if heading == "group" else "recall %", "95 % interval", "n"]
    right += [] if heading == "group" else ["precision %"]
    right += ["confidence %", "ECE %"] if calibrated else []
    for name in right:
        table.add_column(name, justify="right")
    for name in ("mistaken for", "verdict"):
        table.add_column(name, overflow="fold")
    shown = lines.sorted() if every else lines.sorted()[:most]
    for line in shown:
        cells = [percent(line.recall) if line.count else "none seen", span(*line.interval), f"{line.count:,}"]
        cells += [] if heading == "group" else [percent(line.precision)]
        cells += [percent(line.confidence), percent(line.calibration_error)] if calibrated else []
        mistaken = ", ".join(f"{name} {count}" for name, count in line.mistaken_for[:2])
        table.add_row(*(Text(in_line(text)) for text in (line.label, *cells, mistaken, verdict(line))))
    out_console.print(table)
    if narrow:
        say(False, f"Confidence and ECE of each {heading} need {WIDE} columns, or --out, or --json.")
    if len(shown) < len(lines.lines):
        say(False, f"and {len(lines.lines) - len(shown)} more that are better (--all prints them)")


def _print_comparison(found: Comparison, every: bool) -> None:
    from robustdistill.auditing.words import measure_name, percent, points

    first, second = found.names
    table = Table(
        title=Text(in_line(f"{first} against {second}: {found.rows:,} examples")),
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
    )
    table.add_column("class", overflow="fold")
    for name in ("n", first, second, "change", "95 % interval", "only first", "only second", "p (adjusted)"):
        table.add_column(Text(in_line(name)), justify="right")
    lines = found.sorted()
    # The ends are what matters: the classes that lost most, and those that gained most.
    shown = lines if every or len(lines) <= MOST_LINES else [*lines[: MOST_LINES // 2], *lines[-MOST_LINES // 2 :]]
    for line in shown:
        interval = f"{points(line.low)} to {points(line.high)}" if line.count else ""
        cells = (percent(line.first), percent(line.second), points(line.difference), interval)
        chance = f"{line.adjusted:.3f}" if line.adjusted >= 0.001 else "< 0.001"
        row = (line.name, f"{line.count:,}", *cells, str(line.only_first), str(line.only_second), chance)
        table.add_row(*(Text(in_line(text)) for text in row), style="bold" if line.clear else "")
    out_console.print(table)
    if len(shown) < len(lines):
        say(False, f"{len(lines) - len(shown)} classes between these are not shown (--all prints them)")
    for name, change in found.measures.items():
        say(
            False,
            f"{measure_name(name, found.k):>12}  {percent(change.first):>5} %  {percent(change.second):>5} %  "
            f"{points(change.difference):>6} (paired bootstrap 95 %: {points(change.low)} to {points(change.high)})",
        )


def _print_teacher(teacher: TeacherAudit) -> None:
    from robustdistill.auditing.words import percent

    table = Table(title="as a teacher, by temperature", title_justify="left", box=SIMPLE, pad_edge=False)
    for name in ("temperature", "approximation error", "of class", "balanced log-loss", "marginal / prior"):
        table.add_column(name, justify="left" if name == "of class" else "right")
    for line in teacher.temperatures:
        chosen = line is (teacher.best if teacher.tempering_helps else teacher.untempered)
        cells = (f"{line.temperature:g}", f"{line.error:.3f} ± {line.standard_error:.3f}", line.worst)
        low, high = line.ratios
        row = (*cells, f"{line.log_loss:.3f}", f"{low:.2f} to {high:.2f}")
        table.add_row(*(Text(in_line(text)) for text in row), style="bold" if chosen else "")
    out_console.print(table)
    table = Table(title="as a teacher, by class (temperature 1)", title_justify="left", box=SIMPLE, pad_edge=False)
    for name in ("class", "at least", "at most", "prior %", "marginal %", "class-wise ECE %"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for item in teacher.classes[: MOST_LINES // 2]:
        bounds = (f"{item.lower:.3f} ± {item.standard_error:.3f}", f"{item.upper:.3f}")
        shares = (percent(item.prior, 2), percent(item.marginal, 2), percent(item.calibration_error, 2))
        table.add_row(*(Text(in_line(text)) for text in (item.name, *bounds, *shares)))
    out_console.print(table)
    if len(teacher.classes) > MOST_LINES // 2:
        say(False, f"and {len(teacher.classes) - MOST_LINES // 2} more with smaller errors")
    for sentence in teacher.sentences():
        say(False, in_line(sentence))

"""`robustdistill demo`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from robustdistill.cli.options import AsJson, DataName, DataOptions, Quiet, RecipeOptions, grouped, numbers
from robustdistill.cli.output import err_console, interruptible, out_console, print_json, quieten, say, warn

if TYPE_CHECKING:
    from robustdistill.data import Splits


@grouped
def demo(
    *,
    context: typer.Context,
    data: DataName = "digits-lt",
    loading: DataOptions,
    teacher: Annotated[str, typer.Option(help="Teacher model.")] = "convnet-16",
    student: Annotated[str, typer.Option(help="Student model.")] = "convnet-8",
    objectives: Annotated[
        str, typer.Option(help="Objectives of teachers and students, comma separated.")
    ] = "standard,balanced,robust",
    methods: Annotated[
        str, typer.Option(help="Other training methods to compare with, separated by semicolons.", show_default="none")
    ] = "",
    temperatures: Annotated[
        str, typer.Option(help="Temperatures of the teacher's labels; the best on validation is shown.")
    ] = "1,3",
    repeats: Annotated[
        int, typer.Option(min=1, help="Repetitions with other training seeds, each with teachers of its own.")
    ] = 3,
    optimisation: RecipeOptions,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side, of one thread each.", show_default="cores")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the page.")] = Path("runs/demo"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare plain, balanced and robust distillation: every teacher with every student, a table and a page.

    With its defaults it trains on long-tailed digits, needs no download and takes about a minute.
    """
    from robustdistill.experiments import execute
    from robustdistill.experiments.grid import Comparison, DataSource
    from robustdistill.experiments.journal import scan
    from robustdistill.report import findings, page, tables

    quieten(quiet or as_json)
    names = [name.strip() for name in objectives.split(",")]
    comparison = Comparison(
        data=DataSource(data, **loading.chosen()),
        teacher=teacher,
        student=student,
        recipe=optimisation.chosen(data),
        teacher_objectives=names,
        student_objectives=names,
        methods=[name.strip() for name in methods.split(";") if name.strip()],
        temperatures=numbers("temperatures", temperatures),
        repeats=repeats,
    )
    jobs = comparison.jobs()
    workers = min(workers or execute.default_workers(), len(jobs))
    splits = execute.load_data(comparison.data)
    execute.refuse_other_runs(jobs, out / "runs", splits)
    say(quiet or as_json, _opening(splits, comparison.teacher, comparison.student, len(jobs), workers))
    with interruptible(f"finished runs are kept in {out}/runs"), _run_progress(len(jobs), quiet or as_json) as advance:
        outcomes = execute.run_all(jobs, out / "runs", workers=workers, command=_command(context), on_done=advance)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        warn(Text.assemble(("failed", "red"), f" {outcome.job.name}: {outcome.error}"))
    if len(failed) == len(outcomes):
        raise typer.Exit(1)
    index = page.write(out / "runs", out)
    built = tables.build_all(scan(out / "runs"))
    if as_json:
        page_path = str(index.resolve())
        print_json({"page": page_path, "runs": len(jobs), "failed": len(failed), "cells": tables.cells(built)})
    else:
        for panel, table in built:
            out_console.print(tables.terminal(table))
            say(quiet, f"\n{findings.finding(panel).headline}\n")
        teachers = [outcome.job for outcome in outcomes if not (outcome.error or outcome.job.teacher)]
        last = next((job for job in reversed(teachers) if not job.baseline), None)
        say(quiet, _closing(index, None if last is None else out / "runs" / last.name, loading.places()))
    if failed:
        raise typer.Exit(1)


def _opening(splits: Splits, teacher: str, student: str, runs: int, workers: int) -> str:
    counts = splits.train.class_counts
    return (
        f"{splits.train.name}: {len(splits.train)} training pictures, {counts.max()} of the most frequent class and"
        f" {counts.min()} of the rarest; {len(splits.val)} for validation, {len(splits.test)} for test.\n"
        f"{runs} runs, {teacher} teachers and {student} students, {workers} at a time."
    )


def _closing(index: Path, teacher: Path | None, places: list[str]) -> Text:
    text = Text(f"The page: {index.resolve().as_uri()}")
    if teacher is not None:
        distill = ["distill", "--teacher", str(teacher), "--objective", "tradeoff:0.5", *places]
        text.append("\nTry next:")
        for words in (distill, ["evaluate", "runs/student", *places]):
            text.append(f"\n  {shlex.join([_program(), *words])}", "bold")
    return text


def _program() -> str:
    """How this command can be called again: by its name, or by its place where a virtual environment is not active."""
    called = Path(sys.argv[0])
    return "robustdistill" if shutil.which("robustdistill") or not called.is_file() else os.path.relpath(called)


@contextmanager
def _run_progress(total: int, silent: bool) -> Iterator[Any]:
    """A bar over runs on a terminal, about ten plain lines elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    done = 0
    if silent or not err_console.is_terminal:

        def line(outcome: Any) -> None:
            nonlocal done
            done += 1
            if not silent and (done % max(1, total // 10) == 0 or done == total):
                err_console.print(f"{done} of {total} runs done", highlight=False)

        yield line
        return
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("runs  {task.fields[last]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console, transient=True) as progress:
        task = progress.add_task("runs", total=total, last="")

        def advance(outcome: Any) -> None:
            progress.update(task, advance=1, last=outcome.job.name)

        yield advance


def _command(context: typer.Context) -> str:
    """The command line as somebody would type it, for the records; without places, which are of this machine only."""
    words, kept = iter(sys.argv[2:]), []
    for word in words:
        option, equals, value = word.partition("=")
        if option not in ("--root", "--lists", "--out"):
            kept.append(word)
            continue
        value = value if equals else next(words, "")
        if option == "--out" and not Path(value).expanduser().is_absolute():
            kept += [option, value]
    return shlex.join(["robustdistill", context.info_name or "", *kept])

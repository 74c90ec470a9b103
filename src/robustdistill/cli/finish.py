"""What commands that have run a grid print and write at the end: tables, findings, the page."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from robustdistill.cli.output import out_console, print_json, say, say_finding

if TYPE_CHECKING:
    from robustdistill.experiments.tasks import Outcome


def conclude(
    outcomes: Sequence[Outcome], out: Path, *, quiet: bool, as_json: bool, places: Sequence[str] | None = None
) -> None:
    """Writes the page of these runs to `out`, prints their tables, and ends with exit code 1 if a run failed.

    Args:
        outcomes: of runs in `out`/runs.
        out: folder for the page.
        quiet, as_json: as the commands' options.
        places: the options that say where the data are; commands to try next are then shown.
    """
    from robustdistill.experiments.journal import scan
    from robustdistill.report import findings, page, tables

    failed = sum(outcome.error is not None for outcome in outcomes)
    hashes = {outcome.hash for outcome in outcomes}
    records = [record for record in scan(out / "runs") if record.hash in hashes]
    index = page.write_records(records, out)
    built = tables.build_all(records)
    if as_json:
        page_path = str(index.resolve())
        print_json({"page": page_path, "runs": len(outcomes), "failed": failed, "cells": tables.cells(built)})
    else:
        for panel, table in built:
            out_console.print(tables.terminal(table))
            say_finding(quiet, findings.finding(panel))
        say(quiet, _closing(index, outcomes, out / "runs", places))
    if failed:
        raise typer.Exit(1)


def _closing(index: Path, outcomes: Sequence[Outcome], root: Path, places: Sequence[str] | None) -> Text:
    text = Text(f"The page: {index.resolve().as_uri()}")
    teachers = [out for out in outcomes if not (out.error or out.job.teacher or out.job.baseline)]
    if places is not None and teachers:
        robust = [outcome for outcome in teachers if outcome.job.objective == "robust"]
        teacher = root / (robust or teachers)[-1].hash
        distill = ["distill", "--teacher", str(teacher), "--objective", "tradeoff:0.5", *places]
        text.append("\nTry next:")
        for words in (distill, ["evaluate", "runs/student", *places]):
            text.append(f"\n  {shlex.join([_program(), *words])}", "bold")
    return text


def _program() -> str:
    """How this command can be called again: by its name, or by its place where a virtual environment is not active."""
    called = Path(sys.argv[0])
    return "robustdistill" if shutil.which("robustdistill") or not called.is_file() else os.path.relpath(called)

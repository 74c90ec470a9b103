"""`robustdistill report`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustdistill.cli.options import AsJson, Quiet
from robustdistill.cli.output import err_console, out_console, print_json, quieten, say, say_finding, warn
from robustdistill.errors import InputError
from robustdistill.shown import in_line

if TYPE_CHECKING:
    from robustdistill.report.page import Written

_MOST_WARNINGS = 5


def report(
    runs: Annotated[Path, typer.Argument(help="Folder with finished runs, at any depth.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page, its figures and tables.", show_default="RUNS/report")
    ] = None,
    worst: Annotated[
        str,
        typer.Option(
            help="The worst metric: worst_class, or worst_K, the mean of the K lowest recalls. Of runs over groups it"
            " is the worst group, or the K worst."
        ),
    ] = "worst_class",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a page of finished runs: tables, figures, what was chosen, and the paper's claims by these runs."""
    from robustdistill.report import findings, page, tables

    quieten(quiet or as_json)
    if not runs.is_dir():
        raise InputError(f"RUNS must be a folder with finished runs, and {str(runs)!r} is {_kind(runs)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = page.read(runs)
    for warning in caught[:_MOST_WARNINGS]:
        warn(str(warning.message))
    if len(caught) > _MOST_WARNINGS:
        warn(f"... and {len(caught) - _MOST_WARNINGS} more such files")
    if not (quiet or as_json):
        err_console.print(f"{len(records):,} finished runs; drawing ...", highlight=False)
    written = page.make(records, out or runs / "report", worst=worst)
    if as_json:
        print_json(_as_json(written, len(records), worst))
        return
    for panel, table in written.tables:
        out_console.print(tables.terminal(table))
        say_finding(quiet, findings.finding(panel))
    for panel, ledger in written.ledgers:
        of = f" ({in_line(panel.title)})" if len(written.tables) > 1 else ""
        for verdict in ledger.verdicts:
            say(quiet, f"{verdict.outcome + ':':<11} {verdict.claim.text}{of}")
    say(quiet, f"\nThe page: {written.page.resolve().as_uri()}")


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "not there"


def _as_json(written: Written, runs: int, worst: str) -> dict[str, Any]:
    from robustdistill.report import tables

    return {
        "page": str(written.page.resolve()),
        "files": [str(path.resolve()) for path in written.files],
        "runs": runs,
        "worst": worst,
        "rule": written.rule,
        "cells": tables.cells(written.tables),
        "claims": [
            {
                "panel": panel.title,
                "claim": verdict.claim.name,
                "text": verdict.claim.text,
                "verdict": verdict.outcome,
                "reason": verdict.reason,
                "threshold": verdict.claim.threshold,
                "interval": None if verdict.interval is None else vars(verdict.interval),
            }
            for panel, ledger in written.ledgers
            for verdict in ledger.verdicts
        ],
    }

"""The command: parses, calls, prints. What it does, the library does.

Nothing here imports torch before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from typing import Annotated

import typer
from rich.logging import RichHandler
from rich.text import Text

import robustdistill as rd
from robustdistill.cli import data, shift, theory
from robustdistill.cli.audit import audit
from robustdistill.cli.demo import demo
from robustdistill.cli.evaluate import evaluate, predict
from robustdistill.cli.export import export
from robustdistill.cli.grid import grid
from robustdistill.cli.output import err_console, on_main_process, warn
from robustdistill.cli.report import report
from robustdistill.cli.reproduce import reproduce
from robustdistill.cli.train import distill, train
from robustdistill.errors import DivergedError, FolderTakenError, InputError, StaleStoreError
from robustdistill.files import DISK_ERRORS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train classifiers, above all small distilled ones, whose **worst class** is good. Start with `demo`.",
)

app.command(epilog="Example: `robustdistill demo --repeats 1`")(demo)
app.command(epilog="Example: `robustdistill train --objective robust --out runs/teacher`")(train)
app.command(epilog="Example: `robustdistill distill --teacher runs/teacher --validation-labels one-hot`")(distill)
app.command(epilog="Example: `robustdistill predict runs/student --split val --out val.parquet`")(predict)
app.command(epilog="Example: `robustdistill evaluate runs/student --split test`")(evaluate)
app.command(epilog="Example: `robustdistill audit val.parquet --out audit`")(audit)
app.command(epilog="Example: `robustdistill grid --plan plan.yaml --dry-run`")(grid)
app.command(epilog="Example: `robustdistill reproduce table1 --data digits-lt --scale tiny`")(reproduce)
app.command(epilog="Example: `robustdistill report runs/demo --out report`")(report)
app.command(epilog="Example: `robustdistill export runs/student --onnx student.onnx --card README.md`")(export)
app.add_typer(shift.app, name="shift")
app.add_typer(data.app, name="data")
app.add_typer(theory.app, name="theory")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"robustdistill {rd.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: 0 done, 1 failed, 2 bad input or usage, 130 interrupted."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when torch is loaded, which is later. By default threads turn in circles while they wait for one another,
        # for so long that a machine which does something else too takes several times as long for a step.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err_console, show_path=False, show_time=False, show_level=False)],
    )
    logging.captureWarnings(True)  # Warnings name files too: through the same console, on which nothing is obeyed.
    logging.getLogger("robustdistill").setLevel(logging.INFO if on_main_process() else logging.CRITICAL)
    try:
        app()
    except (InputError, StaleStoreError) as error:
        _fail("error:", error)
        sys.exit(2)
    except (DivergedError, FolderTakenError) as error:
        _fail("failed:", error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _fail("failed:", f"{error}; what was finished is kept, and the same command goes on once there is a remedy")
        sys.exit(1)


def _fail(word: str, error: Exception | str) -> None:
    """Says what has failed; on one of several processes only if the main one does not.

    Most of what one refuses all do. The main process has then said it within these seconds, and the launcher has ended
    the others.
    """
    if not on_main_process():
        time.sleep(10.0)
    warn(Text.assemble((word, "bold red"), " ", _as_options(str(error))))


def _as_options(message: str) -> str:
    """An argument that the library tells to pass, "root=", as the option that it is here, "--root"."""
    return re.sub(
        r"(?<![\w\-.:/=])([a-z][a-z_]*)=(?=[\s,;:.)]|$)", lambda found: f"--{found[1].replace('_', '-')}", message
    )

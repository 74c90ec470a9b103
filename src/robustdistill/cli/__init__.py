"""The command: parses, calls, prints. What it does, the library does.

Nothing here imports torch before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler
from rich.text import Text

import robustdistill as rd
from robustdistill.cli import data
from robustdistill.cli.demo import demo
from robustdistill.cli.evaluate import evaluate, predict
from robustdistill.cli.output import err_console, warn
from robustdistill.cli.train import distill, train
from robustdistill.errors import DivergedError, InputError, StaleStoreError, WorkerDiedError

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
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"robustdistill {rd.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: 0 done, 1 failed, 2 bad input or usage, 130 interrupted."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err_console, show_path=False, show_time=False, show_level=False)],
    )
    logging.getLogger("robustdistill").setLevel(logging.INFO)
    try:
        app()
    except (InputError, StaleStoreError) as error:
        warn(Text.assemble(("error:", "bold red"), " ", _as_options(str(error))))
        sys.exit(2)
    except (DivergedError, WorkerDiedError) as error:
        warn(Text.assemble(("failed:", "bold red"), " ", _as_options(str(error))))
        sys.exit(1)


def _as_options(message: str) -> str:
    """An argument that the library tells to pass, "root=", as the option that it is here, "--root"."""
    return re.sub(
        r"(?<![\w\-.:/=])([a-z][a-z_]*)=(?=[\s,;:.)]|$)", lambda found: f"--{found[1].replace('_', '-')}", message
    )

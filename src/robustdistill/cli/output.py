"""What commands print: tables for people, one JSON object for machines, errors and interruptions on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from robustdistill.shown import in_line, shown

if TYPE_CHECKING:
    from robustdistill.metrics import Scores
    from robustdistill.report.findings import Finding


class _Shown:
    """A renderable whose text, in the end, holds nothing that the terminal would obey; rich's own codes stay."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


class _ShowAll(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(each) for each in renderables]


def console(*, stderr: bool = False) -> Console:
    """A console on which names and paths of others are shown, never obeyed: see `shown`."""
    made = Console(stderr=stderr)
    made.push_render_hook(_ShowAll())
    return made


out_console, err_console = console(), console(stderr=True)


def scores_json(scores: Scores) -> dict[str, Any]:
    classes = scores.class_names or tuple(str(index) for index in range(len(scores.counts)))
    rows = zip(classes, scores.per_class.tolist(), scores.counts.tolist(), scores.wilson().tolist(), strict=True)
    return {
        "worst_class": scores.worst_class,
        "balanced": scores.balanced,
        "standard": scores.standard,
        "intervals": scores.intervals(),
        "per_class": [
            {"class": name, "recall": recall, "count": count, "wilson": interval}
            for name, recall, count, interval in rows
        ],
    }


def print_scores(scores: Scores, title: str, *, groups: bool = False) -> None:
    """A table, lowest first, and the figures over it; `groups` says that its lines are groups and not classes."""
    found = scores_json(scores)
    table = Table(title=escaped(title), title_justify="left")
    table.add_column("group" if groups else "class")
    for heading in ("accuracy %" if groups else "recall %", "95 % interval", "examples"):
        table.add_column(heading, justify="right")
    for row in sorted(found["per_class"], key=lambda row: (row["recall"] == row["recall"], row["recall"])):
        low, high = row["wilson"]
        known = row["recall"] == row["recall"]
        table.add_row(
            escaped(row["class"]),
            f"{100 * row['recall']:.1f}" if known else "none seen",
            f"{100 * low:.1f} to {100 * high:.1f}" if known else "",
            str(row["count"]),
        )
    out_console.print(table)
    for name in ("worst_class", "balanced", "standard"):
        low, high = found["intervals"][name]
        words = name.replace("_", " ")
        words = {"worst class": "worst group", "balanced": "mean group"}.get(words, words) if groups else words
        out_console.print(
            f"{words:>12}  {100 * found[name]:5.1f} %  (bootstrap 95 % {100 * low:.1f} to {100 * high:.1f})",
            highlight=False,
        )


@contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Ends with exit code 130 on Ctrl-C and says what is kept: what the interruption itself knows, else `kept`."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if on_main_process():
            warn(f"\ninterrupted: {str(stopped) or kept}; run the same command again to go on")
        sys.exit(130)


def on_main_process() -> bool:
    """Whether this is the process that speaks: the only one, or the first of several that train together."""
    ranks = (os.environ.get(name) for name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def say(silent: bool, text: str | Text) -> None:
    """Prints a text as it is: brackets in it are no markup. What is to be bold comes as a `Text`."""
    if not silent:
        out_console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_finding(silent: bool, finding: Finding) -> None:
    """A report's headline, and below it the sentences that qualify it."""
    say(silent, "\n".join(["", *map(in_line, (finding.headline, *finding.details)), ""]))


def warn(text: str | Text) -> None:
    """The same on stderr, always."""
    err_console.print(text, markup=False, highlight=False, soft_wrap=True)


def quieten(silent: bool) -> None:
    """With --quiet or --json, what the library has to say is warnings only."""
    if silent:
        logging.getLogger("robustdistill").setLevel(logging.WARNING)


def escaped(value: object) -> str:
    """For a cell or a title of a table: on one line, and brackets in it are no markup."""
    return escape(in_line(str(value)))


def print_json(value: dict[str, Any]) -> None:
    from robustdistill.files import plain

    print(json.dumps(plain(value), allow_nan=False))

"""What a person sees while a model trains."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustdistill.shown import in_line

logger = logging.getLogger(__name__)


class EpochProgress:
    """A bar over epochs on a terminal; elsewhere about ten lines at level INFO.

    Args:
        epochs: in all.
        done: already, in an earlier process.
        label: what is being trained.
        show: False for silence.
    """

    def __init__(self, epochs: int, *, done: int, label: str, show: bool) -> None:
        self.epochs, self.label, self.show = epochs, label, show
        self._bar: Progress | None = None
        if show and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.completed}/{task.total} epochs"),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(in_line(label), total=epochs, completed=done, figures="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, record: dict[str, Any]) -> None:
        """Shows a finished epoch, a record of the run's history."""
        worst, balanced = 100 * record["worst_class"], 100 * record["balanced"]
        figures = f"loss {record['loss']:.3f}  val worst {worst:.1f} %  balanced {balanced:.1f} %"
        if self._bar is not None:
            self._bar.update(self._task, completed=record["epoch"], figures=figures)
        elif self.show and (record["epoch"] % max(1, self.epochs // 10) == 0 or record["epoch"] == self.epochs):
            logger.info("%s: epoch %d of %d, %s", self.label, record["epoch"], self.epochs, figures)

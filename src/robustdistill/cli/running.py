"""What commands that run grids share: what there is to do, how it is going, and what came of it."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from robustdistill.cli.output import err_console, interruptible, say, warn
from robustdistill.shown import in_line

if TYPE_CHECKING:
    from robustdistill.experiments.grid import Job
    from robustdistill.experiments.tasks import Outcome, Task

LINE_SECONDS = 30.0  # Between two lines of progress where there is no terminal.


@dataclass(frozen=True)
class RunningOptions:
    """Where and how the runs of a grid take place."""

    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Worker processes of this machine, or a Ray cluster (RAY_ADDRESS).")
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes side by side.", show_default="cores / threads; with --replicas the GPUs"),
    ] = None
    replicas: Annotated[
        int,
        typer.Option(
            min=1,
            help="Runs of one architecture that a worker trains as one stack of models, at most. Meant for a GPU that"
            " one small model leaves idle (benchmarks/gpu.py); on CPUs one process per core is faster.",
        ),
    ] = 1
    gpus_per_run: Annotated[
        float, typer.Option(min=0.0, help="With Ray: the share of a GPU that each run is given.")
    ] = 0.0
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what has failed before.")] = False
    upload: Annotated[
        str | None,
        typer.Option(help="Copy finished runs there too: s3://bucket/folder, ... (fsspec).", show_default="nowhere"),
    ] = None

    def workers_for(self, threads: int = 1) -> int:
        """As many as were asked for, else as suit this machine."""
        from robustdistill.experiments import execute

        return self.workers or execute.default_workers(threads, self.replicas)


@dataclass
class Status:
    """How far a grid is: how many runs are in which state, and the seconds that are left."""

    states: Counter[str] = field(default_factory=Counter)
    seconds_left: float | None = None

    def as_dict(self) -> dict[str, Any]:
        names = ("done", "failed", "interrupted", "running", "left")
        return {**{name: self.states[name] for name in names}, "seconds_left": self.seconds_left}


def status(tasks: Sequence[Task], workers: int) -> Status:
    """What a grid's folders say of its runs."""
    from robustdistill.experiments.execute import seconds_left
    from robustdistill.experiments.tasks import failure, finished
    from robustdistill.lease import Leases
    from robustdistill.training.spec import CHECKPOINT

    leases, found, done, rest = Leases(), Status(), [], []
    for task in tasks:
        outcome = finished(task)
        if outcome is not None:
            done.append(outcome)
            found.states["done"] += 1
            continue
        if failure(task.folder) is not None:
            found.states["failed"] += 1
            continue
        rest.append(task.job)
        if leases.holder(task.folder) is not None:
            found.states["running"] += 1
        else:
            found.states["interrupted" if (task.folder / CHECKPOINT).exists() else "left"] += 1
    found.seconds_left = seconds_left(rest, done, workers) if rest else 0.0
    return found


def run(jobs: Sequence[Job], root: Path, options: RunningOptions, *, command: str, silent: bool) -> list[Outcome]:
    """Runs a grid's jobs with progress; warns of each that failed.

    Raises:
        typer.Exit: with 1, where every run failed.
    """
    from robustdistill.experiments import execute, executors
    from robustdistill.experiments.upload import check, upload

    threads = max(job.threads for job in jobs)
    workers = min(options.workers_for(threads), len(jobs))
    if options.upload is not None:
        check(options.upload)
    at = executors.make(options.executor, workers, threads=threads, gpus_per_run=options.gpus_per_run)
    with interruptible(f"finished runs are kept in {root}"), _progress(jobs, workers, silent) as (start, advance):

        def done(outcome: Outcome) -> None:
            if options.upload is not None and outcome.error is None and outcome.ran:
                try:
                    upload(root / outcome.hash, options.upload)
                except Exception as error:  # Each storage has its own, and the run itself is safe here.
                    warn(f"{outcome.job.name} could not be copied to {options.upload}: {error}")
            advance(outcome)

        outcomes = execute.run_all(
            jobs,
            root,
            executor=at,
            replicas=options.replicas,
            command=command,
            retry_failed=options.retry_failed,
            on_start=start,
            on_done=done,
        )
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        warn(Text.assemble(("failed", "red"), f" {outcome.job.name}: {outcome.error}"))
    if failed and not options.retry_failed and any(not outcome.ran for outcome in failed):
        say(silent, "What has failed before is not tried again; --retry-failed does.")
    if len(failed) == len(outcomes):
        raise typer.Exit(1)
    return outcomes


@contextmanager
def _progress(
    jobs: Sequence[Job], workers: int, silent: bool
) -> Iterator[tuple[Callable[[Job], None], Callable[[Outcome], None]]]:
    """A live line on a terminal; elsewhere a plain one now and then. Done, running, failed, left, and the time left."""
    from rich.live import Live

    from robustdistill.experiments.execute import seconds_left

    outcomes: dict[Job, Outcome] = {}
    running: dict[Job, None] = {}
    began, shown = time.monotonic(), -LINE_SECONDS

    def text() -> str:
        failed = sum(outcome.error is not None for outcome in outcomes.values())
        rest = [job for job in jobs if job not in outcomes]
        parts = [f"{len(outcomes) - failed} of {len(jobs)} runs done", f"{len(running)} running"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{len(rest) - len(running)} left")
        left = seconds_left(rest, outcomes.values(), workers)
        parts.append(f"{duration(time.monotonic() - began)} so far")
        parts += [f"about {duration(left)} to go"] if left is not None and rest else []
        last = next(reversed(running), None)
        return ", ".join(parts) + (f"  ({last.name})" if last is not None else "")

    live = (
        None if silent or not err_console.is_terminal else Live(console=err_console, transient=True, auto_refresh=False)
    )

    def show(force: bool = False) -> None:
        nonlocal shown
        if live is not None:
            live.update(Text(in_line(text()), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif not silent and (force or time.monotonic() - shown >= LINE_SECONDS):
            shown = time.monotonic()
            err_console.print(text(), highlight=False, markup=False, soft_wrap=True)

    def start(job: Job) -> None:
        running[job] = None
        show()

    def advance(outcome: Outcome) -> None:
        running.pop(outcome.job, None)
        outcomes[outcome.job] = outcome
        show(force=len(outcomes) == len(jobs))

    if live is None:
        yield start, advance
    else:
        with live:
            yield start, advance


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def typed_command(name: str) -> str:
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
    return shlex.join(["robustdistill", name, *kept])

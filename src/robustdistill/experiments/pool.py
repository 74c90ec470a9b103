"""Worker processes for grids: each does one task after the other; one that dies takes nothing with it but its task."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

# Spawned, not forked: a forked child would inherit torch's thread pools in whatever state they are.
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that worked on a task ended."""

    exitcode: int | None
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return self.reason
        if self.exitcode is not None and self.exitcode < 0:
            how = f"was killed by signal {-self.exitcode} ({signal.Signals(-self.exitcode).name})"
            return f"the process of this run {how}" + (": is memory short?" if self.exitcode == -9 else "")
        return f"the process of this run ended with exit code {self.exitcode}"


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Any = None


class Pool:
    """A few processes that call one function of one argument.

    Args:
        function: of a module, so that a new process can import it.
        workers: at most so many processes; they start when they are needed.
        environments: one mapping per worker of environment variables that hold before anything is imported there.
    """

    def __init__(
        self, function: Callable[[Any], Any], workers: int, environments: list[dict[str, str]] | None = None
    ) -> None:
        self._function, self._environments = function, environments or [{}] * workers
        self._workers: list[_Worker | None] = [None] * workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Idle workers end by themselves; busy ones, after an error or an interruption, are stopped."""
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.pipe.close()
            if worker.task is not None:
                worker.process.terminate()
        for worker in workers:
            worker.process.join()

    @property
    def free(self) -> int:
        """How many tasks can be submitted now."""
        return sum(worker is None or worker.task is None for worker in self._workers)

    def submit(self, task: Any) -> None:
        """Gives a task to a free worker."""
        index = next(i for i, worker in enumerate(self._workers) if worker is None or worker.task is None)
        worker = self._workers[index] or self._start(index)
        try:
            worker.pipe.send(task)
        except OSError:  # It died while it had nothing to do.
            worker = self._start(index)
            worker.pipe.send(task)
        worker.task = task

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        """(task, result or `Died`) of what has ended, after at most `timeout` seconds; empty if nothing did."""
        busy = {
            worker.pipe: (i, worker) for i, worker in enumerate(self._workers) if worker and worker.task is not None
        }
        done = []
        for pipe in wait(list(busy), timeout):
            index, worker = busy[pipe]  # type: ignore[index]
            try:
                result = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                result, self._workers[index] = Died(worker.process.exitcode), None
            done.append((worker.task, result))
            worker.task = None
        return done

    def _start(self, index: int) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        arguments = (theirs, self._function, self._environments[index])
        # No daemon, since those may not start the processes that decode pictures; `_end_with` sees to its end.
        process = _SPAWN.Process(target=_work, args=arguments, daemon=False, name=f"worker {index}")
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers[index] = worker
        return worker


def _work(pipe: Connection, function: Callable[[Any], Any], environment: dict[str, str]) -> None:
    # The main process answers Ctrl-C and stops its workers; without this each would print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(function(task))


def _end_with(sentinel: int) -> None:
    """Ends this process when its parent is gone, however that ended: nobody would take the result."""
    wait([sentinel])
    os._exit(1)

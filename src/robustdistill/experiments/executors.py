"""Where the runs of a grid take place: in this process, in worker processes, or on a Ray cluster.

All three are given the same tasks by the same loop and write the same journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from robustdistill.environment import RUNS_HERE
from robustdistill.errors import InputError, unknown
from robustdistill.experiments.pool import Died, Pool

__all__ = ["NAMES", "Died", "Executor", "Local", "gpus", "make"]

NAMES = ("local", "ray")


class Executor:
    """Runs one task after the other in this process; the others follow its interface.

    Attributes:
        chains: whether a task may be submitted while those it comes after are still running; `submit` is then given
            these as `after`, and their results are passed on as further arguments.
    """

    chains = False

    def __init__(self) -> None:
        self._done: list[tuple[Any, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops what still runs."""

    @property
    def free(self) -> int:
        """How many tasks can be submitted now."""
        return 1 - len(self._done)

    def submit(self, function: Callable[..., Any], task: Any, *, after: Sequence[Any] = ()) -> None:
        """Begins with a task."""
        self._done.append((task, function(task)))

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        """(task, result) of those that ended, after at most `timeout` seconds; `Died` in place of a lost result."""
        done, self._done = self._done, []
        return done


class Local(Executor):
    """Worker processes on this machine.

    Args:
        workers: how many.
        threads: CPU threads of each run.
        gpus: devices to share out among the workers, such as ("0", "1"); none by default.
    """

    def __init__(self, workers: int, *, threads: int = 1, gpus: tuple[str, ...] = ()) -> None:
        # What is not told how many threads to take must not take a pool of them in every worker; nor must each worker
        # start as many processes to decode pictures as there are cores.
        common = {"OMP_NUM_THREADS": str(threads), RUNS_HERE: str(workers)}
        self._environments = [
            {**common, "CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else common for index in range(workers)
        ]
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        self._pool = Pool(_call, len(self._environments), self._environments)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)
            self._pool = None

    @property
    def free(self) -> int:
        return self._running.free

    def submit(self, function: Callable[..., Any], task: Any, *, after: Sequence[Any] = ()) -> None:
        self._running.submit((function, task))

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        return [(task, result) for (_, task), result in self._running.wait(timeout)]

    @property
    def _running(self) -> Pool:
        if self._pool is None:
            raise InputError("an executor must be entered with `with` before it is given tasks")
        return self._pool


def _call(work: tuple[Callable[[Any], Any], Any]) -> Any:
    function, task = work
    return function(task)


def make(name: str, workers: int, *, threads: int = 1, gpus_per_run: float = 0.0) -> Executor:
    """The executor called `name`.

    Args:
        name: "local", one worker being this process itself, or "ray".
        workers: runs side by side; a Ray cluster has as many as its resources allow.
        threads: CPU threads of each run.
        gpus_per_run: the share of a GPU that each run asks Ray for. Local workers share out the GPUs that there are.

    Raises:
        InputError: there is no such executor, or ray is not installed.
    """
    if name == "ray":
        from robustdistill.experiments.ray_executor import Ray

        return Ray(threads=threads, gpus_per_run=gpus_per_run)
    if name != "local":
        raise unknown("executor", name, NAMES)
    found = gpus()
    if workers == 1 and len(found) < 2:
        return Executor()
    return Local(workers, threads=threads, gpus=found)


def gpus() -> tuple[str, ...]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # Only here: the other executors need none.

    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")) if named else tuple(str(index) for index in range(torch.cuda.device_count()))

"""Grids on a Ray cluster: an existing one (RAY_ADDRESS) or one of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from robustdistill.environment import RUNS_HERE
from robustdistill.errors import InputError
from robustdistill.experiments.executors import Died, Executor

logger = logging.getLogger(__name__)

IN_FLIGHT = 4  # Tasks submitted for each that the cluster can run at a time, so that it never waits for the next.


class Ray(Executor):
    """Every run is a Ray task; a student takes its teacher's result by reference, and waits for it in the cluster.

    The cluster's machines must see the runs' folder and the data under the same paths.

    Args:
        threads: CPU threads of each run, which Ray counts as its CPUs.
        gpus_per_run: the share of a GPU that each run is given, such as 0.25.

    Raises:
        InputError: ray is not installed.
    """

    chains = True

    def __init__(self, *, threads: int = 1, gpus_per_run: float = 0.0) -> None:
        super().__init__()
        # Before the import, which reads it: nothing is sent anywhere.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise InputError("executor 'ray' needs Ray: pip install 'robustdistill[ray]'") from error
        self._ray: Any = ray
        self._threads, self._gpus = threads, gpus_per_run
        self._tasks: dict[Any, Any] = {}
        self._started = False

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            self._ray.init(
                log_to_driver=False,
                logging_level=logging.WARNING,
                include_dashboard=False,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self._threads)}},
            )
            self._started = True
        resources = self._ray.cluster_resources()
        slots = self._slots(resources)
        if slots < 1:
            needs = f"{self._threads} CPUs and {self._gpus:g} GPUs" if self._gpus else f"{self._threads} CPUs"
            raise InputError(f"each run needs {needs}, and the Ray cluster has {_plain(resources)} in all")
        self._capacity = IN_FLIGHT * int(slots)
        self._here = max(1, *(int(self._slots(node["Resources"])) for node in self._ray.nodes() if node["Alive"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._tasks.clear()
        if self._started:
            self._ray.shutdown()

    def _slots(self, resources: dict[str, float]) -> float:
        """How many runs at a time these resources allow."""
        slots = resources.get("CPU", 0) / self._threads
        return min(slots, resources.get("GPU", 0) / self._gpus) if self._gpus else slots

    @property
    def free(self) -> int:
        return self._capacity - len(self._tasks)

    def submit(self, function: Callable[..., Any], task: Any, *, after: Sequence[Any] = ()) -> None:
        # No retries by Ray: a run whose process died is recorded as failed, here as with local workers.
        remote = self._ray.remote(_call).options(num_cpus=self._threads, num_gpus=self._gpus, max_retries=0)
        earlier = [reference for reference, known in self._tasks.items() if any(known is one for one in after)]
        self._tasks[remote.remote(function, self._here, task, *earlier)] = task

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
        return [(self._tasks.pop(reference), self._result(reference)) for reference in done]

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Died(None, f"Ray lost this run: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _call(function: Callable[..., Any], runs_here: int, *arguments: Any) -> Any:
    os.environ[RUNS_HERE] = str(runs_here)
    return function(*arguments)


def _plain(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from robustdistill.experiments.pool import Died, Pool


def work(task: Any) -> Any:
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "variable":
        return os.environ.get("WHICH")
    if task == "wait":
        time.sleep(60)
    return "done", task, os.getpid()


def collect(pool: Pool, count: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    while len(found) < count:
        found |= dict(pool.wait(30))
    return found


def test_tasks_are_shared_out_and_processes_used_again() -> None:
    with Pool(work, 2) as pool:
        assert pool.free == 2
        pool.submit("a")
        pool.submit("b")
        assert pool.free == 0
        first = collect(pool, 2)
        assert pool.free == 2
        pool.submit("c")
        second = collect(pool, 1)
    pids = {first["a"][2], first["b"][2]}
    assert len(pids) == 2
    assert second["c"][2] in pids


def test_one_that_dies_takes_its_task_only() -> None:
    with Pool(work, 1) as pool:
        pool.submit("kill")
        assert collect(pool, 1) == {"kill": Died(-9)}
        assert pool.free == 1
        pool.submit("exit")
        ended = collect(pool, 1)["exit"]
        assert str(ended) == "the process of this run ended with exit code 3"
        pool.submit("a")
        assert collect(pool, 1)["a"][:2] == ("done", "a")


def test_one_that_dies_idle_is_replaced() -> None:
    with Pool(work, 1) as pool:
        pool.submit("a")
        pid = collect(pool, 1)["a"][2]
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        pool.submit("b")
        assert collect(pool, 1)["b"][2] != pid


def test_leaving_stops_what_is_busy() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Pool(work, 1) as pool:  # noqa: PT012
        pool.submit("wait")
        assert pool.wait(0.1) == []
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30


def test_each_worker_has_its_environment() -> None:
    with Pool(work, 2, [{"WHICH": "first"}, {"WHICH": "second"}]) as pool:
        pool.submit("variable")
        pool.submit("a")
        assert collect(pool, 2)["variable"] == "first"


def test_what_died_says_how() -> None:
    assert str(Died(-9)) == "the process of this run was killed by signal 9 (SIGKILL): is memory short?"
    assert str(Died(-15)) == "the process of this run was killed by signal 15 (SIGTERM)"
    assert str(Died(None, "a node went")) == "a node went"

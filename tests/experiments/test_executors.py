from __future__ import annotations

import os

import pytest

from robustdistill.environment import RUNS_HERE
from robustdistill.experiments.executors import Executor, Local


@pytest.mark.parametrize(("executor", "runs"), [(Local(2), "2"), (Local(3, threads=2), "3"), (Executor(), None)])
def test_workers_are_told_how_many_they_are(
    executor: Executor, runs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they do not each start as many processes to decode pictures as there are cores."""
    monkeypatch.delenv(RUNS_HERE, raising=False)
    with executor as at:
        at.submit(os.getenv, RUNS_HERE)
        assert at.wait(60) == [(RUNS_HERE, runs)]

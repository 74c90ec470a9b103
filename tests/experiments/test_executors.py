from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.official import imagenet_files, write_tree
from robustdistill.environment import RUNS_HERE
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.executors import Executor, Local
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.training.recipe import Recipe


@pytest.mark.parametrize(("executor", "runs"), [(Local(2), "2"), (Local(3, threads=2), "3"), (Executor(), None)])
def test_workers_are_told_how_many_they_are(
    executor: Executor, runs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they do not each start as many processes to decode pictures as there are cores."""
    monkeypatch.delenv(RUNS_HERE, raising=False)
    with executor as at:
        at.submit(os.getenv, RUNS_HERE)
        assert at.wait(60) == [(RUNS_HERE, runs)]


def test_workers_decode_pictures_in_processes_of_their_own(tmp_path: Path) -> None:
    write_tree(tmp_path / "imagenet", imagenet_files(train_each=7))
    grid = Grid(
        data=DataSource("imagenet", tmp_path, verify=False, image_size=24),
        teachers=["resnet8"],
        students=["resnet8"],
        recipe=Recipe(epochs=1, batch_size=8, every=2),
        teacher_objectives=["robust"],
        student_objectives=["standard"],
        repeats=1,
    )
    outcomes = run_all(grid.jobs(), tmp_path / "runs", executor=Local(1))
    assert [outcome.error for outcome in outcomes] == [None, None]

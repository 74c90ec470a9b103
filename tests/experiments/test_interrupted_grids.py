"""Grids that die at a write, or whose disk is full: a restart does what is left, once, with the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dying import killed
from experiments.lasting import done, lasting
from robustdistill import faults, report
from robustdistill.experiments import journal
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.experiments.tasks import load_data, tasks
from robustdistill.faults import MOMENTS
from robustdistill.predictions import Predictions
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run

GRID = Grid(
    data=DataSource("digits-lt"),
    teachers=("convnet-2",),
    students=("convnet-2",),
    recipe=Recipe.named("digits-lt").with_(epochs=2, every=4),
    teacher_objectives=("robust",),
    student_objectives=("robust",),
    validation_labels=("one-hot",),
    repeats=1,
)
JOBS = GRID.jobs()[:2]


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_data(GRID.data)
    root = tmp_path_factory.mktemp("alone")
    outcomes = run_all(JOBS, root)
    assert [outcome.error for outcome in outcomes] == [None, None]
    return root


@pytest.mark.parametrize(
    ("name", "number", "moment"),
    [
        *(("val.npz", 1, moment) for moment in MOMENTS),
        ("test.npz", 1, "middle"),
        *(("record.json", 2, moment) for moment in MOMENTS),  # of the teacher, with its test scores
        ("record.json", 3, "after"),  # of the student
        ("model.safetensors", 2, "middle"),
        ("lease.json", 2, "middle"),
    ],
)
def test_killed_at_a_write(name: str, number: int, moment: str, alone: Path, tmp_path: Path) -> None:
    killed(lambda: run_all(JOBS, tmp_path), f"{moment}:{number}:{name}")
    before = done(tmp_path)
    tables = {path: Predictions.read(path).scores.tobytes() for path in tmp_path.glob("*/predictions/[!.]*.npz")}
    outcomes = run_all(JOBS, tmp_path)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [outcome.ran for outcome in outcomes].count(False) == len(before)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "a finished run was done again"
    assert lasting(tmp_path) == lasting(alone)
    assert all(Predictions.read(path).scores.tobytes() == content for path, content in tables.items())
    assert files(tmp_path) == files(alone)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_a_failure_is_recorded(moment: str, tmp_path: Path) -> None:
    broken = replace(JOBS[0], model="experiments.test_execute:breaks")
    killed(lambda: run_all([broken], tmp_path), f"{moment}:1:failed.json")
    (outcome,) = run_all([broken], tmp_path)
    assert outcome.error == "RuntimeError: out of luck"
    assert outcome.ran == (moment != "after")
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "failed.json").read_text())["error"] == "RuntimeError: out of luck"


@pytest.mark.parametrize(
    "fault", ["ENOSPC:middle:1+:record.json", "EROFS:before:1+:model.safetensors", "EIO:whole:1:val.npz"]
)
def test_a_full_disk_is_not_the_run_s_own_failure(fault: str, alone: Path, tmp_path: Path) -> None:
    """It is tried again as soon as the same command runs, without --retry-failed."""
    with faults.injected(fault):
        first, second = run_all(JOBS, tmp_path)
    assert first.error is not None
    assert first.error.startswith("OSError: [Errno ")
    assert first.error.endswith(fault.rpartition(":")[2] + "'")
    assert second.error is not None
    assert second.error.startswith("its teacher ")
    assert not list(tmp_path.rglob("failed.json"))
    assert [outcome.error for outcome in run_all(JOBS, tmp_path)] == [None, None]
    assert lasting(tmp_path) == lasting(alone)
    assert files(tmp_path) == files(alone)


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "na', b"\0" * 4096, b"[]"])
def test_a_torn_record_is_recognised_and_made_again(
    content: bytes, alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_all(JOBS, tmp_path)
    path = tasks(JOBS, tmp_path)[1].folder / "record.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"record\.json (could not be read|is not a run record)"):
        assert len(journal.scan(tmp_path)) == 1
    outcomes = run_all(JOBS, tmp_path)
    assert [(outcome.error, outcome.ran) for outcome in outcomes] == [(None, False), (None, True)]
    assert f"{path} is torn" in caplog.text
    assert lasting(tmp_path) == lasting(alone)


def test_a_teacher_that_has_gone_is_trained_again(alone: Path, tmp_path: Path) -> None:
    import shutil

    run_all(JOBS[:1], tmp_path)
    shutil.rmtree(tasks(JOBS, tmp_path)[0].folder)
    assert [outcome.ran for outcome in run_all(JOBS, tmp_path)] == [True, True]
    assert lasting(tmp_path) == lasting(alone)


def test_weights_that_have_gone_fail_the_students_by_name(tmp_path: Path) -> None:
    run_all(JOBS[:1], tmp_path)
    (tasks(JOBS, tmp_path)[0].folder / "model.safetensors").unlink()
    _, student = run_all(JOBS, tmp_path)
    assert student.error is not None
    assert "model.safetensors" in student.error
    assert student.error.startswith("InputError: ")


@pytest.mark.parametrize("name", ["index.html", "*.svg"])
def test_killed_while_the_report_is_written(name: str, alone: Path, tmp_path: Path) -> None:
    """The page is whole or absent, and the next one is that of a report that was not interrupted."""
    killed(lambda: report.write(alone, tmp_path / "page"), f"middle:1:{name}")
    shown = [path for path in (tmp_path / "page").rglob("*") if path.is_file() and not path.name.startswith(".")]
    report.write(alone, tmp_path / "page")
    report.write(alone, tmp_path / "whole")
    for path in shown:
        other = tmp_path / "whole" / path.relative_to(tmp_path / "page")
        if path.suffix != ".html":  # which holds the date
            assert path.read_bytes() == other.read_bytes()


def test_the_weights_of_a_killed_grid_load(alone: Path) -> None:
    for task in tasks(JOBS, alone):
        assert Run.load(task.folder).test is not None

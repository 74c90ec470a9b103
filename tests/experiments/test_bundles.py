"""Grids whose workers train several runs at a time as one stack of models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from experiments.test_execute import GRID, Chained
from robustdistill.experiments import execute
from robustdistill.experiments.execute import default_workers, run_all
from robustdistill.experiments.executors import Died, Executor, Local
from robustdistill.experiments.tasks import Bundle, Outcome, failure, tasks
from robustdistill.experiments.worker import run_bundle
from robustdistill.lease import LEASE
from robustdistill.training.run import WEIGHTS

JOBS = replace(
    GRID, repeats=2
).jobs()  # each repeat 2 teachers of one architecture, with 3 students of another one each


class Noting(Executor):
    """Remembers the bundles that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Bundle] = []

    def submit(self, function: Any, task: Any, *, after: Sequence[Any] = ()) -> None:
        self.given.append(task)
        super().submit(function, task, after=after)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alone")
    run_all(JOBS, root)
    return root


def assert_as_alone(outcomes: Sequence[Outcome], root: Path, alone: Path) -> None:
    """Every run is there, with the scores that it has alone and its weights to a tolerance."""
    assert {outcome.hash for outcome in outcomes} == {path.name for path in alone.iterdir()}
    for outcome in outcomes:
        assert outcome.error is None
        found, wanted = (json.loads((at / outcome.hash / "record.json").read_text()) for at in (root, alone))
        assert found.keys() == wanted.keys()
        assert found["spec"] == wanted["spec"]
        assert found["metrics"] == wanted["metrics"]
        ours, theirs = (load_file(at / outcome.hash / WEIGHTS) for at in (root, alone))
        for name, value in theirs.items():
            assert ours[name].allclose(value, rtol=1e-4, atol=1e-4), name
    assert list(root.rglob(LEASE)) == []


def replicas(root: Path, outcome: Outcome) -> int:
    return int(json.loads((root / outcome.hash / "record.json").read_text())["environment"]["replicas"])


def test_what_is_ready_and_alike_is_trained_together(tmp_path: Path, alone: Path) -> None:
    at, begun = Noting(), []
    outcomes = run_all(JOBS, tmp_path, executor=at, replicas=5, on_start=begun.append)
    assert [len(bundle) for bundle in at.given] == [4, 5, 5, 2]
    assert begun == [task.job for bundle in at.given for task in bundle]
    assert {task.job.teacher is None for task in at.given[0]} == {True}
    assert sorted(replicas(tmp_path, outcome) for outcome in outcomes) == [2] * 2 + [4] * 4 + [5] * 10
    assert_as_alone(outcomes, tmp_path, alone)
    whole = json.loads((tmp_path / outcomes[0].hash / "record.json").read_text())["seconds"]
    assert outcomes[0].seconds == pytest.approx(whole / 4, abs=1e-3)
    assert run_all(JOBS, tmp_path, replicas=5) == [
        replace(outcome, seconds=pytest.approx(outcome.seconds, abs=1e-3), ran=False)
        for outcome in sorted(outcomes, key=lambda outcome: JOBS.index(outcome.job))
    ]


def test_a_worker_process_and_chains_take_bundles_too(tmp_path: Path, alone: Path) -> None:
    jobs = JOBS[: len(JOBS) // 2]
    half = tmp_path / "half"
    half.mkdir()
    for task in tasks(jobs, alone):
        (half / task.hash).symlink_to(task.folder)
    assert_as_alone(run_all(jobs, tmp_path / "two", executor=Local(1), replicas=3), tmp_path / "two", half)
    assert_as_alone(run_all(jobs, tmp_path / "ray", executor=Chained(), replicas=6), tmp_path / "ray", half)


class Fragile(Noting):
    """What is trained together ends as it is told."""

    def __init__(self, ending: Any) -> None:
        super().__init__()
        self.ending = ending

    def submit(self, function: Any, task: Any, *, after: Sequence[Any] = ()) -> None:
        super().submit(self.ending if len(task) > 1 else function, task, after=after)


def killed(bundle: Bundle) -> Died:
    return Died(-9)


def too_much(bundle: Bundle) -> list[Outcome]:
    """Memory was short for two of them."""
    short = [Outcome(task.job, task.hash, error="OutOfMemoryError: of 80 GB none is left") for task in bundle[:2]]
    return [*short, *run_bundle(bundle[2:])]


@pytest.mark.parametrize(("ending", "left"), [(killed, 4), (too_much, 2)])
def test_what_may_fit_alone_is_tried_alone(
    ending: Any, left: int, tmp_path: Path, alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teachers = [job for job in JOBS if job.teacher is None]
    at = Fragile(ending)
    outcomes = run_all(teachers, tmp_path, executor=at, replicas=4)
    assert [len(bundle) for bundle in at.given] == [4] + [1] * left
    assert caplog.text.count("is tried again alone") == left
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert list(tmp_path.rglob("failed.json")) == []


def test_a_run_that_fails_in_a_bundle_fails_alone(tmp_path: Path) -> None:
    jobs = [job for job in JOBS if job.teacher is None]
    broken = tasks(jobs, tmp_path)[0]
    broken.folder.mkdir()
    (broken.folder / "checkpoint.safetensors").write_text("no checkpoint")
    outcomes = {outcome.hash: outcome for outcome in run_all(jobs, tmp_path, replicas=4)}
    assert "is not a checkpoint, or is damaged" in str(outcomes.pop(broken.hash).error)
    assert [replicas(tmp_path, outcome) for outcome in outcomes.values()] == [3, 3, 3]
    assert failure(broken.folder) is not None


def test_one_worker_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "gpus", lambda: ())
    assert default_workers(replicas=4) == 1
    monkeypatch.setattr(execute, "gpus", lambda: ("0", "1"))
    assert default_workers(replicas=4) == 2

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import robustdistill
from robustdistill.errors import InputError, WorkerDiedError
from robustdistill.experiments import journal
from robustdistill.experiments.execute import (
    Outcome,
    _run_pooled,
    default_workers,
    load_data,
    refuse_other_runs,
    run_all,
    run_job,
)
from robustdistill.experiments.grid import Comparison, DataSource, Job
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run
from robustdistill.training.step import TrainStep

RECIPE = Recipe.named("digits-lt").with_(epochs=2, every=4)
PLAN = Comparison(
    data=DataSource("digits-lt"),
    teacher="convnet-4",
    student="convnet-2",
    recipe=RECIPE,
    teacher_objectives=("standard", "robust"),
    student_objectives=("balanced", "robust"),
    repeats=1,
)


def record(folder: Path) -> dict[str, Any]:
    """A record without what no two runs share."""
    found = json.loads((folder / "record.json").read_text())
    del found["seconds"]
    del found["environment"]["date"]
    for epoch in found["history"]:
        del epoch["seconds"]
    return found


def test_workers_give_the_bits_of_one_process(tmp_path: Path) -> None:
    jobs = PLAN.jobs()
    assert len(jobs) == 8
    seen: list[Outcome] = []
    alone = run_all(jobs, tmp_path / "one", workers=1, command="a command", on_done=seen.append)
    pooled = run_all(jobs, tmp_path / "two", workers=2, command="a command", on_done=seen.append)
    assert [outcome.job for outcome in pooled] == [outcome.job for outcome in alone] == jobs
    assert pooled == alone
    assert all(outcome.error is None for outcome in alone)
    assert seen[: len(jobs)] == alone
    assert {outcome.job.name for outcome in seen[len(jobs) :]} == {job.name for job in jobs}
    for job in jobs:
        one, two = tmp_path / "one" / job.name, tmp_path / "two" / job.name
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        assert record(one) == record(two)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {job.name for job in jobs}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    root = tmp_path_factory.mktemp("done")
    return root, run_all(PLAN.jobs(), root, command="make demo")


def test_what_is_recorded(done: tuple[Path, list[Outcome]]) -> None:
    root, outcomes = done
    records = {found.name: found for found in journal.scan(root)}
    assert records.keys() == {job.name for job in PLAN.jobs()}
    for outcome in outcomes:
        found = json.loads((root / outcome.job.name / "record.json").read_text())
        assert (found["repeat"], found["command"]) == (0, "make demo")
        assert sum(found["metrics"]["test"]["counts"]) == 398
        assert found["metrics"]["val"]["worst_class"] == outcome.worst_class
        assert found["metrics"]["val"]["balanced"] == outcome.balanced
        if outcome.job.teacher is not None:
            teacher = json.loads((root / outcome.job.teacher.name / "record.json").read_text())
            assert found["spec"]["distillation"]["teacher"] == teacher["hash"]


def test_nothing_is_done_twice(done: tuple[Path, list[Outcome]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, outcomes = done
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}

    def step(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainStep, "__call__", step)
    assert run_all(PLAN.jobs(), root, command="another command") == outcomes
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_a_run_that_lost_its_test_scores_gets_them_back(done: tuple[Path, list[Outcome]]) -> None:
    """Interrupted between training and evaluation."""
    root, _ = done
    job = PLAN.jobs()[0]
    path = root / job.name / "record.json"
    found = json.loads(path.read_text())
    scores = found["metrics"].pop("test")
    path.write_text(json.dumps(found))
    run_job(job, root)
    again = json.loads(path.read_text())
    assert again["metrics"]["test"] == scores
    assert (again["repeat"], again["command"]) == (0, "make demo")


def failing(root: Path) -> tuple[list[Job], Job]:
    """A plan, and its teacher whose folder holds the run of somebody else."""
    jobs = PLAN.jobs()
    broken = jobs[0]
    assert run_job(replace(broken, seed=77), root).error is None
    return jobs, broken


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_its_students_only(workers: int, tmp_path: Path) -> None:
    jobs, broken = failing(tmp_path)
    outcomes = {outcome.job: outcome for outcome in run_all(jobs, tmp_path, workers=workers)}
    assert list(outcomes) == jobs
    error = outcomes[broken].error
    assert error is not None
    assert "already holds another run" in error
    for job, outcome in outcomes.items():
        if job.teacher == broken:
            assert outcome == Outcome(job, error=f"its teacher {broken.name} failed")
            assert not (tmp_path / job.name).exists()
        elif job != broken:
            assert outcome.error is None
            assert Run.load(tmp_path / job.name).test is not None


def test_a_diverged_run_is_an_outcome(tmp_path: Path) -> None:
    wild = replace(PLAN.jobs()[0], recipe=RECIPE.with_(learning_rate=1e30))
    outcome = run_job(wild, tmp_path)
    assert outcome.error is not None
    assert "learning_rate" in outcome.error
    assert not (tmp_path / wild.name / "record.json").exists()


def test_unknown_data_is_an_outcome(tmp_path: Path) -> None:
    outcome = run_job(replace(PLAN.jobs()[0], data=DataSource("digits-lts")), tmp_path)
    assert outcome.error is not None
    assert "digits-lt" in outcome.error


def test_a_model_that_breaks_is_an_outcome(tmp_path: Path) -> None:
    """A user's own code can raise anything; the other runs have nothing to do with it."""
    outcome = run_job(replace(PLAN.jobs()[0], model="experiments.test_execute:breaks"), tmp_path)
    assert outcome.error is not None
    assert "out of luck" in outcome.error


def breaks() -> None:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_student_without_its_teacher_is_refused(workers: int, tmp_path: Path) -> None:
    student = PLAN.jobs()[1]
    assert student.teacher is not None
    code = (
        "import pickle, sys; from pathlib import Path; from robustdistill.experiments.execute import run_all\n"
        "from robustdistill.errors import InputError\n"
        "job, root, workers = pickle.load(sys.stdin.buffer)\n"
        "try: run_all([job], Path(root), workers=workers)\n"
        "except InputError as error: print(error)\n"
    )
    result = subprocess.run(  # In a process of its own: it must not wait for ever for a teacher that nobody trains.
        [sys.executable, "-c", code],
        input=pickle.dumps((student, str(tmp_path), workers)),
        capture_output=True,
        timeout=12,
        env=environment(),
    )
    assert student.teacher.name in result.stdout.decode(), result.stderr.decode()[-500:]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(robustdistill.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.grid import DataSource, Job
from robustdistill.training.recipe import Recipe

recipe = Recipe.named("digits-lt").with_(epochs=1)
quick = Job(DataSource("digits-lt"), "convnet-2", "standard", recipe, seed=0, repeat=0)
endless = replace(quick, recipe=recipe.with_(epochs=10**7), seed=1, repeat=1)
if __name__ == "__main__":
    try:
        run_all([quick, endless], Path(sys.argv[1]), workers=int(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_keeps_what_was_finished(workers: int, tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the whole process group."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "runs"), str(workers)]
    with subprocess.Popen(
        command, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            finished = tmp_path / "runs" / "teacher_convnet-2_standard_r0" / "record.json"
            deadline = time.monotonic() + 40
            while not finished.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert finished.exists(), process.stderr and process.stderr.read()
            time.sleep(0.5)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert errors == ""
    assert [path.parent.name for path in (tmp_path / "runs").rglob("record.json")] == [finished.parent.name]
    assert Run.load(finished.parent).test is not None
    assert workers_of(process.pid) == []


def workers_of(group: int) -> list[str]:
    """The worker processes of a process group that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # It ended meanwhile.
            continue
        if int(fields[2]) == group and "spawn_main" in command:
            found.append(command)
    return found


def test_one_worker_for_each_core() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


class KilledPool:
    """As a pool whose worker was killed while it ran a job."""

    def submit(self, *_: object) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_exception(BrokenProcessPool("killed"))
        return future


def test_a_killed_worker_has_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match="was killed; is memory short"):
        _run_pooled(KilledPool(), PLAN.jobs(), tmp_path, None, lambda outcome: None)  # type: ignore[arg-type]


def test_another_comparison_in_the_same_folder_is_noticed_before_training(done: tuple[Path, list[Outcome]]) -> None:
    root, _ = done
    splits = load_data(PLAN.data)
    refuse_other_runs(PLAN.jobs(), root, splits)
    for changes, said in (
        ({"recipe": RECIPE.with_(epochs=5)}, "recipe.epochs 2 -> 5"),
        ({"threads": 2}, "threads 1 -> 2"),
        ({"data": DataSource("digits-lt", pad=0)}, "data.pad None -> 0"),
    ):
        other = replace(PLAN, **changes)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=said):
            refuse_other_runs(other.jobs(), root, load_data(other.data))

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import robustdistill
from experiments.lasting import record
from robustdistill.errors import InputError
from robustdistill.experiments import execute, journal
from robustdistill.experiments.execute import default_workers, run_all, seconds_left
from robustdistill.experiments.executors import Died, Executor, Local
from robustdistill.experiments.grid import DataSource, Grid, Job, specs
from robustdistill.experiments.tasks import Outcome, failure, load_data, record_failure, tasks
from robustdistill.experiments.worker import run_bundle, run_task
from robustdistill.lease import LEASE, Leases
from robustdistill.predictions import Predictions
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run
from robustdistill.training.step import TrainStep

RECIPE = Recipe.named("digits-lt").with_(epochs=2, every=4)
GRID = Grid(
    data=DataSource("digits-lt"),
    teachers=("convnet-4",),
    students=("convnet-2",),
    recipe=RECIPE,
    teacher_objectives=("standard", "robust"),
    student_objectives=("balanced", "robust"),
    repeats=1,
)


def timeless(outcomes: list[Outcome]) -> dict[str, Outcome]:
    return {outcome.hash: replace(outcome, seconds=None) for outcome in outcomes}


def test_workers_give_the_bits_of_one_process(tmp_path: Path) -> None:
    jobs = GRID.jobs()
    assert len(jobs) == 8
    begun: list[Job] = []
    seen: list[Outcome] = []
    alone = run_all(jobs, tmp_path / "one", command="a command", on_start=begun.append, on_done=seen.append)
    assert begun == [outcome.job for outcome in alone] == jobs
    assert seen == alone
    assert all(outcome.error is None and outcome.ran for outcome in alone)
    pooled = run_all(jobs, tmp_path / "two", executor=Local(2), command="a command")
    assert timeless(pooled) == timeless(alone)
    for outcome in alone:
        one, two = tmp_path / "one" / outcome.hash, tmp_path / "two" / outcome.hash
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        assert record(one) == record(two)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {outcome.hash for outcome in alone}
    assert list((tmp_path / "two").rglob(LEASE)) == []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    root = tmp_path_factory.mktemp("done")
    return root, run_all(GRID.jobs(), root, command="make demo")


def test_what_is_recorded(done: tuple[Path, list[Outcome]]) -> None:
    root, outcomes = done
    records = {found.hash: found for found in journal.scan(root)}
    planned = specs(GRID.jobs(), load_data(GRID.data))
    assert records.keys() == {spec.hash for spec in planned.values()} == {outcome.hash for outcome in outcomes}
    for outcome in outcomes:
        found = records[outcome.hash]
        assert found.path == root / outcome.hash
        assert (found.name, found.repeat, found.command) == (outcome.job.name, 0, "make demo")
        assert found.metrics.test is not None
        assert found.metrics.val is not None
        assert sum(found.metrics.test.counts) == 398
        assert found.metrics.val.worst_class == outcome.worst_class
        assert found.metrics.val.balanced == outcome.balanced
        assert found.spec == planned[outcome.job]
        assert Run.load(root / outcome.hash).record()["name"] == outcome.job.name


def test_teachers_keep_their_predictions(done: tuple[Path, list[Outcome]]) -> None:
    root, outcomes = done
    for outcome in outcomes:
        folder = root / outcome.hash / "predictions"
        if outcome.job.teacher is not None:
            assert not folder.exists()
            continue
        metrics = journal.scan(root / outcome.hash)[0].metrics
        for split, kept in (("val", metrics.val), ("test", metrics.test)):
            table = Predictions.read(folder / f"{split}.npz")
            assert kept is not None
            assert table.kind == "logits"
            assert table.evaluate().correct.tolist() == kept.correct


def test_nothing_is_done_twice(done: tuple[Path, list[Outcome]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, outcomes = done
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}

    def step(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainStep, "__call__", step)
    again = run_all(GRID.jobs(), root, command="another command")
    assert timeless(again) == {hash_: replace(out, ran=False) for hash_, out in timeless(outcomes).items()}
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_another_grid_shares_the_runs_that_both_have(done: tuple[Path, list[Outcome]]) -> None:
    root, outcomes = done
    other = replace(GRID, student_objectives=("robust", "tradeoff:0"), validation_labels=("one-hot",))
    found = tasks(other.jobs(), root)
    assert {task.hash for task in found} < {outcome.hash for outcome in outcomes}


def test_a_run_that_lost_its_test_scores_gets_them_back(done: tuple[Path, list[Outcome]]) -> None:
    """Interrupted between training and evaluation."""
    root, outcomes = done
    path = root / outcomes[0].hash / "record.json"
    found = json.loads(path.read_text())
    scores = found["metrics"].pop("test")
    path.write_text(json.dumps(found))
    assert run_all(GRID.jobs()[:1], root)[0].ran
    again = json.loads(path.read_text())
    assert again["metrics"]["test"] == scores
    assert (again["name"], again["repeat"], again["command"]) == (outcomes[0].job.name, 0, "make demo")


def wild_grid() -> tuple[list[Job], Job]:
    """A grid, and its teacher that diverges."""
    jobs = GRID.jobs()
    wild = replace(jobs[0], recipe=RECIPE.with_(learning_rate=1e30))
    mended = [replace(job, teacher=wild) if job.teacher == jobs[0] else job for job in jobs[1:]]
    return [wild, *mended], wild


def test_a_failure_stops_its_students_only_and_is_recorded(tmp_path: Path) -> None:
    jobs, wild = wild_grid()
    outcomes = {outcome.job: outcome for outcome in run_all(jobs, tmp_path, executor=Local(2), command="make demo")}
    assert outcomes.keys() == set(jobs)
    error = outcomes[wild].error
    assert error is not None
    assert "learning_rate" in error
    reason = json.loads((tmp_path / outcomes[wild].hash / "failed.json").read_text())
    assert (reason["name"], reason["error"], reason["command"]) == (wild.name, error, "make demo")
    for job, outcome in outcomes.items():
        if job.teacher == wild:
            assert outcome.error == f"its teacher {wild.name} failed"
            assert not outcome.ran
            assert not (tmp_path / outcome.hash).exists()
        elif job != wild:
            assert Run.load(tmp_path / outcome.hash).test is not None


def test_what_failed_is_tried_again_only_when_asked(tmp_path: Path) -> None:
    _, wild = wild_grid()
    first = run_all([wild], tmp_path)[0]
    again = run_all([wild], tmp_path)[0]
    assert again == replace(first, ran=False)
    retried = run_all([wild], tmp_path, retry_failed=True)[0]
    assert retried.ran
    assert retried.error == first.error
    # A failure that has gone leaves nothing behind.
    job = GRID.jobs()[0]
    task = tasks([job], tmp_path)[0]
    record_failure(task, "the disk was full")
    assert run_all([job], tmp_path)[0].error == "the disk was full"
    assert run_all([job], tmp_path, retry_failed=True)[0].error is None
    assert failure(task.folder) is None


def test_unknown_data_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digits-lt"):
        run_all([replace(GRID.jobs()[0], data=DataSource("digits-lts"))], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_breaks_is_an_outcome(tmp_path: Path) -> None:
    """A user's own code can raise anything; the other runs have nothing to do with it."""
    outcome = run_all([replace(GRID.jobs()[0], model="experiments.test_execute:breaks")], tmp_path)[0]
    assert outcome.error is not None
    assert "out of luck" in outcome.error


def breaks() -> None:
    raise RuntimeError("out of luck")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_fails_its_own_run_only(tmp_path: Path) -> None:
    deadly = replace(GRID.jobs()[0], model="experiments.test_execute:dies", repeat=5)
    outcomes = {o.job: o for o in run_all([deadly, *GRID.jobs()[:2]], tmp_path, executor=Local(1))}
    assert outcomes[deadly].error == ("the process of this run was killed by signal 9 (SIGKILL): is memory short?")
    assert [outcomes[job].error for job in GRID.jobs()[:2]] == [None, None]
    assert json.loads((tmp_path / outcomes[deadly].hash / "failed.json").read_text())["error"].startswith("the process")


def test_a_student_without_its_teacher_is_refused(tmp_path: Path) -> None:
    student = GRID.jobs()[1]
    assert student.teacher is not None
    with pytest.raises(InputError, match=student.teacher.name):
        run_all([student], tmp_path)


def test_a_run_that_another_process_is_doing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = GRID.jobs()[:2]
    first, second = tasks(jobs, tmp_path)
    other = Leases()
    other.owner = {"host": "another-machine", "pid": 1, "started": None}
    assert other.take(first.folder)
    waits: list[float] = []

    def finish_there(seconds: float) -> None:
        waits.append(seconds)
        run_task(first)
        other.release(first.folder)

    monkeypatch.setattr(execute.time, "sleep", finish_there)
    outcomes = run_all(jobs, tmp_path)
    assert len(waits) == 1
    assert [(outcome.hash, outcome.ran) for outcome in outcomes] == [(first.hash, False), (second.hash, True)]


def test_a_machine_with_other_data_is_refused(tmp_path: Path) -> None:
    task = replace(tasks(GRID.jobs()[:1], tmp_path)[0], hash="0" * 12)
    assert "are its data or the code of" in str(run_task(task).error)


class Chained(Executor):
    """As Ray: students are submitted with what their teacher will give, and both end together."""

    chains = True

    def __init__(self, lost: bool = False) -> None:
        super().__init__()
        self.order: list[tuple[Any, Any]] = []
        self.lost = lost

    @property
    def free(self) -> int:
        return 3 - len(self.order)

    def submit(self, function: Any, task: Any, *, after: Sequence[Any] = ()) -> None:
        self.order.append((task, after))

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        results: dict[Any, Any] = {}
        for bundle, after in self.order:
            earlier = [results[one] for one in after]
            results[bundle] = Died(None, "a node went") if self.lost else run_bundle(bundle, *earlier)
        done = [(bundle, results[bundle]) for bundle, _ in self.order]
        self.order.clear()
        return done


def test_students_can_be_chained_to_their_teacher(tmp_path: Path) -> None:
    outcomes = run_all(GRID.jobs()[:4], tmp_path, executor=Chained())
    assert [outcome.error for outcome in outcomes] == [None] * 4
    jobs, _ = wild_grid()
    failed = run_all(jobs[:3], tmp_path / "wild", executor=Chained())
    assert [outcome.ran for outcome in failed] == [True, False, False]
    lost = run_all(GRID.jobs()[:3], tmp_path / "lost", executor=Chained(lost=True))
    assert lost[0].error == "a node went"
    assert [outcome.error for outcome in lost[1:]] == [f"its teacher {lost[0].job.name} failed"] * 2
    assert [path.parent.name for path in (tmp_path / "lost").rglob("failed.json")] == [lost[0].hash]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(robustdistill.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.executors import make
from robustdistill.experiments.grid import DataSource, Job
from robustdistill.training.recipe import Recipe

recipe = Recipe.named("digits-lt").with_(epochs=1)
quick = Job(DataSource("digits-lt"), "convnet-2", "standard", recipe, seed=0, repeat=0)
endless = replace(quick, recipe=recipe.with_(epochs=10**7), seed=1, repeat=1)
if __name__ == "__main__":
    try:
        run_all([quick, endless], Path(sys.argv[1]), executor=make("local", int(sys.argv[2])))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(("workers", "how"), [(1, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGKILL)])
def test_an_end_from_outside_keeps_what_was_finished(workers: int, how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group; kill -9 to the main process, whose workers must not live on."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "runs"), str(workers)]
    with subprocess.Popen(
        command,
        env=environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # Ignored where tests run in the background.
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline and len(finished(tmp_path)) == 0:
                time.sleep(0.05)
            assert finished(tmp_path), process.stderr and process.stderr.read()
            time.sleep(0.5)
            if how is signal.SIGINT:
                os.killpg(process.pid, how)
            else:
                process.kill()
            _, errors = process.communicate(timeout=100)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL)
    if how is signal.SIGINT:
        assert errors == ""
    assert len(finished(tmp_path)) == 1
    assert Run.load(finished(tmp_path)[0]).test is not None
    deadline = time.monotonic() + 10
    while workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(process.pid) == []


def finished(root: Path) -> list[Path]:
    """The folders of runs that were evaluated on test."""
    return [path.parent for path in (root / "runs").rglob("record.json") if '"test"' in path.read_text()]


def workers_of(group: int) -> list[str]:
    """The worker processes of a process group that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # It ended meanwhile.
            continue
        if int(fields[2]) == group and "spawn_main" in command and fields[0] != "Z":
            found.append(command)
    return found


def test_one_worker_for_each_core() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
    assert default_workers(threads=10**6) == 1


def test_the_time_left_is_that_of_runs_of_the_same_kind() -> None:
    teacher, student = GRID.jobs()[:2]
    longer = replace(teacher, recipe=RECIPE.with_(epochs=4))
    assert seconds_left([teacher], [], 1) is None
    assert seconds_left([teacher], [Outcome(teacher, "a", error="no", seconds=3.0)], 1) is None
    spent = [
        Outcome(teacher, "a", seconds=10.0),
        Outcome(teacher, "b", seconds=20.0),
        Outcome(student, "c", seconds=3.0),
    ]
    assert seconds_left([teacher, student, student], spent, 1) == pytest.approx(15 + 3 + 3)
    assert seconds_left([teacher, student, student], spent, 2) == pytest.approx(10.5)
    assert seconds_left([longer], spent, 1) == pytest.approx(11)

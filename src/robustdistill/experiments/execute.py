"""Running a grid: each run once, a teacher before its students, whatever has failed or was killed before.

A run's folder is named after its spec's hash, so grids that share a root share their runs. What was finished is not run
again; what was interrupted goes on from its checkpoint; what another process is doing, on this machine or another one,
is waited for.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.errors import InputError
from robustdistill.experiments.executors import Died, Executor, gpus
from robustdistill.experiments.grid import DataSource, Job, specs
from robustdistill.files import DISK_ERRORS, sweep, write_json
from robustdistill.lease import LEASE, Leases, lent
from robustdistill.training.spec import CHECKPOINT, RECORD

if TYPE_CHECKING:
    from robustdistill.data.splits import Splits

logger = logging.getLogger(__name__)

FAILED = "failed.json"
PREDICTIONS = "predictions"  # A teacher's tables of its predictions, val.npz and test.npz, in its run's folder.
POLL_SECONDS = 1.0  # Between two looks at runs that another process is doing.


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None where it finished; `worst_class` and `balanced` are on validation.

    `hash` is that of its spec and names its folder. Runs that were trained together share out the `seconds`. `ran` is
    False where nothing was trained: the run was finished or had failed before, or its teacher failed. `lasting` is
    False where the error is of the machine, such as a full disk: it is not recorded, the run is tried again next time.
    """

    job: Job
    hash: str
    worst_class: float | None = None
    balanced: float | None = None
    seconds: float | None = None
    error: str | None = None
    ran: bool = True
    lasting: bool = True


@dataclass(frozen=True)
class Task:
    """A job with its place: what travels to a worker."""

    job: Job
    hash: str
    folder: Path
    teacher: Path | None
    command: str | None


Bundle = tuple[Task, ...]  # What one worker is given at a time: one run, or several that it trains together.


def run_all(
    jobs: Sequence[Job],
    root: Path,
    *,
    executor: Executor | None = None,
    replicas: int = 1,
    command: str | None = None,
    retry_failed: bool = False,
    on_start: Callable[[Job], None] = lambda job: None,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs every job in `root`/<hash of its spec>.

    A failed run is recorded with its reason in failed.json and does not stop the others; its students are not tried.

    Args:
        jobs: each student's teacher among them, before it.
        root: where the run folders are.
        executor: what runs them; by default this process, one after the other. See `executors`.
        replicas: how many runs of one architecture, recipe and data a worker trains as one stack of models, at most;
            for GPUs, see `train_together`. Where memory is too short for that, each is tried again alone.
        command: kept in the records.
        retry_failed: run again what has failed before.
        on_start: called with each job whose training begins.
        on_done: called with each outcome as it comes.

    Returns:
        One outcome for each run that the jobs mean, in the order in which they ended.

    Raises:
        InputError: a student's teacher is not among the jobs, or data or a model cannot be found.
        KeyboardInterrupt: workers are stopped first; what was finished stays.
    """
    waiting = tasks(jobs, root, command)
    outcomes: dict[str, Outcome] = {}
    running: dict[str, Bundle] = {}
    lone: set[str] = set()  # hashes of runs that are to be trained alone

    def end(task: Task, outcome: Outcome) -> None:
        outcomes[task.hash] = outcome
        on_done(outcome)

    with executor or Executor() as at, Leases() as leases:
        while waiting or running:
            elsewhere, bundles = False, list[list[Task]]()
            for task in list(waiting):
                before = task.teacher.name if task.teacher is not None else None
                if not (before is None or before in outcomes or (at.chains and before in running)):
                    continue
                known, mates = _known(task, outcomes, retry_failed), None
                if known is None:
                    if len(bundles) >= at.free and all(len(bundle) >= replicas for bundle in bundles):
                        break
                    if task.hash not in lone:
                        mates = next((b for b in bundles if len(b) < replicas and _alike(b[0], task, lone)), None)
                    if mates is None and len(bundles) >= at.free:
                        continue
                    if not leases.take(task.folder):
                        elsewhere = True
                        continue
                    # Somebody else may have finished it before the lease was taken.
                    known = _known(task, outcomes, retry_failed)
                waiting.remove(task)
                if known is not None:
                    _tidy(task.folder, leases)
                    end(task, known)
                    continue
                (task.folder / FAILED).unlink(missing_ok=True)
                if mates is None:
                    bundles.append(mates := [])
                mates.append(task)
            for bundle in map(tuple, bundles):
                for task in bundle:
                    on_start(task.job)
                teachers = dict.fromkeys(task.teacher.name for task in bundle if task.teacher is not None)
                after = dict.fromkeys(running[name] for name in teachers if name in running)
                running |= dict.fromkeys((task.hash for task in bundle), bundle)
                at.submit(run_bundle, bundle, after=list(after))
            if bundles and at.chains:
                continue  # their students can be submitted, too
            if not running:
                if waiting and elsewhere:
                    time.sleep(POLL_SECONDS)
                continue
            for bundle, result in at.wait(POLL_SECONDS if elsewhere else None):
                for task, outcome in zip(bundle, _outcomes(bundle, result, outcomes), strict=True):
                    del running[task.hash]
                    again = len(bundle) > 1 and outcome.ran and _may_fit_alone(result, outcome)
                    if outcome.error is not None and outcome.ran and outcome.lasting and not again:
                        _record_failure(task, outcome.error)
                    leases.release(task.folder)
                    if again:
                        logger.warning("%s is tried again alone: %s", task.job.name, outcome.error)
                        lone.add(task.hash)
                        waiting.insert(0, task)
                    else:
                        end(task, outcome)
    return list(outcomes.values())


def _alike(one: Task, other: Task, lone: set[str]) -> bool:
    """Whether two runs can be trained as one stack, as far as their jobs say."""
    keys = [(task.job.data, task.job.model, task.job.recipe, task.job.threads) for task in (one, other)]
    return keys[0] == keys[1] and one.hash not in lone


def _outcomes(bundle: Bundle, result: Any, outcomes: Mapping[str, Outcome]) -> list[Outcome]:
    """How the runs of a bundle ended, by what its worker gave."""
    if not isinstance(result, Died):
        return list(result)
    found = []
    for task in bundle:
        teacher = outcomes.get(task.teacher.name) if task.teacher is not None else None
        if teacher is not None and teacher.error is not None:
            found.append(Outcome(task.job, task.hash, error=f"its teacher {teacher.job.name} failed", ran=False))
        else:
            found.append(Outcome(task.job, task.hash, error=str(result)))
    return found


def _may_fit_alone(result: Any, outcome: Outcome) -> bool:
    """Whether a run of several failed for what may be the doing of the others: memory is short, or the process died."""
    return isinstance(result, Died) or (outcome.error or "").startswith("OutOfMemoryError")


def _tidy(folder: Path, leases: Leases) -> None:
    """Gives the lease of a run back that is at its end; also that of who died between its end and giving it back."""
    if (folder / LEASE).exists():
        with suppress(OSError):  # the folder may be read-only, which is no harm
            if leases.holds(folder) or leases.take(folder):
                sweep(folder)
    leases.release(folder)


def tasks(jobs: Sequence[Job], root: Path, command: str | None = None) -> list[Task]:
    """A task for each run that the jobs mean: jobs of one spec are one run.

    Raises:
        InputError: a student's teacher is not among the jobs before it, or data or a model cannot be found.
    """
    seen: set[Job] = set()
    for job in jobs:
        if job.teacher is not None and job.teacher not in seen:
            raise InputError(f"jobs must hold the teacher of each student before it; {job.teacher.name} is missing")
        seen.add(job)
    hashes: dict[Job, str] = {}
    for source in dict.fromkeys(job.data for job in jobs):
        found = specs([job for job in jobs if job.data == source], load_data(source))
        hashes |= {job: spec.hash for job, spec in found.items()}
    made: dict[str, Task] = {}
    for job in jobs:
        teacher = root / hashes[job.teacher] if job.teacher is not None else None
        made.setdefault(hashes[job], Task(job, hashes[job], root / hashes[job], teacher, command))
    return list(made.values())


def _known(task: Task, outcomes: dict[str, Outcome], retry_failed: bool) -> Outcome | None:
    """How a run has ended without anything to be done; None where it is to be run."""
    if task.teacher is not None and task.teacher.name in outcomes:
        teacher = outcomes[task.teacher.name]
        if teacher.error is not None:
            return Outcome(task.job, task.hash, error=f"its teacher {teacher.job.name} failed", ran=False)
    if (found := finished(task)) is not None:
        return found
    if not retry_failed and (reason := failure(task.folder)) is not None:
        return Outcome(task.job, task.hash, error=reason, ran=False)
    return None


def finished(task: Task) -> Outcome | None:
    """The outcome of a run that is finished and evaluated on test, by its record; None for any other."""
    record = _read(task.folder / RECORD)
    try:
        if record is None or record["hash"] != task.hash or "test" not in record["metrics"]:
            return None
        val = record["metrics"]["val"]
        seconds = _own_seconds(record.get("seconds"), record.get("environment", {}))
        return Outcome(task.job, task.hash, val["worst_class"], val["balanced"], seconds, ran=False)
    except (KeyError, TypeError):
        return None


def failure(folder: Path) -> str | None:
    """Why the run in a folder failed, if it did."""
    content = _read(folder / FAILED)
    return None if content is None else str(content.get("error", "for an unknown reason"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _record_failure(task: Task, error: str) -> None:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    fields = {"hash": task.hash, "name": task.job.name, "error": error, "command": task.command, "date": date}
    try:
        write_json(task.folder / FAILED, fields)
    except OSError as problem:  # The disk may be full, which is why the run failed.
        logger.warning("%s failed, which could not be recorded in its folder: %s", task.job.name, problem)


def run_bundle(bundle: Bundle, *earlier: Sequence[Outcome]) -> list[Outcome]:
    """`run_task` of each, together where they are several.

    Args:
        bundle: what to do.
        earlier: how bundles ended that hold teachers of these, where that is known only now.
    """
    known = {outcome.hash: outcome for ended in earlier for outcome in ended}
    calls = [partial(run_task, task, known.get(task.teacher.name) if task.teacher else None) for task in bundle]
    if len(calls) == 1:
        return [calls[0]()]
    from robustdistill.training.replicas import train_together

    return [found for found in train_together(calls) if isinstance(found, Outcome)]  # `run_task` raises nothing


def run_task(task: Task, teacher: Outcome | None = None) -> Outcome:
    """Trains one job, evaluates it on test and records both; a failure is an outcome, not an exception.

    Args:
        task: what to do.
        teacher: how its teacher ended, where that is known only now.
    """
    if teacher is not None and teacher.error is not None:
        return Outcome(task.job, task.hash, error=f"its teacher {teacher.job.name} failed", ran=False)
    try:
        with lent(task.folder):
            return _train(task)
    except Exception as error:  # A model of the user's own may raise anything, and the other runs go on.
        logger.debug("%s failed", task.job.name, exc_info=True)
        of_the_machine = isinstance(error, OSError) and error.errno in DISK_ERRORS
        return Outcome(task.job, task.hash, error=f"{type(error).__name__}: {error}", lasting=not of_the_machine)


def _train(task: Task) -> Outcome:
    from robustdistill.training.distill import distill
    from robustdistill.training.evaluate import evaluate, predict
    from robustdistill.training.fit import fit
    from robustdistill.training.run import Run

    job, data = task.job, load_data(task.job.data)
    sweep(task.folder)
    if (task.folder / RECORD).is_file() and _read(task.folder / RECORD) is None:
        # No process leaves half a record; a disk that lost what it had called written may.
        logger.warning("%s is torn: that run is made again", task.folder / RECORD)
        (task.folder / RECORD).unlink()
    settings: dict[str, Any] = {
        "objective": job.objective,
        "recipe": job.recipe,
        "method": job.method,
        "seed": job.seed,
        "threads": job.threads,
        "out": task.folder,
        "progress": False,
        "extra": {"name": job.name, "repeat": job.repeat, "command": task.command},
    }
    if job.teacher is None:
        run = fit(job.model, data.train, data.val, **settings)
    else:
        assert task.teacher is not None
        run = distill(
            Run.load(task.teacher, model=job.teacher.model),
            job.model,
            data.train,
            data.val,
            temperature=job.temperature,
            validation_labels=job.validation_labels,
            validation_temperature=job.validation_temperature if job.validation_labels == "teacher" else None,
            **settings,
        )
    if run.spec.hash != task.hash:
        raise InputError(
            f"this machine makes run {run.spec.hash} of what was planned as {task.hash}: are its data or the code of"
            f" {job.model!r} others than where the grid was started?"
        )
    if run.test is None:
        tested = predict(run, data.test)
        if job.teacher is None and not job.baseline:
            predict(run, data.val).write(task.folder / PREDICTIONS / "val.npz")
            tested.write(task.folder / PREDICTIONS / "test.npz")
        run.test = evaluate(tested, data.test)
        run.save(task.folder)  # Last: with its test scores, a record says that all the rest is there.
    (task.folder / CHECKPOINT).unlink(missing_ok=True)  # Left where a process died just after its record was written.
    seconds = _own_seconds(run.seconds, run.environment)
    return Outcome(job, task.hash, run.scores.worst_class, run.scores.balanced, seconds)


def _own_seconds(seconds: float | None, environment: Mapping[str, Any]) -> float | None:
    """A run's share of the time that it and those trained together with it took."""
    return None if seconds is None else seconds / int(environment.get("replicas", 1))


@lru_cache(maxsize=2)
def load_data(source: DataSource) -> Splits:
    """The data of a job, loaded once a process."""
    from robustdistill import data

    return data.load(**vars(source))


def default_workers(threads: int = 1, replicas: int = 1) -> int:
    """As many as keep this process's cores busy: runs of one thread side by side beat one run with all threads.

    Where each trains several runs as one stack, as many as there are GPUs.
    """
    if replicas > 1:
        return max(1, len(gpus()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def seconds_left(jobs: Iterable[Job], done: Iterable[Outcome], workers: int) -> float | None:
    """Estimated seconds for `jobs`, from what the finished runs took; None where none of them says.

    A run is taken to last as long as the mean of those of its data, model, epochs and kind, else as the mean of all.
    """
    spent: dict[Any, list[float]] = {}
    for outcome in done:
        if outcome.seconds is not None and outcome.error is None:
            for key in (_kind(outcome.job), None):
                spent.setdefault(key, []).append(outcome.seconds)
    if None not in spent:
        return None
    means = {key: sum(values) / len(values) for key, values in spent.items()}
    return sum(means.get(_kind(job), means[None]) for job in jobs) / workers


def _kind(job: Job) -> Any:
    teacher = job.teacher.model if job.teacher is not None else None
    return job.data, job.model, teacher, job.recipe.epochs, job.recipe.precision, job.threads

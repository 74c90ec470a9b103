"""Running a comparison on this machine: worker processes that train one run each, teachers before their students."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from robustdistill.errors import InputError, WorkerDiedError
from robustdistill.experiments.grid import DataSource, Job
from robustdistill.training.spec import RECORD, differences

if TYPE_CHECKING:
    from robustdistill.data.splits import Splits


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None where it finished; `worst_class` and `balanced` are on validation."""

    job: Job
    worst_class: float | None = None
    balanced: float | None = None
    error: str | None = None


def run_all(
    jobs: Sequence[Job],
    root: Path,
    *,
    workers: int = 1,
    command: str | None = None,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs every job in its folder below `root`; a finished one is not run again, an interrupted one goes on.

    A failed run does not stop the others, but its students are not tried.

    Args:
        jobs: each student's teacher among them.
        root: where the run folders are.
        workers: processes; 1 runs everything in this one.
        command: kept in the records.
        on_done: called with each outcome as it comes.

    Raises:
        InputError: a student's teacher is not among the jobs.
        WorkerDiedError: a worker was killed; what was finished stays.
        KeyboardInterrupt: workers are stopped first; what was finished stays.
    """
    known = set(jobs)
    for job in jobs:
        if job.teacher is not None and job.teacher not in known:
            raise InputError(f"jobs must hold the teacher of each student; {job.teacher.name} is missing")
    if workers == 1:
        return _run_here(jobs, root, command, on_done)
    # Spawned, not forked: a forked child would inherit torch's thread pools in whatever state they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_initialise_worker)
    try:
        return _run_pooled(pool, jobs, root, command, on_done)
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def refuse_other_runs(jobs: Sequence[Job], root: Path, splits: Splits) -> None:
    """Looks, before anything is trained, whether a job's folder holds the run of another comparison.

    Args:
        jobs: what is to be run.
        root: where the run folders are.
        splits: their data.

    Raises:
        InputError: one does; the message says in what they differ.
    """
    facts = {**splits.train.source, "train": splits.train.fingerprint, "val": splits.val.fingerprint}
    for job in jobs:
        path = root / job.name / RECORD
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))["spec"]
            old = {"recipe": recorded["recipe"], "data": recorded["data"], **{k: recorded[k] for k in _PLAIN}}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Nothing finished there, or nothing that can be read: the run itself says so.
        new = {"recipe": job.recipe.model_dump(mode="json"), "data": facts, **{k: getattr(job, k) for k in _PLAIN}}
        if differing := differences(old, new):
            raise InputError(
                f"{root} already holds the runs of another comparison ({job.name}: {differing}):"
                " choose another folder with out=, or delete that one"
            )


_PLAIN = ("model", "seed", "threads")


def _run_here(
    jobs: Sequence[Job], root: Path, command: str | None, on_done: Callable[[Outcome], None]
) -> list[Outcome]:
    outcomes: dict[Job, Outcome] = {}
    for job in jobs:
        outcomes[job] = _blocked(job, outcomes) or run_job(job, root, command)
        on_done(outcomes[job])
    return list(outcomes.values())


def _run_pooled(
    pool: ProcessPoolExecutor,
    jobs: Sequence[Job],
    root: Path,
    command: str | None,
    on_done: Callable[[Outcome], None],
) -> list[Outcome]:
    outcomes: dict[Job, Outcome] = {}
    waiting = list(jobs)
    running: dict[Future[Outcome], Job] = {}
    while waiting or running:
        for job in [job for job in waiting if job.teacher is None or job.teacher in outcomes]:
            waiting.remove(job)
            if blocked := _blocked(job, outcomes):
                outcomes[job] = blocked
                on_done(blocked)
            else:
                running[pool.submit(run_job, job, root, command)] = job
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            job = running.pop(future)
            try:
                outcomes[job] = future.result()
            except BrokenProcessPool as error:
                raise WorkerDiedError(
                    f"the process that ran {job.name} was killed; is memory short? Try fewer workers. Finished runs"
                    " are kept"
                ) from error
            on_done(outcomes[job])
    return [outcomes[job] for job in jobs]


def _blocked(job: Job, outcomes: dict[Job, Outcome]) -> Outcome | None:
    if job.teacher is None or outcomes[job.teacher].error is None:
        return None
    return Outcome(job, error=f"its teacher {job.teacher.name} failed")


def run_job(job: Job, root: Path, command: str | None = None) -> Outcome:
    """Trains one job, evaluates it on test and records both; a failure is an outcome, not an exception."""
    from robustdistill.training.distill import distill
    from robustdistill.training.evaluate import evaluate
    from robustdistill.training.fit import fit
    from robustdistill.training.run import Run

    folder = root / job.name
    extra = {"repeat": job.repeat, "command": command}
    try:
        data = load_data(job.data)
        if job.teacher is None:
            run = fit(
                job.model,
                data.train,
                data.val,
                objective=job.objective,
                recipe=job.recipe,
                method=job.method,
                seed=job.seed,
                threads=job.threads,
                out=folder,
                progress=False,
                extra=extra,
            )
        else:
            run = distill(
                Run.load(root / job.teacher.name, model=job.teacher.model),
                job.model,
                data.train,
                data.val,
                objective=job.objective,
                temperature=job.temperature,
                validation_labels=job.validation_labels,  # type: ignore[arg-type]
                validation_temperature=job.validation_temperature,
                recipe=job.recipe,
                method=job.method,
                seed=job.seed,
                threads=job.threads,
                out=folder,
                progress=False,
                extra=extra,
            )
        if run.test is None:
            run.test = evaluate(run, data.test)
            run.save(folder)
    except Exception as error:  # A model of the user's own may raise anything, and the other runs go on.
        logger.debug("%s failed", job.name, exc_info=True)
        return Outcome(job, error=f"{type(error).__name__}: {error}")
    return Outcome(job, worst_class=run.scores.worst_class, balanced=run.scores.balanced)


@lru_cache(maxsize=2)
def load_data(source: DataSource) -> Splits:
    """The data of a job, loaded once a process."""
    from robustdistill import data

    return data.load(**vars(source))


def default_workers() -> int:
    """One for each core this process may use: runs of one thread side by side beat one run with all threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _initialise_worker() -> None:
    # The main process answers Ctrl-C and stops its workers; without this each would print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before torch is imported: what is not told how many threads to take must not take a pool of them in every worker.
    os.environ["OMP_NUM_THREADS"] = "1"

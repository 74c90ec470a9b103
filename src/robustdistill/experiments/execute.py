"""Running a grid: each run once, a teacher before its students, whatever has failed or was killed before.

A run's folder is named after its spec's hash, so grids that share a root share their runs. What was finished is not run
again; what was interrupted goes on from its checkpoint; what another process is doing, on this machine or another one,
is waited for. `tasks` says what there is to do, `worker` does it, and here is in what order and by whom.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustdistill.environment import cores
from robustdistill.experiments.executors import Died, Executor, gpus
from robustdistill.experiments.grid import Job
from robustdistill.experiments.tasks import FAILED, Bundle, Outcome, Task, failure, finished, record_failure, tasks
from robustdistill.experiments.worker import run_bundle
from robustdistill.files import sweep
from robustdistill.lease import LEASE, Leases

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # Between two looks at runs that another process is doing.


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
                        record_failure(task, outcome.error)
                    leases.release(task.folder)
                    if again:
                        logger.warning("%s is tried again alone: %s", task.job.name, outcome.error)
                        lone.add(task.hash)
                        waiting.insert(0, task)
                    else:
                        end(task, outcome)
    return list(outcomes.values())


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


def default_workers(threads: int = 1, replicas: int = 1) -> int:
    """As many as keep this process's cores busy: runs of one thread side by side beat one run with all threads.

    Where each trains several runs as one stack, as many as there are GPUs.
    """
    if replicas > 1:
        return max(1, len(gpus()))
    return max(1, cores() // threads)


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

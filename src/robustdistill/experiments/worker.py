"""What a worker does with its tasks: it trains each, evaluates it on test and writes both down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from robustdistill.errors import InputError
from robustdistill.experiments.tasks import Bundle, Outcome, Task, load_data, own_seconds, read_json
from robustdistill.files import DISK_ERRORS, sweep
from robustdistill.lease import lent
from robustdistill.training.spec import CHECKPOINT, RECORD

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions"  # A teacher's tables of its predictions, val.npz and test.npz, in its run's folder.


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
    from robustdistill.training.evaluate import predict, score_test
    from robustdistill.training.fit import fit
    from robustdistill.training.run import Run

    job, data = task.job, load_data(task.job.data)
    sweep(task.folder)
    if (task.folder / RECORD).is_file() and read_json(task.folder / RECORD) is None:
        # No process leaves half a record; a disk that lost what it had called written may.
        logger.warning("%s is torn: that run is made again", task.folder / RECORD)
        (task.folder / RECORD).unlink()
    settings: dict[str, Any] = {
        "objective": job.objective,
        "recipe": job.recipe,
        "method": job.method,
        "groups": job.groups,
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
    if not run.tested:
        tested = predict(run, data.test)
        if job.teacher is None and not job.baseline:
            predict(run, data.val).write(task.folder / PREDICTIONS / "val.npz")
            tested.write(task.folder / PREDICTIONS / "test.npz")
        score_test(run, data.test, tested)
        run.save(task.folder)  # Last: with its test scores, a record says that all the rest is there.
    (task.folder / CHECKPOINT).unlink(missing_ok=True)  # Left where a process died just after its record was written.
    seconds = own_seconds(run.seconds, run.environment)
    return Outcome(job, task.hash, run.scores.worst_class, run.scores.balanced, seconds)

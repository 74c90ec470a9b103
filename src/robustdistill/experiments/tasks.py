"""The runs of a grid as tasks: which folder each has, what it needs, and how it ended by what is in that folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.errors import InputError
from robustdistill.experiments.grid import DataSource, Job, specs
from robustdistill.files import write_json
from robustdistill.training.spec import RECORD

if TYPE_CHECKING:
    from robustdistill.data.splits import Splits

logger = logging.getLogger(__name__)

FAILED = "failed.json"


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


@lru_cache(maxsize=2)
def load_data(source: DataSource) -> Splits:
    """The data of a job, loaded once a process."""
    from robustdistill import data

    return data.load(**vars(source))


def finished(task: Task) -> Outcome | None:
    """The outcome of a run that is finished and evaluated on test, by its record; None for any other."""
    record = read_json(task.folder / RECORD)
    try:
        if record is None or record["hash"] != task.hash or "test" not in record["metrics"]:
            return None
        if task.job.groups != "class" and "groups" not in record["metrics"]["test"]:
            return None
        val = record["metrics"]["val"]
        seconds = own_seconds(record.get("seconds"), record.get("environment", {}))
        return Outcome(task.job, task.hash, val["worst_class"], val["balanced"], seconds, ran=False)
    except (KeyError, TypeError):
        return None


def failure(folder: Path) -> str | None:
    """Why the run in a folder failed, if it did."""
    content = read_json(folder / FAILED)
    return None if content is None else str(content.get("error", "for an unknown reason"))


def record_failure(task: Task, error: str) -> None:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    fields = {"hash": task.hash, "name": task.job.name, "error": error, "command": task.command, "date": date}
    try:
        write_json(task.folder / FAILED, fields)
    except OSError as problem:  # The disk may be full, which is why the run failed.
        logger.warning("%s failed, which could not be recorded in its folder: %s", task.job.name, problem)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def own_seconds(seconds: float | None, environment: Mapping[str, Any]) -> float | None:
    """A run's share of the time that it and those trained together with it took."""
    return None if seconds is None else seconds / int(environment.get("replicas", 1))

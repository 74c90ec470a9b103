"""Finished runs of a plan as records, without training: a test decides what each of them got right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robustdistill.experiments.grid import Job
from robustdistill.experiments.journal import Metrics, Record, SplitMetrics
from robustdistill.experiments.paper import layouts, plan, scales
from robustdistill.metrics import Scores
from robustdistill.objectives import Objective
from robustdistill.predictions import Predictions
from robustdistill.training.spec import DataIdentity, Distillation, RunSpec

# (validation, test) recalls of every class.
Recalls = tuple[list[float], list[float]]


def table(number: int, data: str, scale: scales.Scale = "paper", repeats: int | None = None) -> plan.TablePlan:
    name = f"table{number}"
    layout = layouts.layout(number, scales.stands_for(name, data, scale))
    return plan.table_plan(layout, scales.setup(layout, scales.data_source(data), scale, repeats=repeats))


def figure(
    number: int,
    data: str,
    scale: scales.Scale = "paper",
    repeats: int | None = None,
    alphas: tuple[float, ...] = layouts.ALPHAS,
) -> plan.FigurePlan:
    layout = layouts.figure_layout(number, scales.stands_for(f"figure{number}", data, scale))
    setup = scales.setup(layout, scales.data_source(data), scale, repeats=repeats, alphas=alphas)
    return plan.figure_plan(layout, setup)


def finished(jobs: tuple[Job, ...], recalls: Callable[[Job], Recalls], root: Path | None = None) -> dict[Job, Record]:
    """A record for each job, of 1,000 examples a class; where there is a root, teachers' predictions are stored."""
    found: dict[Job, Record] = {}
    for job in jobs:
        spec = spec_of(job, found)
        val, test = recalls(job)
        folder = root / spec.hash if root is not None else None
        found[job] = Record(
            schema=1,  # type: ignore[call-arg]
            name=job.name,
            hash=spec.hash,
            spec=spec,
            metrics=Metrics(val=_metrics(val), test=_metrics(test)),
            class_names=[f"class {index}" for index in range(len(val))],
            train_counts=[10] * len(val),
            repeat=job.repeat,
            seconds=60.0,
            environment={"torch": "2.13.0", "processor": "<slow & steady>", "date": "today"},
            path=folder,
        )
        if folder is not None and job.teacher is None and not job.baseline:
            for split, values in (("val", val), ("test", test)):
                (folder / "predictions").mkdir(parents=True, exist_ok=True)
                predictions(values, seed=job.seed).write(folder / "predictions" / f"{split}.npz")
    return found


def spec_of(job: Job, found: dict[Job, Record]) -> RunSpec:
    distillation = None
    moving = Objective.parse(job.objective).needs_multipliers
    if job.teacher is not None:
        teacher = found[job.teacher]
        by_teacher = job.validation_labels == "teacher"
        assert moving or not by_teacher
        distillation = Distillation(
            teacher=teacher.hash,
            teacher_model=teacher.spec.model,
            teacher_objective=teacher.spec.objective,
            teacher_seed=teacher.spec.seed,
            temperature=job.temperature,
            validation_temperature=(job.validation_temperature or job.temperature) if by_teacher else None,
        )
    return RunSpec(
        role="teacher" if job.teacher is None else "student",
        data=DataIdentity(name=job.data.name, split_seed=0, subset_seed=0, train="aa", val="bb"),
        model=job.model,
        objective=job.objective,
        method=job.method,
        seed=job.seed,
        threads=job.threads,
        recipe=job.recipe,
        validation_labels=job.validation_labels,
        distillation=distillation,
    )


def noisy(job: Job) -> Recalls:
    """Two classes; recalls that are those of the job and of no other."""
    digest = hashlib.sha256(repr(job).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    return tuple(np.round(rng.uniform(0.3, 0.9, 2), 3).tolist() for _ in range(2))  # type: ignore[return-value]


def predictions(recalls: list[float], seed: int, count: int = 200) -> Predictions:
    """Logits of a model that gets about these shares of its classes right."""
    rng = np.random.default_rng(seed)
    classes = len(recalls)
    labels = np.repeat(np.arange(classes), count)
    logits = rng.normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += 2 * np.array(recalls)[labels]
    names = tuple(f"class {index}" for index in range(classes))
    return Predictions(np.arange(len(labels)), logits, "logits", names, labels)


def _metrics(recalls: list[float]) -> SplitMetrics:
    correct = np.rint(1000 * np.array(recalls)).astype(np.int64)
    return SplitMetrics(**Scores(correct, np.full(len(recalls), 1000)).as_dict())

"""Which runs a table or a figure takes: a job for each, equal jobs once, a teacher shared by its students."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from robustdistill.experiments.grid import STUDENT_SEED, Job
from robustdistill.experiments.paper.layouts import STANDARD, FigureLayout, Layout, Row
from robustdistill.experiments.paper.scales import Setup
from robustdistill.objectives import Objective

Pair = tuple[float, float | None]
_METHODS = {"distill": "margin", "ada-margin": "ada-margin", "ada-alpha": "ada-alpha"}
_GROUP_DRO = {"none": "group-dro", "one-hot": "group-dro:validation=True"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        student: the panel, by the paper's architecture.
        row: of the table.
        column: the teacher's objective; empty where there is no teacher.
        jobs: the runs that it takes; of post-shift the models that are shifted.
    """

    student: str
    row: Row
    column: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class TablePlan:
    """A filled table: its cells, and every run that they take, once."""

    layout: Layout
    setup: Setup
    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class FigurePlan:
    """A filled figure: the teachers by objective, the students by the teacher's and their own."""

    layout: FigureLayout
    setup: Setup
    teachers: dict[str, tuple[Job, ...]]
    students: dict[tuple[str, str], tuple[Job, ...]]
    jobs: tuple[Job, ...]


Plan = TablePlan | FigurePlan


def table_plan(layout: Layout, setup: Setup) -> TablePlan:
    """The cells of a table and their runs."""
    cells = tuple(
        Cell(student, row, column, tuple(_cell_jobs(layout, setup, model, row, column)))
        for student, model in zip(layout.students, setup.students, strict=True)
        for row in layout.rows
        for column in layout.columns
    )
    return TablePlan(layout, setup, cells, _with_teachers(job for cell in cells for job in cell.jobs))


def figure_plan(layout: FigureLayout, setup: Setup) -> FigurePlan:
    """The points of a figure and their runs: all students learn from teachers of repeat 0, as in the tables."""
    objectives = trade_offs(setup.alphas)
    teachers = {
        objective: tuple(_teacher(setup, objective, repeat) for repeat in range(setup.teacher_repeats))
        for objective in objectives
    }
    students = {
        (of_teacher, own): tuple(
            job
            for repeat in range(setup.repeats)
            for job in _students(setup, jobs[0], setup.students[0], Row("distill", own, layout.labels), repeat)
        )
        for of_teacher, jobs in teachers.items()
        for own in objectives
    }
    everything = [job for group in (teachers, students) for jobs in group.values() for job in jobs]
    return FigurePlan(layout, setup, teachers, students, _with_teachers(everything))


def trade_offs(alphas: Iterable[float]) -> list[str]:
    """The standard objective, and the trade-off of each α, as canonical strings.

    >>> trade_offs([0, 0.5, 1])
    ['standard', 'balanced', 'tradeoff:0.5', 'robust']
    """
    return list(dict.fromkeys([STANDARD, *(str(Objective.parse(f"tradeoff:{alpha}")) for alpha in sorted(alphas))]))


def counts(plan: Plan) -> dict[str, int]:
    """How many models are trained: teachers (without distillation), students, where there are any baselines, and all.

    A baseline, such as one of group DRO, learns from no teacher and teaches none.
    """
    baselines = sum(job.baseline for job in plan.jobs)
    students = sum(job.teacher is not None for job in plan.jobs)
    found = {"teachers": len(plan.jobs) - students - baselines, "students": students}
    return {**found, **({"baselines": baselines} if baselines else {}), "runs": len(plan.jobs)}


def _cell_jobs(layout: Layout, setup: Setup, model: str, row: Row, column: str) -> Iterator[Job]:
    if row.method in ("none", "post-shift"):
        yield from (_teacher(setup, column, repeat) for repeat in range(setup.teacher_repeats))
        return
    for repeat in range(setup.repeats):
        if row.method == "group-dro":
            yield _alone(setup, _GROUP_DRO[row.labels], repeat)
        else:
            teacher = _teacher(setup, column, 0 if layout.fixed_teacher else repeat)
            yield from _students(setup, teacher, model, row, repeat)


def _teacher(setup: Setup, objective: str, repeat: int) -> Job:
    return Job(setup.data, setup.teacher, objective, setup.recipe, seed=repeat, repeat=repeat)


def _alone(setup: Setup, method: str, repeat: int) -> Job:
    job = _teacher(setup, STANDARD, repeat)
    return replace(job, seed=STUDENT_SEED + repeat, method=method, baseline=True)


def _students(setup: Setup, teacher: Job, model: str, row: Row, repeat: int) -> Iterator[Job]:
    """One student at every temperature; where the teacher labels validation, at every pair of temperatures."""
    objective = row.objective or STANDARD
    by_teacher = row.labels == "teacher" and Objective.parse(objective).needs_multipliers
    pairs: list[Pair] = setup.label_pairs if by_teacher else [(t, None) for t in setup.temperatures]
    for temperature, of_validation in pairs:
        yield replace(
            teacher,
            model=model,
            objective=objective,
            seed=STUDENT_SEED + repeat,
            repeat=repeat,
            method=_METHODS[row.method],
            teacher=teacher,
            temperature=temperature,
            validation_labels="teacher" if by_teacher else "one-hot",
            validation_temperature=of_validation,
        )


def _with_teachers(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Each job once, its teacher before it, one repeat after the other: what is done first is a whole table."""
    found: dict[Job, None] = {}
    for job in jobs:
        if job.teacher is not None:
            found[job.teacher] = None
        found[job] = None
    return tuple(sorted(found, key=lambda job: (job.repeat, job.teacher is not None)))

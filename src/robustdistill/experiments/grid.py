"""Which runs make a grid: teachers of every objective, the students of each, and the spec of every run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robustdistill.data.longtail import Profile
from robustdistill.errors import InputError, unknown
from robustdistill.objectives import Objective
from robustdistill.training.recipe import Recipe

if TYPE_CHECKING:
    from robustdistill.data.splits import Splits
    from robustdistill.groups import GroupsChoice
    from robustdistill.training.spec import RunSpec

# Far enough apart that no student of one repeat shares its seed with a teacher of another.
STUDENT_SEED = 1000
# What multipliers can be over; `robustdistill.groups` says what each means.
GROUPS: tuple[GroupsChoice, ...] = ("class", "group", "class-group")


@dataclass(frozen=True)
class DataSource:
    """The arguments of `data.load`."""

    name: str
    root: Path | None = None
    split_seed: int = 0
    subset_seed: int = 0
    verify: bool = True
    ratio: float | None = None
    profile: Profile = "exponential"
    val: float | None = None
    pad: int | None = None
    flip: bool | None = None
    image_size: int | tuple[int, int] | None = None
    crops: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    lists: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run to be done, in plain values that travel to a worker process.

    Attributes:
        data: what to train on.
        model: its name, or "module:callable".
        objective: canonical string.
        recipe: optimisation settings.
        seed: of training.
        method: training method, with its settings after a colon.
        repeat: which repetition of the grid it belongs to.
        threads: CPU threads.
        teacher: None for a teacher, and for a baseline that needs none.
        temperature: of a student's targets.
        validation_labels: of a student.
        validation_temperature: of teacher-labelled validation.
        baseline: whether it is a model that no student learns from, trained on labels.
        groups: what the multipliers are over, and what the run is scored by.
    """

    data: DataSource
    model: str
    objective: str
    recipe: Recipe
    seed: int
    repeat: int
    threads: int = 1
    method: str = "margin"
    teacher: Job | None = None
    temperature: float = 1.0
    validation_labels: Literal["one-hot", "teacher"] = "one-hot"
    validation_temperature: float | None = None
    baseline: bool = False
    groups: GroupsChoice = "class"

    @property
    def name(self) -> str:
        """What the run is, for people; unique within a grid of one recipe."""
        what = self.objective if self.method == "margin" else self.method
        role = "student" if self.teacher is not None else "alone" if self.baseline else "teacher"
        parts = [role, self.model, what]
        if self.teacher is not None:
            parts += ["from", self.teacher.model, self.teacher.objective, f"T{self.temperature:g}"]
            if Objective.parse(self.objective).needs_multipliers:
                parts.append(f"{self.validation_labels}-val")
            if self.validation_temperature not in (None, self.temperature):
                parts.append(f"Tval{self.validation_temperature:g}")
        if self.groups != "class":
            parts.append(f"by-{self.groups}")
        return re.sub(r"[^\w.=-]", "-", "_".join([*parts, f"r{self.repeat}"]))


@dataclass(frozen=True)
class Grid:
    """Teachers × students × temperatures × repeats. Each teacher is trained once and shared by all its students.

    Attributes:
        data: what to train on.
        teachers: teacher models.
        students: student models.
        recipe: for both.
        teacher_objectives: of the teachers; traded-off ones too, such as "tradeoff:0.5".
        student_objectives: of the students.
        validation_labels: for students with multipliers; the others have none to move and are trained once.
        methods: other training methods to compare with; one that needs a teacher makes a student of each teacher,
            another one trains the student's architecture on labels.
        temperatures: of the targets.
        validation_temperatures: of teacher-labelled validation; None is the temperature of the targets.
        repeats: training seeds 0, 1, ...; split and subset stay fixed.
        fixed_teacher: whether the teacher of the first repeat teaches the students of all (the paper's Table 1), or
            each repeat has teachers of its own (its Table 2).
        threads: CPU threads of each run.
        groups: what the multipliers of all runs are over, and what is to be good on its worst: "class"; or the data's
            group column as it is, "group", or within each class, "class-group".

    Raises:
        InputError: an objective, method, temperature or number is none that can be run.
    """

    data: DataSource
    teachers: Sequence[str]
    students: Sequence[str]
    recipe: Recipe
    teacher_objectives: Sequence[str] = ("standard", "balanced", "robust")
    student_objectives: Sequence[str] = ("standard", "balanced", "robust")
    validation_labels: Sequence[Literal["one-hot", "teacher"]] = ("teacher", "one-hot")
    methods: Sequence[str] = ()
    temperatures: Sequence[float] = (1.0,)
    validation_temperatures: Sequence[float | None] = (None,)
    repeats: int = 3
    fixed_teacher: bool = False
    threads: int = 1
    groups: GroupsChoice = "class"

    def __post_init__(self) -> None:
        for name in ("teachers", "students", "teacher_objectives", "temperatures", "validation_temperatures"):
            values = getattr(self, name)
            if isinstance(values, str) or not values:
                raise InputError(f"{name} must be a list with at least one entry, got {values!r}")
        for name in ("teacher_objectives", "student_objectives"):
            _canonical(getattr(self, name))
        for labels in self.validation_labels:
            if labels not in ("teacher", "one-hot"):
                raise unknown("validation_labels", str(labels), ["teacher", "one-hot"])
        for temperature in (*self.temperatures, *(t for t in self.validation_temperatures if t is not None)):
            if not (math.isfinite(temperature) and temperature > 0):
                raise InputError(f"temperatures must be positive and finite, got {temperature}")
        for name in ("repeats", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.groups not in GROUPS:
            raise unknown("groups", str(self.groups), GROUPS)
        if self.methods:  # Only then: methods import torch.
            from robustdistill import methods
            from robustdistill.training import setup

            for text in self.methods:
                method = methods.get(text)
                if self.groups != "class":
                    setup.check_takes_groups(method)

    def jobs(self) -> list[Job]:
        """Every run once, teachers before their students, one repeat after the other."""
        jobs: dict[Job, None] = {}
        for repeat in range(self.repeats):
            for model in self.teachers:
                for objective in _canonical(self.teacher_objectives):
                    teacher = self._teacher(model, objective, 0 if self.fixed_teacher else repeat)
                    jobs[teacher] = None
                    for student in self.students:
                        jobs |= dict.fromkeys(self._students(teacher, student, repeat))
                        jobs |= dict.fromkeys(self._others(teacher, student, repeat))
        return list(jobs)

    def _teacher(self, model: str, objective: str, repeat: int) -> Job:
        return Job(
            data=self.data,
            model=model,
            objective=objective,
            recipe=self.recipe,
            seed=repeat,
            repeat=repeat,
            threads=self.threads,
            groups=self.groups,
        )

    def _others(self, teacher: Job, student: str, repeat: int) -> list[Job]:
        """Runs of the other methods: students of `teacher`, and those without a teacher, alike for every teacher."""
        if not self.methods:
            return []
        from robustdistill import methods

        runs = []
        for text in self.methods:
            method = methods.get(text)
            alone = replace(
                teacher, model=student, objective="standard", seed=STUDENT_SEED + repeat, repeat=repeat, method=text
            )
            if not method.needs_teacher:
                runs.append(replace(alone, baseline=True))
                continue
            for temperature in self.temperatures if method.uses_temperature else (1.0,):
                runs.append(replace(alone, teacher=teacher, temperature=temperature))
        return runs

    def _students(self, teacher: Job, student: str, repeat: int) -> list[Job]:
        students = []
        for objective in _canonical(self.student_objectives):
            moving = Objective.parse(objective).needs_multipliers
            kinds: Sequence[Literal["one-hot", "teacher"]] = self.validation_labels if moving else ("one-hot",)
            for labels in kinds:
                by_teacher = moving and labels == "teacher"
                students += [
                    replace(
                        teacher,
                        model=student,
                        objective=objective,
                        seed=STUDENT_SEED + repeat,
                        repeat=repeat,
                        teacher=teacher,
                        temperature=temperature,
                        validation_labels=labels,
                        validation_temperature=None if cooler == temperature else cooler,
                    )
                    for temperature in self.temperatures
                    for cooler in (self.validation_temperatures if by_teacher else (None,))
                ]
        return students


def specs(jobs: Sequence[Job], splits: Splits) -> dict[Job, RunSpec]:
    """The spec of each job, and with it the hash that its folder is named after, before anything is trained.

    Args:
        jobs: each student's teacher among them, before it.
        splits: the data of all of them.

    Raises:
        InputError: a model is unknown, or its code cannot be imported; or the data have no groups where these are to
            count, or a group is missing in training or validation.
    """
    import torch

    from robustdistill import methods, models
    from robustdistill.training.distill import facts_of, precision_of
    from robustdistill.training.setup import check_groups, make_spec
    from robustdistill.training.spec import Distillation

    for name in dict.fromkeys(job.model for job in jobs if ":" not in job.model):
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # Without memory: only whether it can be built.
            models.build(name, num_classes=splits.train.num_classes, in_channels=splits.train.channels)
    for groups, method in dict.fromkeys((job.groups, job.method) for job in jobs):
        check_groups(splits.train, splits.val, groups, methods.get(method))
    found: dict[Job, RunSpec] = {}
    for job in jobs:
        distillation = None
        if job.teacher is not None:
            cooler = job.validation_temperature or job.temperature
            distillation = Distillation(
                **facts_of(found[job.teacher]),
                temperature=job.temperature,
                validation_temperature=cooler if job.validation_labels == "teacher" else None,
                teacher_precision=precision_of(splits.train),
            )
        found[job] = make_spec(
            job.model,
            splits.train,
            splits.val,
            objective=Objective.parse(job.objective),
            recipe=job.recipe,
            method=methods.get(job.method),
            seed=job.seed,
            threads=job.threads,
            groups=job.groups,
            validation_labels=job.validation_labels,
            distillation=distillation,
        )
    return found


def _canonical(objectives: Sequence[str]) -> list[str]:
    """Objectives of one meaning once, in the order given."""
    return list(dict.fromkeys(str(Objective.parse(text)) for text in objectives))

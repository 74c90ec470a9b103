"""Which runs make a comparison: teachers of every objective, and the students of each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistill.data.longtail import Profile
from robustdistill.errors import InputError, unknown
from robustdistill.objectives import Objective
from robustdistill.training.recipe import Recipe

# Far enough apart that no student of one repeat shares its seed with a teacher of another.
STUDENT_SEED = 1000


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
    image_column: str | None = None
    label_column: str | None = None
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
        repeat: which repetition of the comparison it belongs to.
        threads: CPU threads.
        teacher: None for a teacher, and for a baseline that needs none.
        temperature: of a student's targets.
        validation_labels: of a student.
        validation_temperature: of teacher-labelled validation.
        baseline: whether it is a model that no student learns from, trained on labels.
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
    validation_labels: str = "one-hot"
    validation_temperature: float | None = None
    baseline: bool = False

    @property
    def name(self) -> str:
        """A folder name that says what the run is; unique within a comparison."""
        what = self.objective if self.method == "margin" else self.method
        role = "student" if self.teacher is not None else "alone" if self.baseline else "teacher"
        parts = [role, self.model, what]
        if self.teacher is not None:
            parts += ["from", self.teacher.objective, f"T{self.temperature:g}"]
            if Objective.parse(self.objective).needs_multipliers:
                parts.append(f"{self.validation_labels}-val")
            if self.validation_temperature not in (None, self.temperature):
                parts.append(f"Tval{self.validation_temperature:g}")
        return re.sub(r"[^\w.=-]", "-", "_".join([*parts, f"r{self.repeat}"]))


@dataclass(frozen=True)
class Comparison:
    """Teachers × students × temperatures × repeats, in the manner of the paper's Table 2: one teacher for each repeat.

    Attributes:
        data: what to train on.
        teacher: teacher model.
        student: student model.
        recipe: for both.
        teacher_objectives: of the teachers.
        student_objectives: of the students.
        validation_labels: for students with multipliers; the others have none to move and are trained once.
        methods: other training methods to compare with; one that needs a teacher makes a student of each teacher,
            another one trains the student's architecture on labels.
        temperatures: of the targets, and of teacher-labelled validation.
        repeats: training seeds 0, 1, ...; split and subset stay fixed.
        threads: CPU threads of each run.

    Raises:
        InputError: an objective, method, temperature or number is none that can be run.
    """

    data: DataSource
    teacher: str
    student: str
    recipe: Recipe
    teacher_objectives: Sequence[str] = ("standard", "balanced", "robust")
    student_objectives: Sequence[str] = ("standard", "balanced", "robust")
    validation_labels: Sequence[str] = ("teacher", "one-hot")
    methods: Sequence[str] = ()
    temperatures: Sequence[float] = (1.0,)
    repeats: int = 3
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("teacher_objectives", "student_objectives"):
            _canonical(getattr(self, name))
        for labels in self.validation_labels:
            if labels not in ("teacher", "one-hot"):
                raise unknown("validation_labels", str(labels), ["teacher", "one-hot"])
        for temperature in self.temperatures:
            if not (math.isfinite(temperature) and temperature > 0):
                raise InputError(f"temperatures must be positive and finite, got {temperature}")
        for name in ("repeats", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.methods:  # Only then: methods import torch.
            from robustdistill import methods

            for text in self.methods:
                methods.get(text)

    def jobs(self) -> list[Job]:
        """Every run once, teachers before their students, one repeat after the other."""
        jobs: dict[Job, None] = {}
        for repeat in range(self.repeats):
            for teacher_objective in _canonical(self.teacher_objectives):
                teacher = Job(
                    data=self.data,
                    model=self.teacher,
                    objective=teacher_objective,
                    recipe=self.recipe,
                    seed=repeat,
                    repeat=repeat,
                    threads=self.threads,
                )
                jobs[teacher] = None
                jobs |= dict.fromkeys(self._students(teacher) + self._others(teacher))
        return list(jobs)

    def _others(self, teacher: Job) -> list[Job]:
        """Runs of the other methods: students of `teacher`, and those without a teacher, alike for every teacher."""
        if not self.methods:
            return []
        from robustdistill import methods

        runs = []
        for text in self.methods:
            method = methods.get(text)
            alone = replace(
                teacher, model=self.student, objective="standard", seed=STUDENT_SEED + teacher.seed, method=text
            )
            if not method.needs_teacher:
                runs.append(replace(alone, baseline=True))
                continue
            for temperature in self.temperatures if method.uses_temperature else (1.0,):
                runs.append(replace(alone, teacher=teacher, temperature=temperature))
        return runs

    def _students(self, teacher: Job) -> list[Job]:
        students = []
        for objective in _canonical(self.student_objectives):
            moving = Objective.parse(objective).needs_multipliers
            for labels in self.validation_labels if moving else ("one-hot",):
                students += [
                    replace(
                        teacher,
                        model=self.student,
                        objective=objective,
                        seed=STUDENT_SEED + teacher.seed,
                        teacher=teacher,
                        temperature=temperature,
                        validation_labels=labels,
                    )
                    for temperature in self.temperatures
                ]
        return students


def _canonical(objectives: Sequence[str]) -> list[str]:
    """Objectives of one meaning once, in the order given."""
    return list(dict.fromkeys(str(Objective.parse(text)) for text in objectives))

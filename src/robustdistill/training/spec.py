"""What a run is: everything that decides its numbers, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from robustdistill.objectives import Objective
from robustdistill.training.recipe import Recipe

SCHEMA = 1

# Objectives of one meaning are one string, so that "tradeoff:1" is the same run as "robust".
ObjectiveName = Annotated[str, AfterValidator(lambda text: str(Objective.parse(text)))]


class DataIdentity(BaseModel):
    """Which examples: the catalogue name and seeds, and fingerprints of what was trained and validated on.

    A data set may add fields of its own, such as the ratio of its long tail. Where the files lie is not among them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "custom"
    split_seed: int | None = None
    subset_seed: int | None = None
    train: str
    val: str


class Distillation(BaseModel):
    """Where a student's targets come from.

    Attributes:
        teacher: hash of the teacher's spec, or of its weights or predictions where it has no spec.
        teacher_model: its name, for reading.
        teacher_objective: its objective, where known.
        teacher_seed: its seed, where known.
        temperature: of the targets.
        validation_temperature: of the teacher's validation labels, where they are used.
        teacher_view: whether the teacher sees the view that the student sees ("same") or the clean picture.
        teacher_weight: w of the targets (1 − w) · one-hot + w · teacher.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str
    teacher_model: str
    teacher_objective: ObjectiveName | None = None
    teacher_seed: int | None = None
    temperature: float
    validation_temperature: float | None = None
    teacher_view: Literal["same", "clean"] = "same"
    teacher_weight: float = 1.0


class RunSpec(BaseModel):
    """Everything that decides a run's numbers: the same spec on the same kind of machine gives the same bits.

    Where data lie, which device index or executor runs it are not in it. Threads are: one and two give different bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    role: Literal["teacher", "student"]
    data: DataIdentity
    model: str
    model_code: str | None = None
    objective: ObjectiveName
    method: str = "margin"
    risk: Literal["zero-one", "cross-entropy"] = "zero-one"
    seed: int
    threads: int
    recipe: Recipe
    validation_labels: Literal["one-hot", "teacher"] = "one-hot"
    scorer: Literal["last", "averaged"] = "last"
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.role == "student") != (self.distillation is not None):
            raise ValueError("a student has a distillation, a teacher has none")
        return self

    @property
    def hash(self) -> str:
        """12 hex digits; equal for equal specs.

        A setting that a later version added does not count while it has its default: older runs keep their hash.
        """
        content = self.model_dump(mode="json")
        if self.distillation is not None and self.distillation.teacher_weight == 1.0:
            del content["distillation"]["teacher_weight"]
        if self.scorer == "last":
            del content["scorer"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

"""What a run is: everything that decides its numbers, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from robustdistill.objectives import Objective
from robustdistill.training.recipe import Recipe

SCHEMA = 1
RECORD = "record.json"  # The file that makes a folder a finished run.
CHECKPOINT = "checkpoint.safetensors"  # The file that a run which was interrupted goes on from.

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
        teacher: hash of the teacher's spec, or of its weights or predictions where it has no spec; of several, a hash
            of theirs, whatever their order.
        teacher_model: its name, for reading.
        teacher_objective: its objective, where known.
        teacher_seed: its seed, where known.
        temperature: of the targets.
        validation_temperature: of the teacher's validation labels, where they are used.
        teacher_view: whether the teacher sees the view that the student sees ("same") or the clean picture.
        teacher_weight: w of the targets (1 − w) · one-hot + w · teacher.
        teacher_precision: of the teacher's logits on augmented views, "float16" as they are stored.
        teacher_top: k, where only the teacher's k largest probabilities are kept and the rest is spread evenly.
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
    teacher_precision: Literal["float16", "float32"] = "float32"
    teacher_top: int | None = None


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
    groups: Literal["class", "group", "class-group"] = "class"
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.role == "student") != (self.distillation is not None):
            raise ValueError("a student has a distillation, a teacher has none")
        return self

    @property
    def hash(self) -> str:
        """12 hex digits; equal for specs that mean the same training.

        What has no influence does not count: the recipe's name, settings of the multipliers where the objective has
        none, drops under a cosine; nor does a setting that a later version added, while it has its default.
        """
        content = self.model_dump(mode="json", exclude={"recipe": {"name"}})
        recipe, distillation = content["recipe"], content["distillation"]
        for name, usual in (("scorer", "last"), ("groups", "class")):
            if content[name] == usual:
                del content[name]
        if distillation is not None:
            for name, default in (("teacher_weight", 1.0), ("teacher_precision", "float32"), ("teacher_top", None)):
                if distillation[name] == default:
                    del distillation[name]
        if recipe["execution"] == "eager":
            del recipe["execution"]
        if recipe["schedule"] == "cosine":
            del recipe["drop"], recipe["milestones"]
        if not Objective.parse(self.objective).needs_multipliers and self.method in ("margin", "weighted"):
            del content["risk"], content["validation_labels"]
            del recipe["step_size"], recipe["decay"], recipe["validation_sample"]
            if self.scorer == "last":
                del recipe["every"]
            if distillation is not None:
                del distillation["validation_temperature"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(old: RunSpec | Mapping[str, Any], new: RunSpec | Mapping[str, Any]) -> str:
    """The fields in which two specs, or parts of dumped ones, differ: "recipe.epochs 30 -> 60, seed 0 -> 1".

    Empty where they agree.
    """
    dumped = [one.model_dump(mode="json") if isinstance(one, RunSpec) else one for one in (old, new)]
    before, after = (flat(values) for values in dumped)
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return ", ".join(f"{name} {before.get(name)} -> {after.get(name)}" for name in names)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under one name each: {"recipe": {"epochs": 3}} -> {"recipe.epochs": 3}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found

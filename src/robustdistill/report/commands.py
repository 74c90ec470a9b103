"""The command that trains one point of a report again, built from its spec, and only where that gives the same spec."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustdistill.data.catalog import CATALOG
from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Group
from robustdistill.training.recipe import RECIPES, Recipe, resolve

# The settings of a recipe that the command line can change.
_CHANGEABLE = (
    *("epochs", "batch_size", "learning_rate", "schedule", "every", "step_size", "decay", "validation_sample"),
    *("precision", "execution"),
)


@dataclass(frozen=True)
class Reproduction:
    """How to get a point again.

    Attributes:
        lines: the commands of its first repeat, in order.
        others: how the other repeats differ, as a sentence; empty where there are none.
        exact: whether the commands are known to give the runs' own specs; else they are those recorded with the runs.
    """

    lines: tuple[str, ...]
    others: str
    exact: bool


def reproduction(group: Group, by_hash: Mapping[str, Record]) -> Reproduction:
    """The commands for a group's first repeat: its teacher's, where its record is at hand, then its own."""
    first = group.records[0]
    lines = []
    teacher = _teacher(first, by_hash)
    if first.spec.distillation is not None:
        lines.append(command(teacher) if teacher is not None else None)
    lines.append(command(first))
    if None in lines:
        recorded = [record.command for record in (teacher, first) if record is not None and record.command]
        return Reproduction(tuple(dict.fromkeys(recorded)), "", exact=False)
    return Reproduction(tuple(line for line in lines if line), _others(group, by_hash), exact=True)


def command(record: Record) -> str | None:
    """`robustdistill train` or `distill` with all that decides the run's numbers; None where no options say it.

    Such are a recipe with settings that have no option, or data that were built in code.
    """
    spec = record.spec
    data, recipe = _data(record), _recipe(spec.recipe, spec.data.name)
    if data is None or recipe is None or spec.model_code is not None:
        return None
    distilled = spec.distillation
    words = ["robustdistill", "train" if distilled is None else "distill"]
    if distilled is None:
        words += data
    else:
        words += ["--teacher", f"runs/{distilled.teacher}", "--temperature", f"{distilled.temperature:g}"]
        words += ["--validation-labels", spec.validation_labels]
        if distilled.validation_temperature not in (None, distilled.temperature):
            words += ["--validation-temperature", f"{distilled.validation_temperature:g}"]
        words += ["--teacher-view", distilled.teacher_view] if distilled.teacher_view != "same" else []
        words += ["--teacher-weight", repr(distilled.teacher_weight)] if distilled.teacher_weight != 1 else []
    words += ["--model", spec.model, "--objective", spec.objective, *recipe]
    words += ["--method", spec.method] if spec.method != "margin" else []
    words += ["--risk", spec.risk] if spec.risk != "zero-one" else []
    words += ["--scorer", spec.scorer] if spec.scorer != "last" else []
    words += ["--groups", spec.groups] if spec.groups != "class" else []
    words += ["--seed", str(spec.seed), "--threads", str(spec.threads), "--out", f"runs/{record.hash}"]
    return shlex.join(words)


def _data(record: Record) -> list[str] | None:
    """The options that load the data; None where the catalogue does not have them or an option is missing."""
    facts: dict[str, Any] = record.spec.data.model_dump(exclude={"train", "val", "subset"}, exclude_none=True)
    name = facts.pop("name")
    if name not in CATALOG and not name.startswith(("npz:", "folder:", "parquet:", "hub:")):
        return None
    words = ["--data", name]
    usual = CATALOG[name].ratio if name in CATALOG else 1.0
    for key in ("split_seed", "subset_seed"):
        seed = facts.pop(key, 0)
        words += [f"--{key.replace('_', '-')}", str(seed)] if seed else []
    ratio = facts.pop("ratio", usual)
    words += ["--ratio", f"{ratio:g}"] if ratio != usual else []
    if (flip := facts.pop("flip", None)) is not None:
        words.append("--flip" if flip else "--no-flip")
    size = facts.pop("image_size", None)
    if size is not None and len(set(size)) != 1:
        return None
    words += ["--image-size", str(size[0])] if size is not None else []
    facts["val"] = facts.pop("val_share", None)
    for key in ("val", "pad", "crops", "image_column", "label_column", "group_column"):
        value = facts.pop(key, None)
        words += [f"--{key.replace('_', '-')}", str(value)] if value is not None else []
    return None if facts else words


def _recipe(recipe: Recipe, data: str) -> list[str] | None:
    """The options that make this recipe of a named one; None where there are none."""
    own = {**recipe.model_dump(), "name": None}
    for name in (None, recipe.name):
        if name is not None and name not in RECIPES:
            continue
        base = resolve(name, data)
        changes = {key: own[key] for key in _CHANGEABLE if own[key] != getattr(base, key)}
        try:
            made = base.with_(**changes)
        except InputError:  # Such as validation_sample None, which no option says, over another schedule.
            continue
        if {**made.model_dump(), "name": None} == own and None not in changes.values():
            options = [] if name is None else ["--recipe", name]
            for key, value in changes.items():
                options += [f"--{key.replace('_', '-')}", str(value)]
            return options
    return None


def _teacher(record: Record, by_hash: Mapping[str, Record]) -> Record | None:
    return by_hash.get(record.spec.distillation.teacher) if record.spec.distillation else None


def _others(group: Group, by_hash: Mapping[str, Record]) -> str:
    rest = group.records[1:]
    if not rest:
        return ""
    parts = []
    for record in rest:
        teacher = _teacher(record, by_hash)
        of = f" of the teacher with --seed {teacher.spec.seed}" if teacher is not None else ""
        parts.append(f"--seed {record.spec.seed}{of}")
    return f"The other repeat{'s' * (len(rest) > 1)}: {'; '.join(parts)}."

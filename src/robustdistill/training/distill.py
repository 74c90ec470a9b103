"""A student trained on a teacher's predictions: `fit` with other targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from robustdistill import models
from robustdistill.data.splits import Examples
from robustdistill.data.stream import augmented
from robustdistill.errors import InputError, unknown
from robustdistill.groups import GroupsChoice
from robustdistill.integrations.tracking import Trackers
from robustdistill.methods import Method
from robustdistill.objectives import Objective
from robustdistill.predictions import Predictions
from robustdistill.risks import RiskLoss
from robustdistill.training.fit import fit
from robustdistill.training.members import TeacherSource
from robustdistill.training.recipe import Recipe
from robustdistill.training.run import Run
from robustdistill.training.spec import Distillation, RunSpec
from robustdistill.training.targets import TeacherTargets, TeacherView, ValidationLabels
from robustdistill.training.views import ViewsChoice, codec

TeacherPrecision = Literal["float16", "float32"]
OneTeacher = Run | nn.Module | str | dict[str, Predictions]
Teacher = OneTeacher | Sequence[OneTeacher]


def distill(
    teacher: Teacher,
    student: models.ModelLike,
    train: Examples,
    val: Examples,
    *,
    objective: Objective | str = "robust",
    temperature: float = 1.0,
    validation_labels: ValidationLabels = "teacher",
    validation_temperature: float | None = None,
    teacher_view: TeacherView | None = None,
    teacher_weight: float = 1.0,
    teacher_precision: TeacherPrecision | None = None,
    teacher_top: int | None = None,
    views: ViewsChoice = None,
    recipe: Recipe | str | None = None,
    seed: int = 0,
    method: str | Method = "margin",
    risk: RiskLoss = "zero-one",
    scorer: Literal["last", "averaged"] = "last",
    groups: GroupsChoice = "class",
    device: str | torch.device | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    trackers: Trackers | str | Sequence[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Run:
    """Trains `student` on softmax(f^t / T) of `teacher` for an objective (Eq. 5-8, Algorithms 1-3).

    Args:
        teacher: a Run, a module, a "module:callable" that returns one with its weights, or tables of predictions
            {"train": ..., "val": ...} of whatever makes them, such as LightGBM or an API. Modules are run in eval mode,
            on the device of the training; their weights and modes are never changed. A list of several is an ensemble:
            the mean of their probabilities at the temperature in use, (1/M) Σ_m softmax(f^m / T), in whatever order
            they come. (Methods with a temperature of their own get the logarithm of that mean at T = 1 as logits.)
        student: as `fit`'s model.
        train: pictures to distil on; they may be unlabelled.
        val: what moves the multipliers, and is scored after each epoch. It may be unlabelled where
            `validation_labels` is "teacher": scores are then agreement with the teacher, and the record says so.
        objective: the student's.
        temperature: T > 0 of the targets. The student's own logits are never tempered.
        validation_labels: "teacher" (Algorithm 1) or "one-hot" (Algorithm 2).
        validation_temperature: of the teacher's validation labels; `temperature` by default.
        teacher_view: "same": the teacher sees each augmented view that the student sees (default); "clean": it saw the
            clean picture once (the default, and the only one, where a teacher is tables).
        teacher_weight: w in [0, 1] of the targets (1 − w) · one-hot + w · teacher; 1 asks for no training labels.
        teacher_precision: of its logits on augmented views: "float16", as they are stored (default), or "float32",
            which asks it at every step. Of clean pictures and of tables they are float32 always.
        teacher_top: keep only its k largest probabilities and spread the rest evenly, for 10,000 classes and more.
        views: where its predictions on augmented views are stored for all its students: a folder, by default one in
            your cache (20 GiB at most for all of them; `cache_folder`), or "off". It changes no number, and is no part
            of the run's identity. Where nothing can be stored by default, a log line says why.
        recipe, seed, method, risk, scorer, groups, device, threads, out, progress, trackers, extra: as in `fit`.

    Returns:
        The student's Run.

    Raises:
        InputError: a temperature is not positive, the teacher's classes do not fit the data, the folder of `views`
            cannot be used, a choice would have no effect, or as in `fit`.
        StaleStoreError: the folder of `views` holds a store that is not what its name says.
        DivergedError: as in `fit`.
    """
    for name, value in (("temperature", temperature), ("validation_temperature", validation_temperature)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive and finite, got {value}")
    if validation_labels not in ("teacher", "one-hot"):
        raise unknown("validation_labels", str(validation_labels), ["teacher", "one-hot"])
    if validation_labels == "one-hot" and validation_temperature is not None:
        raise InputError("validation_temperature has no effect with one-hot validation labels: leave it out")
    if teacher_view not in (None, "same", "clean"):
        raise unknown("teacher_view", str(teacher_view), ["same", "clean"])
    if not 0 <= teacher_weight <= 1:
        raise InputError(f"teacher_weight must lie in [0, 1], got {teacher_weight}")
    sources, facts = _teachers(teacher, train)
    tables = any(isinstance(source, dict) for source in sources)
    if tables and teacher_view == "same":
        raise InputError("teacher_view='same' needs a model: tables hold one prediction per clean picture")
    view = teacher_view or ("clean" if tables else "same")
    possible = precision_of(train) if view == "same" else "float32"
    _check_kept(possible, teacher_precision, teacher_top, views)
    identity = Distillation(
        **facts,
        temperature=temperature,
        validation_temperature=(validation_temperature or temperature) if validation_labels == "teacher" else None,
        teacher_view=view,
        teacher_weight=float(teacher_weight),
        teacher_precision=teacher_precision or possible,
        teacher_top=teacher_top,
    )
    if teacher_top is not None:
        codec(train.num_classes, teacher_top)  # refuses it now rather than when everything is loaded
    return fit(
        student,
        train,
        val,
        objective=objective,
        recipe=recipe,
        seed=seed,
        targets=TeacherTargets(sources, identity, validation_labels, views),
        method=method,
        risk=risk,
        scorer=scorer,
        groups=groups,
        device=device,
        threads=threads,
        out=out,
        progress=progress,
        trackers=trackers,
        extra=extra,
    )


def precision_of(train: Examples) -> TeacherPrecision:
    """Of a module's logits where it sees the student's views: float16 where there is more than one view."""
    return "float16" if augmented(train) else "float32"


def _check_kept(
    possible: TeacherPrecision, precision: TeacherPrecision | None, top: int | None, views: ViewsChoice
) -> None:
    """Refuses choices of how a teacher's predictions are kept that are unknown or would have no effect."""
    if precision not in (None, "float16", "float32"):
        raise unknown("teacher_precision", str(precision), ["float16", "float32"])
    asked = {"teacher_precision": precision == "float16", "teacher_top": top is not None}
    asked["views"] = views not in (None, "off")
    if "float32" in (possible, precision) and any(asked.values()):
        name = next(name for name, given in asked.items() if given)
        why = "its predictions are of clean pictures" if possible == "float32" else "teacher_precision='float32'"
        raise InputError(f"{name} has no effect on this teacher ({why}): leave it out")


def _teachers(teacher: Teacher, train: Examples) -> tuple[list[TeacherSource], dict[str, Any]]:
    """The teachers as modules or tables, and what a spec says of them.

    Several are put in the order of their hashes: sums are rounded in their order, and one spec is to mean one run.
    """
    if isinstance(teacher, str) or not isinstance(teacher, Sequence):
        source, facts = _teacher(teacher, train)
        return [source], facts
    if not teacher:
        raise InputError("teacher must be one teacher or a list of several, got an empty list")
    found = sorted((_teacher(one, train) for one in teacher), key=lambda pair: str(pair[1]["teacher"]))
    hashes = [str(facts["teacher"]) for _, facts in found]
    if twice := next((one for one, after in pairwise(hashes) if one == after), None):
        raise InputError(f"teacher must be a list of different teachers; {twice} is in it twice")
    if len(found) == 1:
        return [found[0][0]], found[0][1]
    objectives = {facts.get("teacher_objective") for _, facts in found}
    return [source for source, _ in found], {
        "teacher": hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12],
        "teacher_model": " + ".join(sorted(str(facts["teacher_model"]) for _, facts in found)),
        "teacher_objective": objectives.pop() if len(objectives) == 1 else None,
    }


def _teacher(teacher: OneTeacher, train: Examples) -> tuple[TeacherSource, dict[str, Any]]:
    """The teacher as a module or tables, and what a spec says of it."""
    if isinstance(teacher, Run):
        if teacher.class_names != train.class_names:
            raise InputError(
                f"the teacher was trained on classes {teacher.class_names}, the data have {train.class_names}"
            )
        return teacher.model, facts_of(teacher.spec)
    if isinstance(teacher, dict):
        if set(teacher) != {"train", "val"} or not all(isinstance(table, Predictions) for table in teacher.values()):
            raise InputError(
                f"teacher tables must be {{'train': Predictions, 'val': Predictions}}, got {sorted(teacher)}"
            )
        return teacher, {"teacher": _table_digest(teacher["train"], teacher["val"]), "teacher_model": "predictions"}
    if isinstance(teacher, str):
        if ":" not in teacher:
            raise InputError(f"teacher {teacher!r} has no weights: pass a Run, a module, 'module:callable' or tables")
        with torch.random.fork_rng():
            module = models.build(teacher, num_classes=train.num_classes, in_channels=train.channels)
    elif isinstance(teacher, nn.Module):
        module = teacher
    else:
        raise InputError(
            "teacher must be a Run, a module, 'module:callable', tables {'train': ..., 'val': ...} or a list of such,"
            f" got {type(teacher).__name__}"
        )
    return module, {"teacher": models.code_version(module), "teacher_model": models.describe(teacher)}


def facts_of(spec: RunSpec) -> dict[str, Any]:
    """What a student's spec says of a teacher that is a run."""
    return {
        "teacher": spec.hash,
        "teacher_model": spec.model,
        "teacher_objective": spec.objective,
        "teacher_seed": spec.seed,
    }


def _table_digest(*tables: Predictions) -> str:
    digest = hashlib.sha256()
    for table in tables:
        digest.update(repr((table.kind, table.class_names, table.scores.dtype, table.ids.tolist())).encode())
        digest.update(table.scores.tobytes())
    return digest.hexdigest()[:12]

"""What has to be right before the first step of `fit`: checks, the spec, the device, the model and its optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustdistill import methods, models
from robustdistill.data.batches import batch_bounds
from robustdistill.data.splits import Examples
from robustdistill.data.stream import Loaded
from robustdistill.errors import InputError, unknown
from robustdistill.groups import Groups, GroupsChoice, joint
from robustdistill.objectives import Objective
from robustdistill.training.evaluate import group_index
from robustdistill.training.recipe import Recipe
from robustdistill.training.spec import DataIdentity, Distillation, RunSpec
from robustdistill.training.targets import Targets, TeacherTargets, ValidationLabels


def check_data(train: Examples, val: Examples) -> None:
    """Refuses splits of other classes, too few examples, or validation labels in which a class is missing."""
    if train.class_names != val.class_names:
        raise InputError(f"train and val must have the same classes, got {train.class_names} and {val.class_names}")
    for split in (train, val):
        if len(split) < 2:
            raise InputError(f"{split.name} must have at least 2 examples, got {len(split)}")
    if val.labels is not None:
        val.require_every_class()


def check_groups(train: Examples, val: Examples, groups: GroupsChoice, method: methods.Method) -> None:
    """Refuses groups that are unknown, have no column or no effect, or that are missing in validation."""
    if groups not in (options := ("class", "group", "class-group")):
        raise unknown("groups", str(groups), options)
    if groups == "class":
        return
    check_takes_groups(method)
    for examples in (train, val):
        examples.require_groups()
    if train.group_names != val.group_names:
        raise InputError(
            f"train and val must have the same group names, got {train.group_names} and {val.group_names}: make the"
            " second by with_groups(values, train.group_names)"
        )
    if groups == "class-group" and (train.labels is None) != (val.labels is None):
        return  # which classes the unlabelled ones are, only a teacher knows
    (here, names), (there, other) = (group_index(examples, groups) for examples in (train, val))
    trained, held = set(names[here].tolist()), set(other[there].tolist())
    for part, own, lacking, theirs in ((train, trained, val, held), (val, held, train, trained)):
        if missing := sorted(own - theirs):
            raise InputError(
                f"{lacking.name} must have every group of {part.name}; it has no example of {missing[0]!r}"
                f"{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}: join groups that are too small"
            )


def check_takes_groups(method: methods.Method) -> None:
    """Refuses a method on which groups have no effect."""
    if not method.uses_costs:
        raise InputError(
            f"groups have no effect on method {method.name!r}, which takes no costs: use margin or weighted"
        )


def make_groups(groups: GroupsChoice, train: Loaded, masses: Tensor, sides: Tensor | None) -> Groups | None:
    """The groups that multipliers are over; None where they are the classes."""
    if groups == "class" or sides is None:
        return None
    examples = train.examples
    counts = None
    if train.labels is not None:
        counts = joint(sides, train.labels, len(examples.group_names), examples.num_classes)
    return Groups(masses, groups, counts=counts, group_names=examples.group_names, class_names=examples.class_names)


def check_settings(
    train: Examples,
    objective: Objective,
    recipe: Recipe,
    method: methods.Method,
    targets: Targets,
    seed: int,
    processes: int = 1,
    **choices: str,
) -> None:
    """Refuses settings that are unknown, contradict one another or would have no effect."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must lie in 0..2**63 - 1, got {seed}")
    for name, options in (("risk", ("zero-one", "cross-entropy")), ("scorer", ("last", "averaged"))):
        if choices[name] not in options:
            raise unknown(name, str(choices[name]), options)
    if not method.uses_costs and objective != Objective("standard", 0.0):
        raise InputError(f"method {method.name!r} has its own objective: leave this at 'standard', got '{objective}'")
    if method.needs_teacher and targets.describe() is None:
        raise InputError(f"method {method.name!r} needs a teacher: use distill")
    if not method.takes_teacher and targets.describe() is not None:
        raise InputError(f"method {method.name} learns from labels alone: use fit")
    if recipe.execution == "compiled" and processes > 1:
        raise InputError(f"recipe setting execution must be 'eager' where {processes} processes train one model")
    if method.needs_labels or method.class_uniform:
        train.require_every_class()
    steps = recipe.epochs * len(batch_bounds(len(train), recipe.batch_size))
    if steps < recipe.every and (objective.needs_multipliers or method.watches_validation):
        raise InputError(
            f"the multipliers would never move: they are updated every {recipe.every} steps, and training has {steps};"
            f" lower every or batch_size (now {recipe.batch_size}), or raise epochs (now {recipe.epochs})"
        )


def make_spec(
    model: models.ModelLike,
    train: Examples,
    val: Examples,
    *,
    objective: Objective | str,
    recipe: Recipe,
    method: methods.Method,
    seed: int,
    threads: int,
    risk: Literal["zero-one", "cross-entropy"] = "zero-one",
    scorer: Literal["last", "averaged"] = "last",
    groups: GroupsChoice = "class",
    validation_labels: ValidationLabels = "one-hot",
    distillation: Distillation | None = None,
) -> RunSpec:
    """The spec of the run that `fit` makes of these arguments; `distillation` makes it a student's."""
    return RunSpec(
        role="teacher" if distillation is None else "student",
        data=DataIdentity(**{**train.source, "train": train.fingerprint, "val": val.fingerprint}),
        model=models.describe(model),
        model_code=models.code_version(model),
        objective=str(objective),
        method=methods.text_of(method),
        risk=risk,
        seed=seed,
        threads=threads,
        recipe=recipe,
        validation_labels=validation_labels,
        scorer=scorer,
        groups=groups,
        distillation=distillation,
    )


@contextmanager
def isolated(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Seeds torch and sets its threads for the block, then puts both back: fits in one process are independent."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def make_model(model: models.ModelLike, train: Loaded) -> nn.Module:
    """The model on the data's device, checked against them.

    Raises:
        InputError: its outputs are not logits of the data's classes, or nothing in it can be trained.
    """
    examples, name = train.examples, f"model {models.describe(model)}"
    module = models.build(model, num_classes=examples.num_classes, in_channels=examples.channels)
    module.to(train.device)
    models.check_outputs(module, train.sample(2).inputs, examples.num_classes, name=name)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lazy parameters have their shape now
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InputError(f"{name} has no parameter that could be trained")
    return module


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD as the recipe says."""
    return torch.optim.SGD(
        module.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )


def method_context(
    method: methods.Method,
    recipe: Recipe,
    priors: Tensor,
    train: Loaded,
    val: Loaded,
    targets: Targets,
) -> methods.Context:
    """What a method may know before the first step."""
    teacher = targets if method.needs_teacher and isinstance(targets, TeacherTargets) else None
    return methods.Context(
        epochs=recipe.epochs,
        class_counts=None if train.labels is None else torch.bincount(train.labels, minlength=len(priors)),
        priors=priors,
        val_labels=val.labels,
        train_labels=train.labels,
        teacher_val=(lambda: teacher.probabilities("val", val)) if teacher else None,
        teacher_train=(lambda: teacher.probabilities("train", train)) if teacher else None,
    )


def group_facts(grouping: Groups | None, train: Loaded, sides: Tensor | None) -> dict[str, Any]:
    """What a record says of groups: their names, and the training examples of each (expected ones without labels)."""
    if grouping is None or sides is None:
        return {}
    masses = grouping.masses
    if train.labels is not None:
        masses = torch.bincount(grouping.index(sides, train.labels), minlength=len(grouping.names))
    counts = [round(mass) for mass in masses.tolist()]
    return {"group_names": list(grouping.names), "group_train_counts": counts}


def train_counts(train: Examples, priors: Tensor) -> list[int]:
    """(C,) training examples of each class; without labels, as many as the targets in use expect."""
    if train.labels is not None:
        return [int(count) for count in train.class_counts]
    return [round(float(prior) * len(train)) for prior in priors]

"""Thousands of classes: what a training step holds beyond the model grows as B·C, what the multipliers hold as C."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import robustdistill as rd
from methods.problems import problem
from robustdistill import methods
from robustdistill.data.splits import Examples
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import class_risks

ROWS = 16
METHODS = [
    *methods.known(),
    "ada-alpha:source=train",
    "ada-margin:scale=2.0",
    "group-dro:validation=true,adjustment=1.0",
]


class Made(TorchDispatchMode):
    """Counts the numbers in the tensors that operations make, all of them and of the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                size = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.total, self.largest = self.total + size, max(self.largest, size)
        return made


def sizes(text: str) -> tuple[int, int]:
    """Two numbers of classes; AdaAlpha's held-out predictions, some for each class, would need gigabytes at 10,000."""
    return (200, 2_000) if text.startswith("ada-alpha") else (1_000, 10_000)


def made_by_a_step(text: str, rows: int, num_classes: int) -> Made:
    """What the method's loss makes, forward and backward."""
    given = problem(rows, num_classes)
    method = given.prepared(text, epoch=0)
    batch, costs = given.batch_for(method), torch.linspace(0.5, 2, num_classes)
    logits = given.logits.requires_grad_()
    with Made() as made:
        method.loss(batch, logits, costs).sum().backward()
    return made


@pytest.mark.parametrize("text", METHODS)
def test_a_step_grows_with_the_classes_and_not_with_their_square(text: str) -> None:
    few, many = sizes(text)
    small, large = made_by_a_step(text, ROWS, few), made_by_a_step(text, ROWS, many)
    assert small.total > ROWS * few  # the counter sees something
    assert large.largest <= ROWS * many
    assert large.total <= 10.1 * small.total


@pytest.mark.parametrize("text", METHODS)
def test_a_step_grows_with_the_batch(text: str) -> None:
    some, twice = (made_by_a_step(text, rows, sizes(text)[0]) for rows in (ROWS, 2 * ROWS))
    assert twice.total <= 2.1 * some.total


@pytest.mark.parametrize("labels", ["one-hot", "teacher"])
def test_multipliers_and_risks_grow_with_the_classes(labels: str) -> None:
    totals = []
    for num_classes in (1_000, 10_000):
        given = problem(2 * num_classes // 1_000, num_classes)
        targets = given.labels if labels == "one-hot" else given.targets
        dro = ClassMultipliers("robust", given.counts + 1)
        risks = class_risks(given.logits, targets)
        with Made() as made:
            dro.update(risks)
            dro.costs  # noqa: B018 (made anew when asked for)
        assert made.largest <= num_classes
        totals.append(made.total)
    assert totals[1] <= 10.1 * totals[0]


@pytest.mark.parametrize("num_classes", [1_000, 5_000])
def test_a_whole_teacher_and_student(num_classes: int) -> None:
    """Eight features say the class; the teacher labels validation, every class of which moves its multiplier."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_classes, 8)).astype(np.float32)
    names = tuple(f"class {index}" for index in range(num_classes))

    def examples(first: int, name: str) -> Examples:
        labels = np.arange(num_classes)
        inputs = centres + 0.01 * rng.standard_normal(centres.shape).astype(np.float32)
        return Examples(inputs, labels, first + labels, names, name=name)

    train, val = examples(0, "train"), examples(num_classes, "val")
    recipe = rd.Recipe(epochs=1, batch_size=num_classes // 4, learning_rate=0.1, every=4)
    settings: dict[str, Any] = {"objective": "robust", "recipe": recipe, "progress": False}
    teacher = rd.fit(lambda: nn.Linear(8, num_classes), train, val, **settings)
    student = rd.distill(
        teacher, lambda: nn.Linear(8, num_classes), train, val, validation_labels="teacher", **settings
    )
    for run in (teacher, student):
        assert run.multipliers.weights.shape == (num_classes,)
        assert float(run.multipliers.weights.sum()) == pytest.approx(1, abs=1e-9)
        assert np.isfinite(run.history[0]["loss"])
    assert rd.evaluate(student, val).per_class.shape == (num_classes,)

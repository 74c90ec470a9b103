from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill import methods
from robustdistill.errors import InputError
from robustdistill.methods.ada_alpha import AdaAlpha, class_alphas

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["validation", "train"])
def test_twin(kind: str, source: str) -> None:
    case = problem(kind=kind)
    context = case.context()
    table, labels = context.teacher_val, context.val_labels
    if source == "train":
        table, labels = context.teacher_train, context.train_labels
    losses = case.prepared(f"ada-alpha:source={source}").loss(case.batch(), case.logits, NONE)
    expected = twins.ada_alpha(case.logits, case.targets, case.labels, twins.alphas(table(), labels))
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-11)


def taught(table: Tensor) -> AdaAlpha:
    case = problem()
    context = case.context()
    method = AdaAlpha()
    method.prepare(replace(context, teacher_val=lambda: table))
    return method


def test_a_perfect_teacher_is_pure_distillation() -> None:
    case = problem()
    labels = case.context().val_labels
    assert labels is not None
    method = taught(torch.eye(5)[labels])
    np.testing.assert_array_equal(method.alpha, np.ones(5))
    losses = method.loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.targets, np.ones(5)), rtol=1e-6)


def test_a_uniform_teacher_is_pure_one_hot() -> None:
    case = problem()
    method = taught(torch.full((15, 5), 0.2))
    np.testing.assert_allclose(method.alpha, np.zeros(5), atol=1e-7)
    losses = method.loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.labels, np.ones(5)), rtol=1e-6)


def test_a_class_that_the_teacher_gets_wrong_is_learnt_from_its_labels() -> None:
    """γ is −1/(C−1) on class 2, which is cut at 0; class 0 is right twice in three: (2/3)·1 + (1/3)·(−1/4)."""
    labels = torch.arange(5).repeat(3)
    answers = labels.clone()
    answers[labels == 2] = 1
    answers[10] = 4
    alpha = class_alphas(torch.eye(5)[answers], labels)
    np.testing.assert_allclose(alpha, [2 / 3 - 1 / 12, 1, 0, 1, 1], rtol=1e-12)


def test_a_class_without_examples_is_refused() -> None:
    with pytest.raises(InputError, match=r"examples of every class to measure; none of \[3, 4\]"):
        class_alphas(torch.full((3, 5), 0.2), torch.tensor([0, 1, 2]))


def test_needs_held_out_predictions_and_labels() -> None:
    context = problem().context()
    for missing in ("teacher_val", "val_labels"):
        with pytest.raises(InputError, match="needs labels and a teacher's predictions on validation"):
            methods.get("ada-alpha").prepare(replace(context, **{missing: None}))
        methods.get("ada-alpha:source=train").prepare(replace(context, **{missing: None}))


@pytest.mark.parametrize("source", ["validation", "train"])
def test_the_teacher_is_asked_for_one_split_only(source: str) -> None:
    context = problem().context()
    unwanted = {"validation": "teacher_train", "train": "teacher_val"}[source]

    def refuse() -> Tensor:
        raise AssertionError("a pass of the teacher that nobody needs")

    methods.get(f"ada-alpha:source={source}").prepare(replace(context, **{unwanted: refuse}))

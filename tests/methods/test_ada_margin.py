from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import reference
from methods import twins
from methods.problems import KINDS, problem

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("scale", [1.0, 0.0, -2.5])
def test_twin(kind: str, num_classes: int, scale: float) -> None:
    case = problem(num_classes=num_classes, kind=kind)
    losses = case.prepared(f"ada-margin:scale={scale}").loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, twins.ada_margin(case.logits, case.targets, scale), rtol=1e-6, atol=1e-11)


def test_near_ties_of_huge_logits() -> None:
    case = problem(rows=20)
    logits = 1e4 + torch.randint(-3, 4, (20, 5), generator=torch.Generator().manual_seed(2)) * 2.0**-10
    losses = case.prepared("ada-margin").loss(case.batch(), logits, NONE)
    np.testing.assert_allclose(losses, twins.ada_margin(logits, case.targets), rtol=1e-6)


def test_without_scale_it_is_plain_distillation() -> None:
    case = problem()
    losses = case.prepared("ada-margin:scale=0").loss(case.batch(), case.logits, NONE)
    expected = reference.weighted_loss(case.logits, case.targets, np.ones(5))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_an_uncertain_teacher_asks_for_no_margin() -> None:
    case = problem()
    case = case.with_(teacher=torch.zeros_like(case.teacher))
    losses = case.prepared("ada-margin").loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.targets, np.ones(5)), rtol=1e-6)


def test_a_certain_teacher_asks_for_a_margin_of_one() -> None:
    """log(1 + (C−1) e^(1 − 2)) where the student leads by 2 and all others are level."""
    case = problem(kind="certain")
    logits = torch.zeros(7, 5).scatter(1, case.labels.unsqueeze(1), 2.0)
    losses = case.prepared("ada-margin").loss(case.batch(), logits, NONE)
    np.testing.assert_allclose(losses, np.full(7, np.log1p(4 * np.exp(-1.0))), rtol=1e-6)


def test_mixed_targets_take_the_place_of_the_teacher() -> None:
    case = problem()
    mixed = 0.3 * torch.nn.functional.one_hot(case.labels, 5) + 0.7 * case.targets
    losses = case.prepared("ada-margin").loss(replace(case.batch(), targets=mixed), case.logits, NONE)
    np.testing.assert_allclose(losses, twins.ada_margin(case.logits, mixed), rtol=1e-6)

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill.methods.balanced_kd import BalancedKd

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(("temperature", "alpha", "beta"), [(2.0, 1.0, 0.9999), (1.0, 0.3, 0.9)])
def test_twin(kind: str, num_classes: int, temperature: float, alpha: float, beta: float) -> None:
    case = problem(num_classes=num_classes, kind=kind)
    method = BalancedKd(temperature, alpha, beta)
    method.prepare(case.context())
    weights = twins.effective_number_weights(case.counts.tolist(), beta)
    expected = twins.balanced_kd(case.logits, case.teacher, case.labels, weights, temperature, alpha)
    losses = method.loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-9)


def test_without_effective_numbers_it_is_plain_distillation() -> None:
    case = problem()
    losses = case.prepared("balanced-kd:beta=0").loss(case.batch(), case.logits, NONE)
    expected = twins.balanced_kd(case.logits, case.teacher, case.labels, np.ones(5))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_deferred_weights_begin_with_plain_distillation() -> None:
    case = problem()
    plain = case.prepared("balanced-kd:beta=0").loss(case.batch(), case.logits, NONE)
    weighted = case.prepared("balanced-kd").loss(case.batch(), case.logits, NONE)
    method = case.prepared("balanced-kd:deferred=0.8")
    for epoch, expected in ((0, plain), (7, plain), (8, weighted), (9, weighted)):
        method.on_epoch(epoch)
        assert torch.equal(method.loss(case.batch(), case.logits, NONE), expected)


def test_a_student_like_its_teacher_pays_for_labels_and_for_rare_classes() -> None:
    case = problem(kind="agreeing")
    cross_entropy = reference.weighted_loss(case.logits, case.labels, np.ones(5))
    alike = case.prepared("balanced-kd:beta=0").loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(alike, cross_entropy, rtol=1e-6)
    assert bool((case.prepared("balanced-kd").loss(case.batch(), case.logits, NONE) > alike).all())

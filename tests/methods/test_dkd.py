from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill.methods import Context
from robustdistill.methods.dkd import Dkd

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (0.5, 0.0, 1.0), (0.0, 2.0, 2.0)])
def test_twin(kind: str, num_classes: int, alpha: float, beta: float, temperature: float) -> None:
    case = problem(num_classes=num_classes, kind=kind)
    method = Dkd(alpha, beta, temperature)
    method.prepare(case.context())
    expected = twins.dkd(case.logits, case.teacher, case.labels, 1.0, alpha, beta, temperature)
    losses = method.loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-9)


def test_the_terms_add_up_to_plain_distillation() -> None:
    """KL = target-class term + (1 − p_y) · term within the rest (the paper's Section 3), with T² and the labels."""
    case = problem(rows=1)
    t = 4.0
    p_y = float(torch.softmax(case.teacher / t, dim=1)[0, case.labels[0]])
    method = Dkd(alpha=1.0, beta=1 - p_y, temperature=t, warmup=0.0)
    method.prepare(case.context())
    expected = twins.balanced_kd(case.logits, case.teacher, case.labels, np.ones(5), t)
    np.testing.assert_allclose(method.loss(case.batch(), case.logits, NONE), expected, rtol=1e-6)


def test_a_student_like_its_teacher_pays_for_labels_only() -> None:
    case = problem(kind="agreeing")
    losses = case.prepared("dkd").loss(case.batch(), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.labels, np.ones(5)), rtol=1e-6)


@pytest.mark.parametrize(("epochs", "warmup", "expected"), [(240, 20 / 240, 20), (10, 0.4, 4), (6, 20 / 240, 1)])
def test_warm_up_over_its_share_of_epochs(epochs: int, warmup: float, expected: int) -> None:
    case = problem()
    method = Dkd(warmup=warmup)
    method.prepare(Context(epochs, case.counts, case.counts / case.counts.sum()))
    for epoch in range(epochs):
        method.on_epoch(epoch)
        assert float(method._strength) == pytest.approx(min((epoch + 1) / expected, 1.0))
    method.on_epoch(0)
    twin = twins.dkd(case.logits, case.teacher, case.labels, 1 / expected)
    np.testing.assert_allclose(method.loss(case.batch(), case.logits, NONE), twin, rtol=1e-6)

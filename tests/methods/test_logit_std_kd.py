from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill.methods.logit_std_kd import LogitStdKd, standardised

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(("temperature", "weight"), [(2.0, 9.0), (0.5, 0.1)])
def test_twin(kind: str, num_classes: int, temperature: float, weight: float) -> None:
    case = problem(num_classes=num_classes, kind=kind)
    losses = LogitStdKd(temperature, weight).loss(case.batch(), case.logits, NONE)
    expected = twins.logit_std_kd(case.logits, case.teacher, case.labels, temperature, weight)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-9)


def test_the_size_of_logits_is_no_matter_of_distillation() -> None:
    case = problem()
    larger = case.with_(teacher=50 * case.teacher + 3)
    method = LogitStdKd()
    ours, theirs = method.loss(case.batch(), case.logits, NONE), method.loss(larger.batch(), case.logits, NONE)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    stretched = method.loss(case.batch(), 2 * case.logits, NONE)
    labels = [reference.weighted_loss(f, case.labels, np.ones(5)) for f in (case.logits, 2 * case.logits)]
    np.testing.assert_allclose(ours.numpy() - labels[0], stretched.numpy() - labels[1], rtol=1e-4, atol=1e-5)


def test_ten_classes_cap_the_teacher_at_the_default_temperature() -> None:
    """What the card says: a lone top class gets e^a/(e^a + 9) with a = √10/2."""
    certain = torch.zeros(1, 10, dtype=torch.float64)
    certain[0, 3] = 1e4
    p = torch.softmax(standardised(certain) / 2, dim=1)
    a = np.exp(np.sqrt(10) / 2)
    assert float(p[0, 3]) == pytest.approx(a / (a + 9))
    assert float(p[0, 3]) == pytest.approx(0.35, abs=0.01)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill.errors import InputError
from robustdistill.losses import margin_loss
from robustdistill.objectives import Objective

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", [1.0, 2.5, 0.0])
@pytest.mark.parametrize("teacher", [False, True])
def test_twin(kind: str, tau: float, teacher: bool) -> None:
    case = problem(kind=kind)
    losses = case.prepared(f"logit-adjustment:tau={tau}").loss(case.batch(teacher=teacher), case.logits, NONE)
    targets = case.targets if teacher else case.labels
    expected = twins.logit_adjustment(case.logits, targets, case.counts, tau)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-11)


def test_on_labels_it_is_the_margin_loss_of_the_balanced_objective() -> None:
    case = problem()
    priors = case.counts / case.counts.sum()
    costs = Objective.parse("balanced").costs(priors, torch.full((5,), 0.2))
    losses = case.prepared("logit-adjustment").loss(case.batch(teacher=False), case.logits, NONE)
    torch.testing.assert_close(losses, margin_loss(case.logits, case.labels, costs))


def test_balanced_data_are_left_alone() -> None:
    case = problem()
    case = case.with_(counts=torch.full((5,), 30))
    losses = case.prepared("logit-adjustment").loss(case.batch(teacher=False), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.labels, np.ones(5)), rtol=1e-6)


def test_priors_count_labels_and_not_targets() -> None:
    case = problem()
    method = case.prepared("logit-adjustment")
    method.prepare(replace(case.context(), priors=torch.full((5,), 0.2)))
    expected = twins.logit_adjustment(case.logits, case.targets, case.counts)
    np.testing.assert_allclose(method.loss(case.batch(), case.logits, NONE), expected, rtol=1e-6)


def test_wants_targets() -> None:
    case = problem()
    with pytest.raises(InputError, match="the batch must carry targets"):
        case.prepared("logit-adjustment").loss(replace(case.batch(), targets=None), case.logits, NONE)

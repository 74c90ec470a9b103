"""The paper's two losses as methods; their values are tested with the losses themselves."""

from __future__ import annotations

import numpy as np
import torch

import reference
from methods.problems import problem
from robustdistill import methods

COSTS = torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0])


def test_margin_has_costs_inside() -> None:
    case = problem()
    losses = methods.get("margin").loss(case.batch(), case.logits, COSTS)
    np.testing.assert_allclose(losses, reference.margin_loss(case.logits, case.targets, COSTS), rtol=1e-6)


def test_weighted_has_costs_outside() -> None:
    case = problem()
    losses = methods.get("weighted").loss(case.batch(), case.logits, COSTS)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.targets, COSTS), rtol=1e-6)

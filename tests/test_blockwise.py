"""The block-by-block margin loss is the plain one; made small here, so that everything goes through several blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from robustdistill import blockwise
from robustdistill.losses import margin_loss
from test_losses import COSTS, LOGITS, TARGETS, LargestTensor, close, costs_of, logits_of, targets_of


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "LARGE", 0)
    monkeypatch.setitem(blockwise._BLOCK, "cpu", 40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("logits", LOGITS)
def test_agrees_with_the_twins(logits: str, costs: str, targets: str, dtype: torch.dtype) -> None:
    f, c = logits_of(logits, 10, 7).to(dtype).requires_grad_(), costs_of(costs, 10, 7)
    p = targets_of(targets, 10, 7)
    result = margin_loss(f, p, c)
    assert result.grad_fn is not None
    result.sum().backward()
    assert result.dtype == torch.float32
    plain = f.detach().double().numpy()
    close(result, reference.margin_loss(plain, p.numpy(), c.numpy()))
    assert f.grad is not None
    assert f.grad.dtype == dtype
    gradient = reference.margin_gradient(plain, p.numpy(), c.numpy())
    close(f.grad, gradient, rtol=1e-6 if dtype is torch.float32 else 8e-3, atol=1.2e-7)


@pytest.mark.parametrize("targets", TARGETS)
def test_weights_of_examples_and_sums_below_one_reach_the_gradient(targets: str) -> None:
    f, p, c = logits_of("ordinary", 9, 7), targets_of(targets, 9, 7), costs_of("wide", 9, 7)
    if p.is_floating_point():
        p = p * 0.5
    weights = torch.rand(9, generator=torch.Generator().manual_seed(0))
    fast, exact = f.clone().requires_grad_(), f.double().requires_grad_()
    (weights * margin_loss(fast, p, c, class_average=True)).sum().backward()
    (weights * margin_loss(exact, p, c, class_average=True)).sum().backward()
    assert exact.grad is not None
    torch.testing.assert_close(fast.grad, exact.grad.float(), rtol=1e-6, atol=1e-7)


def test_what_it_does_not_cover_goes_the_plain_way() -> None:
    f, p, c = logits_of("ordinary", 9, 7), targets_of("sparse", 9, 7), costs_of("wide", 9, 7)
    assert blockwise.applies(f, p, c)
    assert not blockwise.applies(f.double(), p, c)
    assert not blockwise.applies(f, p.clone().requires_grad_(), c)
    costs = c.clone().requires_grad_()
    margin_loss(f, p, costs).sum().backward()
    assert costs.grad is not None
    np.testing.assert_allclose(float((costs.grad * c).sum()), 0, atol=1e-4)  # scaling all costs changes nothing


def test_only_the_gradient_has_the_size_of_the_logits() -> None:
    f = logits_of("ordinary", 64, 7).requires_grad_()
    p, c = targets_of("sparse", 64, 7), costs_of("wide", 64, 7)
    with LargestTensor() as largest:
        result = margin_loss(f, p, c)
    assert largest.elements <= 64
    with LargestTensor() as largest:
        result.sum().backward()
    assert largest.elements == f.numel()

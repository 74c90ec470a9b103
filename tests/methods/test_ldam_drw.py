from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from methods import twins
from methods.problems import KINDS, problem
from robustdistill.methods import Context, ldam_drw
from robustdistill.methods.ldam_drw import LdamDrw

NONE = torch.ones(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"max_margin": 2.0, "scale": 1.0, "beta": 0.99}])
@pytest.mark.parametrize("epoch", [7, 8])
def test_twin(kind: str, settings: dict[str, float], epoch: int) -> None:
    """Of 10 epochs, the first 8 have equal weights."""
    case = problem(kind=kind)
    method = LdamDrw(**settings)
    method.prepare(case.context())
    method.on_epoch(epoch)
    losses = method.loss(case.batch(teacher=False), case.logits, NONE)
    later = twins.effective_number_weights(case.counts.tolist(), settings.pop("beta", 0.9999))
    weights = np.ones(5) if epoch == 7 else later
    expected = twins.ldam(case.logits, case.labels, case.counts, weights, **settings)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-9)


def test_margins_of_cifar_10_lt() -> None:
    """0.5 for 50 examples; n^(-1/4) of 100 times as many is 0.1^(1/2) of that."""
    method = LdamDrw()
    counts = torch.tensor([5000, 500, 50])
    method.prepare(Context(10, counts, counts / counts.sum()))
    np.testing.assert_allclose(method._margins, [0.5 * 0.1**0.5, 0.5 * 0.1**0.25, 0.5], rtol=1e-12)


def test_no_margin_scale_one_and_no_weights_is_cross_entropy() -> None:
    case = problem()
    method = case.prepared("ldam-drw:max_margin=0,scale=1,deferred=1", epoch=9)
    losses = method.loss(case.batch(teacher=False), case.logits, NONE)
    np.testing.assert_allclose(losses, reference.weighted_loss(case.logits, case.labels, np.ones(5)), rtol=1e-6)


@pytest.mark.parametrize(("epochs", "first"), [(200, 160), (60, 48), (15, 12), (3, 3), (1, 1)])
def test_weights_set_in_after_their_share_of_epochs(epochs: int, first: int) -> None:
    method = LdamDrw()
    counts = torch.tensor([500, 5])
    method.prepare(Context(epochs, counts, counts / counts.sum()))
    started = []
    for epoch in range(epochs):
        method.on_epoch(epoch)
        started.append(bool(method._weights[1] > 1))
    assert started == [epoch >= first for epoch in range(epochs)]


def test_a_mean_weight_of_one_in_each_batch() -> None:
    """Weights change which examples count, not the learning rate: equal losses stay what they are."""
    case = problem().with_(logits=torch.zeros(7, 5))
    method = case.prepared("ldam-drw:max_margin=0", epoch=9)
    losses = method.loss(case.batch(teacher=False), case.logits, NONE)
    np.testing.assert_allclose(losses.mean(), np.log(5) / 30, rtol=1e-6)
    assert losses.std() > 0


def test_processes_share_one_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    case = problem(7)
    expected = case.prepared("ldam-drw", epoch=9).loss(case.batch(teacher=False), case.logits, NONE)
    method, sums, parts = case.prepared("ldam-drw", epoch=9), list[Tensor](), [slice(0, 3), slice(3, 7)]
    batches = [replace(case.batch(teacher=False), labels=case.labels[part], targets=None) for part in parts]
    monkeypatch.setattr(ldam_drw, "over_processes", lambda values: sums.append(values) or values)
    for part, batch in zip(parts, batches, strict=True):
        method.loss(batch, case.logits[part], NONE)
    monkeypatch.setattr(ldam_drw, "over_processes", lambda _: sums[0] + sums[1])
    for part, batch in zip(parts, batches, strict=True):
        torch.testing.assert_close(method.loss(batch, case.logits[part], NONE), expected[part])


def test_a_large_scale_is_a_hinge_with_the_margin() -> None:
    """max_j (f_j + Δ_y 1(j ≠ y)) − f_y, within log(C)/scale."""
    case = problem(kind="ordinary")
    method = LdamDrw(scale=1e6)
    method.prepare(case.context())
    losses = method.loss(case.batch(teacher=False), case.logits, NONE)
    for i, y in enumerate(case.labels.tolist()):
        others = max(float(case.logits[i, j]) for j in range(5) if j != y)
        hinge = max(0.0, others + float(method._margins[y]) - float(case.logits[i, y]))
        assert float(losses[i]) == pytest.approx(hinge, abs=1e-5)

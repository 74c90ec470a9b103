from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from methods import twins
from methods.problems import KINDS, Problem, problem
from robustdistill import methods
from robustdistill.errors import InputError
from robustdistill.methods import group_dro
from robustdistill.methods.group_dro import GroupDro
from robustdistill.risks import Risks, class_risks

NONE = torch.ones(1)


def prepared(case: Problem, **settings: object) -> GroupDro:
    method = GroupDro(**settings)  # type: ignore[arg-type]
    method.prepare(case.context())
    return method


def ten_batches(num_classes: int, kind: str = "ordinary") -> list[Problem]:
    """The third has only class 0, the sixth only the last: the other classes are absent."""
    batches = [problem(6, num_classes, kind=kind, seed=seed) for seed in range(10)]
    batches[2] = batches[2].with_(labels=torch.zeros(6, dtype=torch.long))
    batches[5] = batches[5].with_(labels=torch.full((6,), num_classes - 1))
    return batches


def test_one_step_by_hand() -> None:
    """Two groups, logits (0, 0) and (log 3, 0): L = (log 2, log 4). η = 1 turns q = (1/2, 1/2) into (2, 4)/6."""
    case = Problem(
        logits=torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]]),
        teacher=torch.zeros(3, 2),
        labels=torch.tensor([0, 1, 0]),
        counts=torch.tensor([100, 25]),
    )
    method = prepared(case, eta=1.0)
    losses = method.loss(case.batch(teacher=False), case.logits, NONE)
    np.testing.assert_allclose(method.weights, [1 / 3, 2 / 3], rtol=1e-7)
    # B · q_y / n_y · CE: 3 · (1/3)/2 · log 2, and 3 · (2/3)/1 · log 4
    np.testing.assert_allclose(losses, [math.log(2) / 2, 2 * math.log(4), math.log(2) / 2], rtol=1e-6)
    np.testing.assert_allclose(losses.mean(), math.log(2) / 3 + 2 * math.log(4) / 3, rtol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize(("eta", "adjustment"), [(0.01, 0.0), (0.5, 0.0), (0.1, 3.0)])
def test_ten_published_updates(num_classes: int, eta: float, adjustment: float) -> None:
    batches = ten_batches(num_classes)
    method = prepared(batches[0], eta=eta, adjustment=adjustment)
    q = [1 / num_classes] * num_classes
    penalty = [adjustment / math.sqrt(n) for n in batches[0].counts.tolist()]
    for case in batches:
        losses = method.loss(case.batch(teacher=False), case.logits, NONE)
        by_class = twins.class_losses(case.logits, case.labels)
        q = twins.group_dro_weights(q, by_class, eta, penalty)
        np.testing.assert_allclose(method.weights, q, rtol=1e-9)
        np.testing.assert_allclose(losses.sum() / 6, twins.group_dro_loss(q, by_class), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_hard_cases(kind: str) -> None:
    batches = ten_batches(5, kind)
    method, q = prepared(batches[0]), [0.2] * 5
    for case in batches:
        losses = method.loss(case.batch(teacher=False), case.logits, NONE)
        by_class = twins.class_losses(case.logits, case.labels)
        q = twins.group_dro_weights(q, by_class, 0.01, [0.0] * 5)
        np.testing.assert_allclose(losses.sum() / 6, twins.group_dro_loss(q, by_class), rtol=1e-6, atol=1e-11)


def test_a_weight_that_has_vanished_can_come_back() -> None:
    """Class 1's share falls to e^-8000, which no float holds, and rises again when its loss does."""
    case = problem(2, 2).with_(labels=torch.tensor([0, 1]))
    method = prepared(case, eta=1.0)
    bad_on_first = torch.tensor([[0.0, 8000.0], [0.0, 8000.0]])
    method.loss(case.batch(teacher=False), bad_on_first, NONE)
    np.testing.assert_array_equal(method.weights, [1.0, 0.0])
    for _ in range(2):
        method.loss(case.batch(teacher=False), -bad_on_first, NONE)
    np.testing.assert_array_equal(method.weights, [0.0, 1.0])


def test_the_adjustment_moves_q_and_stays_out_of_the_loss() -> None:
    case = problem()
    plain, adjusted = prepared(case, eta=0.0), prepared(case, eta=0.0, adjustment=50.0)
    batch = case.batch(teacher=False)
    assert torch.equal(plain.loss(batch, case.logits, NONE), adjusted.loss(batch, case.logits, NONE))
    adjusted.eta = 0.01
    every_class = problem(5).with_(labels=torch.arange(5), logits=torch.zeros(5, 5))
    adjusted.loss(every_class.batch(teacher=False), every_class.logits, NONE)
    assert adjusted.weights.tolist() == sorted(adjusted.weights.tolist())  # counts fall with the class


def test_q_takes_validation_losses_instead() -> None:
    case, val = problem(), problem(40, seed=3)
    method = prepared(case, eta=0.5, validation=True)
    assert method.watches_validation
    assert not prepared(case).watches_validation
    assert method.validation_risk == "cross-entropy"
    batch = case.batch(teacher=False)
    method.loss(batch, case.logits, NONE)
    np.testing.assert_allclose(method.weights, np.full(5, 0.2), rtol=1e-12)
    method.on_validation(class_risks(val.logits, val.labels, loss="cross-entropy"))
    q = twins.group_dro_weights([0.2] * 5, twins.class_losses(val.logits, val.labels), 0.5, [0.0] * 5)
    np.testing.assert_allclose(method.weights, q, rtol=1e-6)
    losses = method.loss(batch, case.logits, NONE)
    by_class = twins.class_losses(case.logits, case.labels)
    np.testing.assert_allclose(losses.sum() / 7, twins.group_dro_loss(q, by_class), rtol=1e-6)


def test_a_class_missing_from_a_draw_is_not_multiplied() -> None:
    method = prepared(problem(), eta=0.5, validation=True, adjustment=4.0)
    counts = torch.tensor([2.0, 0.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    method.on_validation(Risks(torch.tensor([2.0, 0.0, 0.5, 6.0, 0.0], dtype=torch.float64), counts))
    penalty = [4 / math.sqrt(n) for n in problem().counts.tolist()]
    q = twins.group_dro_weights([0.2] * 5, [1.0, None, 0.5, 2.0, 0.0], 0.5, penalty)
    np.testing.assert_allclose(method.weights, q, rtol=1e-9)


def test_without_the_setting_validation_moves_nothing() -> None:
    method = prepared(problem())
    method.on_validation(Risks(torch.arange(5).double(), torch.ones(5).double()))
    np.testing.assert_allclose(method.weights, np.full(5, 0.2), rtol=1e-12)


def test_batches_are_drawn_class_uniform_unless_asked_otherwise() -> None:
    assert methods.get("group-dro").class_uniform
    assert not methods.get("group-dro:uniform=false").class_uniform


def test_processes_share_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with a part of the batch each, whose totals are added, make the losses and q of one."""
    case = problem(7)
    whole = prepared(case, eta=0.5)
    expected = whole.loss(case.batch(teacher=False), case.logits, NONE)
    parts = [slice(0, None, 2), slice(1, None, 2)]
    totals: list[Tensor] = []
    monkeypatch.setattr(group_dro, "over_processes", lambda values: totals.append(values) or values)
    for part in parts:
        batch = replace(case.batch(teacher=False), labels=case.labels[part], targets=None)
        prepared(case, eta=0.5).loss(batch, case.logits[part], NONE)
    monkeypatch.setattr(group_dro, "over_processes", lambda _: totals[0] + totals[1])
    for part in parts:
        method = prepared(case, eta=0.5)
        batch = replace(case.batch(teacher=False), labels=case.labels[part], targets=None)
        torch.testing.assert_close(method.loss(batch, case.logits[part], NONE), expected[part])
        torch.testing.assert_close(method.weights, whole.weights)


def test_state_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"state must be of 5 classes, got \(3,\)"):
        prepared(problem()).load_state({"log_q": torch.zeros(3)})

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from robustdistill.errors import DivergedError, InputError
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import Risks, class_risks

LOSS_NAMES = ["zero-one", "cross-entropy"]


def problem(rows: int, num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, C), labels (B,), probabilities (B, C) with zeros; float32."""
    generator = torch.Generator().manual_seed(seed)
    f = 4 * torch.randn(rows, num_classes, generator=generator)
    labels = torch.randint(num_classes, (rows,), generator=generator)
    p = torch.rand(rows, num_classes, generator=generator) ** 3
    p[torch.rand(rows, num_classes, generator=generator) < 0.4] = 0.0
    p[torch.arange(rows), labels] += 0.2
    return f, labels, p / p.sum(1, keepdim=True)


def check(risks: Risks, expected: tuple[np.ndarray, np.ndarray], counts_rtol: float = 1e-12) -> None:
    rtol, (sums, counts) = 1e-6, expected
    np.testing.assert_allclose(np.asarray(risks.sums), sums, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(np.asarray(risks.counts), counts, rtol=counts_rtol, atol=1e-12)
    values = [s / n if n >= 1 else math.nan for s, n in zip(sums, counts, strict=True)]
    np.testing.assert_allclose(np.asarray(risks.values), values, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("num_classes", [2, 5, 30])
@pytest.mark.parametrize("soft", [False, True])
def test_agrees_with_the_twin(loss: str, num_classes: int, soft: bool) -> None:
    f, labels, p = problem(60, num_classes)
    targets = p if soft else labels
    check(class_risks(f, targets, loss=loss), reference.class_risks(f.numpy(), targets.numpy(), loss))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_other_precisions(loss: str, dtype: torch.dtype) -> None:
    f, _, p = problem(60, 5)
    f, p = f.to(dtype), p.to(dtype)
    check(class_risks(f, p, loss=loss), reference.class_risks(f.double().numpy(), p.double().numpy(), loss))


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_large_logits(loss: str, offset: float) -> None:
    f, labels, _ = problem(60, 5)
    f = f + offset
    check(class_risks(f, labels, loss=loss), reference.class_risks(f.numpy(), labels.numpy(), loss))
    f = 3000 * (f - offset)
    check(class_risks(f, labels, loss=loss), reference.class_risks(f.numpy(), labels.numpy(), loss))


def test_default_is_the_zero_one_loss() -> None:
    f, labels, _ = problem(40, 4)
    check(class_risks(f, labels), reference.class_risks(f.numpy(), labels.numpy(), "zero-one"))


def test_one_hot_risk_is_the_error_of_the_class() -> None:
    """Eq. 10: the mean loss over the validation examples of the class."""
    f = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [3.0, 1.0, 2.0], [0.0, 0.0, 1.0]])
    risks = class_risks(f, torch.tensor([0, 0, 2, 2]))
    np.testing.assert_array_equal(np.asarray(risks.values), [0.5, math.nan, 0.5])
    np.testing.assert_array_equal(np.asarray(risks.counts), [2, 0, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_classes", [2, 3, 64, 1000])
def test_ties_go_to_the_first_index(num_classes: int, dtype: torch.dtype) -> None:
    labels = torch.arange(num_classes)
    for winner in {0, 1, num_classes // 2, num_classes - 1}:
        f = torch.zeros(num_classes, num_classes, dtype=dtype)
        f[:, winner:] = 1.0  # winner and everything after it are equal
        expected = np.ones(num_classes)
        expected[winner] = 0.0
        np.testing.assert_array_equal(np.asarray(class_risks(f, labels).values), expected)


def test_mass_below_one_example_is_unknown() -> None:
    f = torch.zeros(3, 3)
    p = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])
    risks = class_risks(f, p)
    assert np.isnan(np.asarray(risks.values)).tolist() == [False, True, True]
    np.testing.assert_allclose(np.asarray(risks.counts), [1.2, 0.9, 0.9], rtol=1e-6)


def test_sums_accumulate_in_float64() -> None:
    rows = 400_000
    f = torch.tensor([[1.0, 0.0]]).expand(rows, 2)
    p = torch.tensor([[0.9, 0.1]]).expand(rows, 2)
    risks = class_risks(f, p)
    assert risks.sums.dtype == torch.float64
    assert risks.counts.dtype == torch.float64
    tenth = float(np.float32(0.1))
    np.testing.assert_allclose(np.asarray(risks.sums), [0.0, rows * tenth], rtol=1e-11)
    parts = class_risks(f[:1000], p[:1000])
    total = parts
    for _ in range(399):
        total = total + parts
    np.testing.assert_allclose(np.asarray(total.sums), [0.0, rows * tenth], rtol=1e-11)


@given(cuts=st.lists(st.integers(1, 49), max_size=6, unique=True), seed=st.integers(0, 3), data=st.data())
def test_additive_over_any_partition_into_batches(cuts: list[int], seed: int, data: st.DataObject) -> None:
    f, labels, p = problem(50, 4, seed)
    loss = data.draw(st.sampled_from(LOSS_NAMES))
    targets = data.draw(st.sampled_from([labels, p]))
    order = torch.tensor(data.draw(st.permutations(range(50))))
    edges = [0, *sorted(cuts), 50]
    parts = [class_risks(f[order[a:b]], targets[order[a:b]], loss=loss) for a, b in itertools.pairwise(edges)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    whole = class_risks(f, targets, loss=loss)
    for name in ("sums", "counts", "values"):
        np.testing.assert_allclose(
            np.asarray(getattr(total, name)), np.asarray(getattr(whole, name)), rtol=1e-12, atol=1e-12
        )


def test_adding_leaves_the_parts_alone() -> None:
    f, labels, _ = problem(20, 3)
    first, second = class_risks(f[:10], labels[:10]), class_risks(f[10:], labels[10:])
    before = first.sums.clone(), second.sums.clone()
    _ = first + second
    assert torch.equal(first.sums, before[0])
    assert torch.equal(second.sums, before[1])


def test_empty_batch_adds_nothing() -> None:
    f, labels, _ = problem(20, 3)
    whole = class_risks(f, labels)
    total = whole + class_risks(f[:0], labels[:0])
    assert torch.equal(total.sums, whole.sums)
    assert torch.equal(total.counts, whole.counts)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("soft", [False, True])
def test_groups_agree_with_the_twin(loss: str, soft: bool) -> None:
    f, labels, p = problem(60, 5)
    groups = torch.randint(3, (60,), generator=torch.Generator().manual_seed(9))
    groups[groups == 1] = 3  # group 1 is empty, group 4 too
    targets = p if soft else labels
    risks = class_risks(f, targets, loss=loss, groups=groups, num_groups=5)
    # An example counts once; float32 probabilities add up to one within 1e-7.
    check(risks, reference.group_risks(f.numpy(), targets.numpy(), groups.numpy(), 5, loss), counts_rtol=1e-6)
    assert np.isnan(np.asarray(risks.values)).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_groups_that_are_the_labels_are_classes(loss: str) -> None:
    f, labels, _ = problem(60, 5)
    by_group = class_risks(f, labels, loss=loss, groups=labels, num_groups=5)
    by_class = class_risks(f, labels, loss=loss)
    np.testing.assert_allclose(np.asarray(by_group.sums), np.asarray(by_class.sums), rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(by_group.counts), np.asarray(by_class.counts))


def test_no_gradient_is_kept() -> None:
    f, _, p = problem(20, 3)
    risks = class_risks(f.requires_grad_(), p, loss="cross-entropy")
    assert not risks.sums.requires_grad


def test_a_hundred_thousand_classes() -> None:
    f = torch.randn(4, 100_000, generator=torch.Generator().manual_seed(0))
    labels = f.argmax(1)
    risks = class_risks(f, labels)
    assert float(risks.sums.sum()) == 0.0
    assert float(risks.counts.sum()) == 4.0
    assert torch.isfinite(class_risks(f, torch.softmax(f, 1), loss="cross-entropy").sums).all()


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_logits_that_are_not_numbers_never_pass_for_a_risk(loss: str) -> None:
    f, labels, _ = problem(20, 3)
    f[4, 1] = math.nan
    multipliers = ClassMultipliers("robust", torch.tensor([0.5, 0.3, 0.2]))
    with pytest.raises((InputError, DivergedError)):
        multipliers.update(class_risks(f, labels, loss=loss))


def test_refuses_an_unknown_loss() -> None:
    f, labels, _ = problem(4, 3)
    with pytest.raises(InputError, match="cross-entropy"):
        class_risks(f, labels, loss="cross-entrpy")


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (torch.zeros(5, dtype=torch.int64), ["4, 3", "5"]),
        (torch.full((4, 2), 0.5), ["4, 3", "4, 2"]),
        (torch.full((1, 3), 1 / 3), ["4, 3", "1, 3"]),
        (torch.zeros(4), []),
    ],
)
def test_refuses_targets_that_do_not_fit(targets: torch.Tensor, named: list[str]) -> None:
    with pytest.raises(InputError, match="targets") as caught:
        class_risks(torch.zeros(4, 3), targets)
    for shape in named:
        assert shape in str(caught.value)


def test_refuses_groups_that_do_not_fit() -> None:
    f, labels, _ = problem(4, 3)
    with pytest.raises(InputError, match="groups"):
        class_risks(f, labels, groups=torch.zeros(5, dtype=torch.int64), num_groups=2)


def test_refuses_to_add_other_classes() -> None:
    first, second = class_risks(*problem(8, 3)[:2]), class_risks(*problem(8, 4)[:2])
    with pytest.raises(InputError):
        _ = first + second


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["zero-one", "cross-entropy"])
def test_finite_logits_have_finite_risks(loss: Any, dtype: torch.dtype) -> None:
    """The difference of two of them need not be a number of their dtype."""
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, 0.0], [-largest, largest, 0.0]], dtype=dtype)
    for targets in (torch.tensor([1, 1]), torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])):
        risks = class_risks(logits, targets, loss=loss)
        assert risks.sums.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("loss", ["zero-one", "cross-entropy"])
def test_logits_that_are_not_finite_have_no_risk(loss: Any, bad: float) -> None:
    logits = torch.tensor([[0.0, bad, 1.0]])
    assert class_risks(logits, torch.tensor([0]), loss=loss).sums.isnan().any()
    assert class_risks(logits, torch.tensor([[1.0, 0.0, 0.0]]), loss=loss).sums.isnan().any()

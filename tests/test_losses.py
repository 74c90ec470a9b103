from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reference
from robustdistill import blockwise
from robustdistill.errors import InputError
from robustdistill.losses import margin_loss, weighted_loss
from robustdistill.objectives import Objective

Loss = Callable[..., torch.Tensor]
PAIRS = [pytest.param(margin_loss, reference.margin_loss, id="margin")]
PAIRS += [pytest.param(weighted_loss, reference.weighted_loss, id="weighted")]

# One relative tolerance for every float32 result. The absolute one is the resolution of any float64 log-softmax of
# logits near 1e4 (a few times 1e4 · 2^-53): it only excuses losses that are zero for every purpose.
RTOL, ATOL = 1e-6, 1e-11


def logits_of(kind: str, rows: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    """Float32 logits, hard in one way each."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, num_classes, generator=generator)
    if kind == "ordinary":
        return 3 * normal
    if kind == "confident":  # losses from 1e-8 to 1e2
        return 12 * normal
    if kind == "huge":
        return 1e4 * (2 * torch.rand(rows, num_classes, generator=generator) - 1)
    if kind == "near-ties":  # neighbouring float32 numbers: 2^-10 apart at 1e4
        return 1e4 + 2.0**-10 * torch.randint(-3, 4, (rows, num_classes), generator=generator)
    if kind == "near-ties-below":
        return -1e4 + normal
    if kind == "ties":
        return torch.full((rows, num_classes), 1e4)
    if kind == "split":  # half the classes at +1e4, half at -1e4
        return normal + torch.where(torch.arange(num_classes) % 2 == 0, 1e4, -1e4)
    raise AssertionError(kind)


def costs_of(kind: str, rows: int, num_classes: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "ones":
        return torch.ones(num_classes)
    if kind == "wide":
        return 10 ** (16 * torch.rand(num_classes, generator=generator) - 8)
    if kind == "extremes":
        return torch.where(torch.arange(num_classes) % 2 == 0, 1e-8, 1e8)
    if kind == "per-example":
        return 10 ** (16 * torch.rand(rows, num_classes, generator=generator) - 8)
    raise AssertionError(kind)


def targets_of(kind: str, rows: int, num_classes: int, seed: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (rows,), generator=generator)
    if kind == "labels":
        return labels
    if kind == "one-hot":
        return torch.nn.functional.one_hot(labels, num_classes).float()
    sparse = torch.rand(rows, num_classes, generator=generator) ** 4
    sparse[torch.rand(rows, num_classes, generator=generator) < 0.5] = 0.0
    sparse[torch.arange(rows), labels] += 0.1
    return sparse / sparse.sum(1, keepdim=True)


LOGITS = ["ordinary", "confident", "huge", "near-ties", "near-ties-below", "ties", "split"]
COSTS = ["ones", "wide", "extremes", "per-example"]
TARGETS = ["labels", "one-hot", "sparse"]


def close(
    result: torch.Tensor, expected: np.ndarray, rtol: float = RTOL, atol: float = ATOL, unit: np.ndarray | float = 1.0
) -> None:
    assert torch.isfinite(result).all()
    np.testing.assert_allclose(result.detach().double().numpy() / unit, expected / unit, rtol=rtol, atol=atol)


def unit_of(loss: Loss, targets: torch.Tensor, costs: torch.Tensor, num_classes: int) -> np.ndarray | float:
    """What one unit of cross-entropy adds to the loss: 1, or the example's mean cost where costs are outside."""
    p = reference.as_probabilities(targets.double().numpy(), num_classes)
    return 1.0 if loss is margin_loss else (p * costs.double().numpy()).sum(1)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_agrees_with_the_twin(loss: Loss, twin: Any, logits: str, costs: str, targets: str, num_classes: int) -> None:
    f, c = logits_of(logits, 16, num_classes), costs_of(costs, 16, num_classes)
    p = targets_of(targets, 16, num_classes)
    result = loss(f, p, c)
    assert result.shape == (16,)
    assert result.dtype == torch.float32
    close(result, twin(f.numpy(), p.numpy(), c.numpy()), unit=unit_of(loss, p, c, num_classes))


@pytest.mark.parametrize("targets", ["labels", "sparse"])
@pytest.mark.parametrize("logits", ["confident", "huge", "near-ties"])
@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_agrees_with_the_twin_for_a_thousand_classes(loss: Loss, twin: Any, logits: str, targets: str) -> None:
    rows = 8 if targets == "labels" else 1
    f, c, p = logits_of(logits, rows, 1000), costs_of("wide", rows, 1000), targets_of(targets, rows, 1000)
    if targets == "sparse":
        p[:, 60:] = 0.0  # the twin is quadratic in the classes that carry mass
        p /= p.sum()
    close(loss(f, p, c), twin(f.numpy(), p.numpy(), c.numpy()), unit=unit_of(loss, p, c, 1000))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("targets", ["labels", "sparse"])
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_low_precision_inputs_lose_nothing_more(
    loss: Loss, twin: Any, logits: str, targets: str, dtype: torch.dtype
) -> None:
    """The rounding of the inputs is the caller's; everything after it is at least float32."""
    f, c, p = logits_of(logits, 16, 10).to(dtype), costs_of("wide", 16, 10), targets_of(targets, 16, 10)
    if p.is_floating_point():
        p = p.to(dtype)
    result = loss(f, p, c)
    assert result.dtype == torch.float32
    close(result, twin(f.double().numpy(), p.double().numpy(), c.numpy()), unit=unit_of(loss, p, c, 10))


@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_low_precision_costs(loss: Loss, twin: Any) -> None:
    f, p = logits_of("ordinary", 8, 5), targets_of("labels", 8, 5)
    c = torch.tensor([0.01, 0.3, 1.0, 7.0, 100.0], dtype=torch.float16)
    close(loss(f, p, c), twin(f.numpy(), p.numpy(), c.double().numpy()))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_float64_stays_float64(loss: Loss, twin: Any, logits: str, targets: str) -> None:
    f, c, p = logits_of(logits, 8, 7).double(), costs_of("wide", 8, 7).double(), targets_of(targets, 8, 7)
    if p.is_floating_point():
        p = p.double()
    result = loss(f, p, c)
    assert result.dtype == torch.float64
    close(result, twin(f.numpy(), p.numpy(), c.numpy()), rtol=1e-9, unit=unit_of(loss, p, c, 7))


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_the_logits_decide_the_result_dtype(loss: Loss) -> None:
    f, p, c = logits_of("ordinary", 4, 3), targets_of("sparse", 4, 3), costs_of("wide", 4, 3)
    assert loss(f, p.double(), c).dtype == torch.float32
    assert loss(f, p, c.double()).dtype == torch.float32


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_autocast_changes_nothing(loss: Loss) -> None:
    f, p, c = logits_of("near-ties-below", 8, 10), targets_of("sparse", 8, 10), costs_of("wide", 8, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(f, p, c)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(f, p, c), rtol=0, atol=0)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(("loss", "twin"), PAIRS)
def test_class_average_is_the_papers_factor(loss: Loss, twin: Any, targets: str) -> None:
    f, c, p = logits_of("ordinary", 8, 7), costs_of("wide", 8, 7), targets_of(targets, 8, 7)
    result = loss(f, p, c, class_average=True)
    close(result, twin(f.numpy(), p.numpy(), c.numpy(), class_average=True))
    torch.testing.assert_close(7 * result, loss(f, p, c), rtol=1e-6, atol=0)


def test_hand_computed_values() -> None:
    """Two classes, costs (1, 4), logits (0, 0): class 0 loses log(1 + 1/4), class 1 loses log(1 + 4)."""
    f, c = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([1.0, 4.0], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    close(margin_loss(f, labels, c), np.log([1.25, 5.0]), rtol=1e-14)
    close(weighted_loss(f, labels, c), np.array([1.0, 4.0]) * np.log(2), rtol=1e-14)
    close(margin_loss(f, labels, c, class_average=True), np.log([1.25, 5.0]) / 2, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_labels_are_one_hot_probabilities(loss: Loss, dtype: torch.dtype) -> None:
    f, c, labels = logits_of("ordinary", 8, 5), costs_of("wide", 8, 5), targets_of("labels", 8, 5)
    torch.testing.assert_close(
        loss(f, labels.to(dtype), c), loss(f, targets_of("one-hot", 8, 5), c), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_unit_costs_are_cross_entropy(loss: Loss) -> None:
    f, labels = logits_of("ordinary", 32, 10).double(), targets_of("labels", 32, 10)
    expected = torch.nn.functional.cross_entropy(f, labels, reduction="none")
    torch.testing.assert_close(loss(f, labels, torch.ones(10)), expected, rtol=1e-12, atol=1e-14)


# ---- gradients


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("costs", ["ones", "wide", "per-example"])
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_gradients_agree_with_finite_differences(loss: Loss, costs: str, targets: str) -> None:
    f = logits_of("ordinary", 3, 4).double().requires_grad_()
    c, p = costs_of(costs, 3, 4).double(), targets_of(targets, 3, 4)
    if loss is weighted_loss:
        c = c ** (1 / 8)  # linear in the costs: a cost of 1e8 only scales the finite difference's own error
    if p.is_floating_point():
        p = p.double()
    assert torch.autograd.gradcheck(lambda logits: loss(logits, p, c), (f,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("targets", ["labels", "sparse"])
@pytest.mark.parametrize("logits", LOGITS)
def test_gradients_agree_with_the_twin(logits: str, targets: str, dtype: torch.dtype) -> None:
    f = logits_of(logits, 4, 6).to(dtype).requires_grad_()
    c, p = costs_of("wide", 4, 6), targets_of(targets, 4, 6)
    margin_loss(f, p, c).sum().backward()
    assert f.grad is not None
    assert f.grad.dtype == dtype
    expected = reference.margin_gradient(f.detach().double().numpy(), p.numpy(), c.numpy())
    # A gradient comes back in the dtype of its input, rounded once; its entries are at most 1.
    rounding = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    close(f.grad, expected, rtol=rounding, atol=max(1e-6, 6e-8 if dtype is torch.float16 else 0))


def test_twin_gradient_is_the_derivative_of_the_twin() -> None:
    f, c = logits_of("ordinary", 2, 4).double().numpy(), costs_of("wide", 2, 4).numpy()
    p = targets_of("sparse", 2, 4).numpy()
    gradient, step = reference.margin_gradient(f, p, c), 1e-6
    for k in range(4):
        nudge = np.zeros(4)
        nudge[k] = step
        slope = (reference.margin_loss(f + nudge, p, c) - reference.margin_loss(f - nudge, p, c)) / (2 * step)
        np.testing.assert_allclose(gradient[:, k], slope, atol=1e-8)


# ---- the minimiser


def _calibration_problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    p = torch.softmax(2 * torch.randn(12, 5, generator=generator, dtype=torch.float64), 1)
    return p, 10 ** (4 * torch.rand(5, generator=generator, dtype=torch.float64) - 2)


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
@pytest.mark.parametrize("shift", [0.0, 7.5])
def test_gradient_is_zero_at_the_minimiser(loss: Loss, shift: float) -> None:
    """f_y = log(c_y p_y) + const minimises both surrogates."""
    p, c = _calibration_problem()
    f = ((c * p).log() + shift).requires_grad_()
    loss(f, p, c).sum().backward()
    assert f.grad is not None
    close(f.grad, np.zeros((12, 5)), rtol=0, atol=1e-12 * float(c.max()))


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_nothing_beats_the_minimiser(loss: Loss) -> None:
    p, c = _calibration_problem()
    best = (c * p).log()
    lowest = loss(best, p, c)
    generator = torch.Generator().manual_seed(4)
    for size in (1e-3, 0.1, 1.0, 10.0):
        for _ in range(20):
            other = best + size * torch.randn(12, 5, generator=generator, dtype=torch.float64)
            assert (loss(other, p, c) >= lowest).all()


def test_lemma_5_training_with_the_margin_loss_minimises_the_weighted_objective() -> None:
    """What descent on the margin loss finds is stationary for Σ_y c_y (1/n) Σ_i p_y(x_i) ℓ(y, f)."""
    p, _ = _calibration_problem()
    priors = p.mean(0)
    c = Objective.parse("balanced").costs(priors, torch.full((5,), 0.2, dtype=torch.float64))
    f = torch.zeros(12, 5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [f], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = margin_loss(f, p, c).mean()
        value.backward()
        return value

    optimiser.step(closure)
    found = f.detach()
    expected = c * p / (c * p).sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(found, 1), expected, rtol=0, atol=1e-6)

    # The balanced objective of Eq. 6, summed by hand.
    def balanced(scores: torch.Tensor) -> torch.Tensor:
        per_class = -(p * torch.log_softmax(scores, 1)).mean(0) / priors
        return per_class.mean()

    probe = found.clone().requires_grad_()
    balanced(probe).backward()
    assert probe.grad is not None
    close(probe.grad, np.zeros((12, 5)), rtol=0, atol=1e-6)
    torch.testing.assert_close(weighted_loss(found, p, c).mean(), balanced(found), rtol=1e-12, atol=0)


# ---- invariances

floats = st.floats(-30, 30)
powers = st.floats(-8, 8)


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, C), probabilities (B, C) with zeros, costs (C,) across 1e-8…1e8, in float64."""
    rows, num_classes = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    f = draw(st.lists(floats, min_size=rows * num_classes, max_size=rows * num_classes))
    mass = draw(st.lists(st.integers(0, 5), min_size=rows * num_classes, max_size=rows * num_classes))
    c = draw(st.lists(powers, min_size=num_classes, max_size=num_classes))
    p = torch.tensor(mass, dtype=torch.float64).reshape(rows, num_classes)
    p[:, 0] += 1
    logits = torch.tensor(f, dtype=torch.float64).reshape(rows, num_classes)
    return logits, p / p.sum(1, keepdim=True), 10 ** torch.tensor(c, dtype=torch.float64)


def same(first: torch.Tensor, second: torch.Tensor, scale: float = 1.0) -> None:
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-11 * scale)


@given(problem=problems())
def test_random_problems_agree_with_the_twin(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    f, p, c = problem
    same(margin_loss(f, p, c), torch.tensor(reference.margin_loss(f, p, c)))
    same(weighted_loss(f, p, c), torch.tensor(reference.weighted_loss(f, p, c)), float(c.max()))


@given(problem=problems(), shift=st.floats(-1e4, 1e4))
def test_shifting_an_examples_logits_changes_nothing(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], shift: float
) -> None:
    f, p, c = problem
    # Adding 1e4 to a float64 logit rounds it by 1e-12; that much is the test's own doing.
    same(margin_loss(f + shift, p, c), margin_loss(f, p, c))
    same(weighted_loss(f + shift, p, c), weighted_loss(f, p, c), float(c.max()))


@given(problem=problems(), power=st.floats(-20, 20))
def test_scaling_the_costs_changes_nothing(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], power: float
) -> None:
    f, p, c = problem
    same(margin_loss(f, p, c * 10**power), margin_loss(f, p, c))


@given(problem=problems(), data=st.data())
def test_permuting_the_classes_changes_nothing(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], data: st.DataObject
) -> None:
    f, p, c = problem
    order = data.draw(st.permutations(range(f.shape[1])))
    same(margin_loss(f[:, order], p[:, order], c[order]), margin_loss(f, p, c))
    same(weighted_loss(f[:, order], p[:, order], c[order]), weighted_loss(f, p, c), float(c.max()))


@given(problem=problems())
def test_a_row_of_costs_for_each_example_is_the_same_as_one_for_all(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    f, p, c = problem
    rows = c.expand_as(f)
    same(margin_loss(f, p, rows), margin_loss(f, p, c))
    same(weighted_loss(f, p, rows), weighted_loss(f, p, c), float(c.max()))


@given(problem=problems())
def test_is_never_negative(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    f, p, c = problem
    assert (margin_loss(f, p, c) >= -1e-12).all()


# ---- any finite logits

EXTREME = {
    torch.float64: [1.7e308, 1e300, 3.5e38, 5e-324],
    torch.float32: [3.4e38, 1.7e38, 1e30, 1e-45],
    torch.bfloat16: [3.38e38, 1e30, 1e-40],
    torch.float16: [65504.0, 6e4, 6e-8],
}


@st.composite
def extreme_problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits anywhere in the range of a dtype, costs across 1e-8…1e8, labels or probabilities with zeros."""
    dtype = draw(st.sampled_from(list(EXTREME)))
    rows, num_classes = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    size = rows * num_classes
    largest = torch.finfo(dtype).max
    ends = [sign * value for value in EXTREME[dtype] for sign in (1, -1)]
    value = st.one_of(st.sampled_from([0.0, *ends]), st.floats(-30, 30), st.floats(-largest, largest))
    f = torch.tensor(draw(st.lists(value, min_size=size, max_size=size)), dtype=torch.float64)
    logits = f.clamp(-largest, largest).to(dtype).reshape(rows, num_classes)
    c = draw(st.lists(powers, min_size=num_classes, max_size=num_classes))
    labels = torch.tensor(draw(st.lists(st.integers(0, num_classes - 1), min_size=rows, max_size=rows)))
    if draw(st.booleans()):
        return logits, labels, (10 ** torch.tensor(c)).float()
    mass = draw(st.lists(st.sampled_from([0.0, 0.0, 1e-30, 0.3, 1.0]), min_size=size, max_size=size))
    p = torch.tensor(mass).reshape(rows, num_classes)
    p[torch.arange(rows), labels] += 1
    return logits, p / p.sum(1, keepdim=True), (10 ** torch.tensor(c)).float()


@given(problem=extreme_problems(), loss=st.sampled_from([margin_loss, weighted_loss]), in_blocks=st.booleans())
@settings(max_examples=150)
def test_finite_for_any_finite_logits(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], loss: Loss, in_blocks: bool
) -> None:
    f, p, c = problem
    assert f.isfinite().all()
    f = f.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        if in_blocks:
            patch.setattr(blockwise, "LARGE", 0)
            patch.setitem(blockwise._BLOCK, "cpu", 4)
        losses = loss(f, p, c)
        losses.double().sum().backward()
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert f.grad is not None
    if loss is margin_loss or float(c.max()) < 1e4:  # a weight outside may be more than float16 holds
        assert f.grad.isfinite().all()
    if loss is margin_loss:  # softmax − p
        assert (f.grad.abs() <= 1.0).all()


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_a_loss_beyond_float32_is_the_largest_number(loss: Loss) -> None:
    """The difference of two finite logits need not be a float32."""
    losses = loss(torch.tensor([[3e38, -3e38], [-3e38, 3e38]]), torch.tensor([1, 1]), torch.ones(2))
    assert losses.tolist() == [torch.finfo(torch.float32).max, 0.0]


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("dtype", list(EXTREME))
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_logits_that_are_not_finite_never_make_a_number(
    loss: Loss, bad: float, dtype: torch.dtype, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_blocks:
        monkeypatch.setattr(blockwise, "LARGE", 0)
    logits = torch.zeros(2, 3, dtype=dtype)
    logits[0, 1] = bad
    for targets in (torch.tensor([1, 1]), torch.tensor([[0.2, 0.5, 0.3]] * 2)):
        losses = loss(logits, targets, torch.ones(3))
        assert losses.isfinite().tolist() == [False, True]


@given(problem=problems(), alpha=st.sampled_from([0.0, 0.3, 1.0]))
def test_limits_of_the_trade_off(problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], alpha: float) -> None:
    """α = 0 is Eq. 9 with costs 1/π, α = 1 has costs λ/π, whatever the anchor's 1/C scales."""
    f, p, c = problem
    size = f.shape[1]
    priors, weights = c / c.sum(), torch.arange(1, size + 1, dtype=torch.float64) / (size * (size + 1) / 2)
    loss = margin_loss(f, p, Objective("balanced", alpha).costs(priors, weights))
    costs = {0.0: 1 / priors, 0.3: ((1 - 0.3) / size + 0.3 * weights) / priors, 1.0: weights / priors}[alpha]
    same(loss, torch.tensor(reference.margin_loss(f, p, costs)))


# ---- size and compilation


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("targets", ["labels", "sparse"])
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_a_hundred_thousand_classes_need_no_square_array(loss: Loss, targets: str, per_example: bool) -> None:
    rows, num_classes = 4, 100_000
    f = logits_of("ordinary", rows, num_classes).requires_grad_()
    p = targets_of(targets, rows, num_classes)
    c = costs_of("per-example" if per_example else "wide", rows, num_classes)
    with LargestTensor() as largest:
        result = loss(f, p, c)
        result.mean().backward()
    assert 0 < largest.elements <= rows * num_classes
    assert torch.isfinite(result).all()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


def test_the_measure_of_memory_sees_a_square_array() -> None:
    with LargestTensor() as largest:
        torch.ones(3, 50).unsqueeze(2).mul(torch.ones(3, 1, 50))
    assert largest.elements == 3 * 50 * 50


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_compiles_into_one_graph(loss: Loss, targets: str) -> None:
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    f, c, p = logits_of("ordinary", 8, 5), costs_of("wide", 8, 5), targets_of(targets, 8, 5)
    eager, traced = f.clone().requires_grad_(), f.clone().requires_grad_()
    expected, result = loss(eager, p, c), compiled(traced, p, c)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)
    expected.sum().backward()
    result.sum().backward()
    torch.testing.assert_close(traced.grad, eager.grad, rtol=1e-6, atol=1e-12)


# ---- bad input

BAD = [
    pytest.param((4, 3), (5,), (3,), ["(4,)", "(5,)"], id="labels of another batch"),
    pytest.param((4, 3), (4, 2), (3,), ["4, 3", "4, 2"], id="probabilities of other classes"),
    pytest.param((4, 3), (5, 3), (3,), ["4, 3", "5, 3"], id="probabilities of another batch"),
    pytest.param((4, 3), (4,), (2,), ["4, 3", "2"], id="costs of other classes"),
    pytest.param((4, 3), (4,), (4,), ["4, 3", "4"], id="costs per example without classes"),
    pytest.param((4, 3), (4,), (5, 3), ["4, 3", "5, 3"], id="costs of another batch"),
    pytest.param((4, 3), (4,), (4, 1), ["4, 3", "4, 1"], id="costs that would broadcast"),
    pytest.param((4, 3), (1, 3), (3,), ["4, 3", "1, 3"], id="probabilities that would broadcast"),
    pytest.param((3,), (3,), (3,), ["3"], id="logits without a batch"),
    pytest.param((2, 4, 3), (2,), (3,), ["2, 4, 3"], id="logits with too many axes"),
    pytest.param((4, 3), (4, 3, 1), (3,), ["4, 3", "4, 3, 1"], id="targets with too many axes"),
    pytest.param((4, 3), (4,), (), ["4, 3"], id="a single cost"),
]


@pytest.mark.parametrize(("logits", "targets", "costs", "named"), BAD)
@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_refuses_shapes_that_do_not_fit(
    loss: Loss, logits: tuple[int, ...], targets: tuple[int, ...], costs: tuple[int, ...], named: list[str]
) -> None:
    p = torch.zeros(targets, dtype=torch.int64) if len(targets) == 1 else torch.full(targets, 1 / 3)
    with pytest.raises(InputError) as caught:
        loss(torch.zeros(logits), p, torch.ones(costs))
    for shape in named:
        assert shape in str(caught.value)


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_refuses_dtypes_that_do_not_fit(loss: Loss) -> None:
    f, labels, c = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.ones(3)
    with pytest.raises(InputError, match="logits"):
        loss(f.long(), labels, c)
    with pytest.raises(InputError, match="targets"):
        loss(f, labels.float(), c)
    with pytest.raises(InputError, match="targets"):
        loss(f, torch.zeros(4, 3, dtype=torch.int64), c)


@pytest.mark.parametrize("loss", [margin_loss, weighted_loss])
def test_class_average_is_keyword_only(loss: Loss) -> None:
    with pytest.raises(TypeError):
        loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.ones(3), True)

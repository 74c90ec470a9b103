from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from robustdistill.errors import DivergedError, InputError
from robustdistill.multipliers import ClassMultipliers, exponentiated_gradient
from robustdistill.objectives import Objective
from robustdistill.risks import Risks

PRIORS = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
FLOOR = 1e-8


def simplexes(size: int, lowest: float = 1e-3) -> st.SearchStrategy[list[float]]:
    values = st.lists(st.floats(lowest, 1.0), min_size=size, max_size=size)
    return values.map(lambda v: [x / sum(v) for x in v])


def risks_of(size: int, highest: float = 1.0) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.0, highest), min_size=size, max_size=size)


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def on_the_simplex(weights: torch.Tensor, lowest: float = 0.99 * FLOOR) -> None:
    assert weights.dtype == torch.float64
    assert torch.isfinite(weights).all()
    assert (weights >= lowest).all()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)


# ---- the pure update


@given(data=st.data(), size=st.integers(2, 8), step=st.floats(0, 3), decay=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_agrees_with_the_twin(data: st.DataObject, size: int, step: float, decay: float) -> None:
    weights, risks = data.draw(simplexes(size)), data.draw(risks_of(size))
    result = exponentiated_gradient(tensor(weights), tensor(risks), step, decay=decay)
    on_the_simplex(result)
    np.testing.assert_allclose(
        result.numpy(), reference.exponentiated_gradient(weights, risks, step, decay=decay), rtol=1e-12
    )


def test_hand_computed_values() -> None:
    """Two equal weights, risks 0 and 1, step log 3: the shares become 1 and 3."""
    result = exponentiated_gradient(tensor([0.5, 0.5]), tensor([0.0, 1.0]), math.log(3))
    np.testing.assert_allclose(result.numpy(), [0.25, 0.75], rtol=1e-14)
    decayed = exponentiated_gradient(tensor([0.2, 0.8]), tensor([0.0, 0.0]), 1.0, decay=0.5)
    np.testing.assert_allclose(decayed.numpy(), [1 / 3, 2 / 3], rtol=1e-14)


def test_does_not_change_its_inputs() -> None:
    weights, risks = tensor([0.2, 0.3, 0.5]), tensor([0.1, math.nan, 0.9])
    exponentiated_gradient(weights, risks, 1.0)
    np.testing.assert_array_equal(weights.numpy(), [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(risks.numpy(), [0.1, math.nan, 0.9])


@given(data=st.data(), size=st.integers(3, 8), decay=st.sampled_from([0.0, 0.1]))
def test_a_class_without_risk_keeps_exactly_its_share(data: st.DataObject, size: int, decay: float) -> None:
    weights, risks = tensor(data.draw(simplexes(size))), tensor(data.draw(risks_of(size)))
    missing = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    missing[-2:] = False
    risks[missing] = math.nan
    result = exponentiated_gradient(weights, risks, 0.7, decay=decay)
    on_the_simplex(result)
    assert torch.equal(result[missing], weights[missing])
    expected = reference.exponentiated_gradient(weights, risks, 0.7, decay=decay)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_a_missing_class_keeps_its_share_where_others_reach_the_floor() -> None:
    result = exponentiated_gradient(tensor([0.25, 0.25, 0.25, 0.25]), tensor([0.0, 1.0, math.nan, 0.5]), 1e6)
    on_the_simplex(result)
    assert float(result[2]) == 0.25
    assert float(result[1]) == pytest.approx(0.5 + 0.25, abs=1e-6)


def test_nothing_known_changes_nothing() -> None:
    weights = tensor([0.2, 0.3, 0.5])
    result = exponentiated_gradient(weights, torch.full((3,), math.nan, dtype=torch.float64), 1.0, decay=0.1)
    assert torch.equal(result, weights)


def test_a_single_known_class_has_nowhere_to_move() -> None:
    weights = tensor([0.2, 0.3, 0.5])
    result = exponentiated_gradient(weights, tensor([math.nan, 1.0, math.nan]), 5.0, decay=0.1)
    np.testing.assert_allclose(result.numpy(), weights.numpy(), rtol=1e-14)


@given(data=st.data(), shift=st.floats(-1e3, 1e3))
def test_adding_a_constant_to_all_risks_changes_nothing(data: st.DataObject, shift: float) -> None:
    weights, risks = tensor(data.draw(simplexes(5))), tensor(data.draw(risks_of(5)))
    moved = exponentiated_gradient(weights, risks + shift, 0.9)
    torch.testing.assert_close(moved, exponentiated_gradient(weights, risks, 0.9), rtol=1e-10, atol=0)


@given(data=st.data(), order=st.permutations(range(5)))
def test_permuting_classes_permutes_weights(data: st.DataObject, order: list[int]) -> None:
    weights, risks = tensor(data.draw(simplexes(5))), tensor(data.draw(risks_of(5)))
    moved = exponentiated_gradient(weights[order], risks[order], 0.9, decay=0.05)
    expected = exponentiated_gradient(weights, risks, 0.9, decay=0.05)[order]
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("step", [1e2, 1e6, 1e12])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("size", [2, 10, 1000])
def test_extreme_steps_stay_on_the_simplex(step: float, decay: float, size: int) -> None:
    """One step of 1e6 · 0.1 is as far as a million updates at the paper's step size."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.full((size,), 1 / size, dtype=torch.float64)
    for _ in range(20):
        weights = exponentiated_gradient(weights, torch.rand(size, generator=generator), step, decay=decay)
        on_the_simplex(weights)


# ---- any number of updates, at any step size

STEPS = [0.0, 5e-324, 1e-300, 1e-3, 0.1, 1.0, 2.0, 1e3, 1e16, 1e300, 1.7e308]
RISKS = st.one_of(st.sampled_from([0.0, 1.0, 5e-324, 3.4e38, 1.7e308, math.nan]), st.floats(0, 1), st.floats(0, 1e300))


@given(
    log_weights=st.lists(st.floats(-1e6, 0.0), min_size=2, max_size=9),
    step=st.one_of(st.sampled_from(STEPS), st.floats(0, 1.7e308)),
    decay=st.sampled_from([0.0, 1e-12, 0.03, 0.5, 1 - 2**-53]),
    data=st.data(),
)
@settings(max_examples=300)
def test_from_any_state_one_update_leads_to_the_simplex(
    log_weights: list[float], step: float, decay: float, data: st.DataObject
) -> None:
    """By induction any number of updates stays there: what an update starts from is what one has led to, or `initial`.

    The sum is made anew by each update, so that rounding does not add up; see also the million updates of `make soak`.
    """
    size = len(log_weights)
    dro = ClassMultipliers("robust", [1 / size] * size, step_size=step, decay=decay)
    start = tensor(log_weights).clamp_min(math.log(FLOOR))
    dro._log_weights = start - start.logsumexp(0)
    before = dro.weights
    risks = tensor(data.draw(st.lists(RISKS, min_size=size, max_size=size)))
    counts = torch.where(risks.isnan(), 0.0, 1.0).double()
    dro.update(Risks(risks.nan_to_num(nan=0.0), counts))
    # Classes that share less than they were lifted to are scaled down again where others are not seen.
    on_the_simplex(dro.weights, FLOOR / size)
    assert torch.isfinite(dro.costs).all()
    pure = exponentiated_gradient(before, risks, step, decay=decay)
    torch.testing.assert_close(pure, dro.weights, rtol=1e-9, atol=1e-15)


@given(size=st.integers(2, 6), step=st.floats(1.5, 1e300), data=st.data())
def test_a_huge_step_with_equal_risks_changes_nothing(size: int, step: float, data: st.DataObject) -> None:
    """Their product with the step is far above log λ: it must not swallow it."""
    weights = tensor(data.draw(simplexes(size)))
    moved = exponentiated_gradient(weights, torch.full((size,), 0.7, dtype=torch.float64), step)
    torch.testing.assert_close(moved, weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("risk", [1e5, 1e38, 1.7e308])
@pytest.mark.parametrize("step", [1e-3, 0.1, 1e3])
def test_huge_risks_that_are_equal_change_nothing(risk: float, step: float) -> None:
    weights = tensor([0.2, 0.3, 0.5])
    moved = exponentiated_gradient(weights, tensor([risk] * 3), step)
    torch.testing.assert_close(moved, weights, rtol=1e-12, atol=0)


def test_the_limit_of_huge_steps_is_the_worst_class() -> None:
    for step in (1e3, 1e16, 1.7e308):
        moved = exponentiated_gradient(tensor([0.5, 0.3, 0.2]), tensor([0.1, 0.9, 0.2]), step)
        np.testing.assert_allclose(moved.numpy(), [FLOOR, 1, FLOOR], rtol=1e-6)


@pytest.mark.parametrize("step", [1e-9, 0.1, 1e300])
@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_tens_of_thousands_of_updates(step: float, decay: float) -> None:
    dro = ClassMultipliers("tradeoff:0.7", PRIORS, step_size=step, decay=decay)
    rows = torch.rand(97, 4, generator=torch.Generator().manual_seed(0)).double()
    rows[::7] = tensor([0.0, 1.0, 1.0, 3.4e38])
    given = [Risks(row, torch.ones(4).double()) for row in rows]
    for index in range(10_000):
        dro.update(given[index % 97])
    on_the_simplex(dro.weights)
    assert torch.isfinite(dro.costs).all()


def test_a_vanishing_prior_leaves_costs_finite() -> None:
    """The mean of a sure teacher's float32 softmax can be as small as this."""
    dro = ClassMultipliers("robust", [1.0, 1e-300], step_size=1.0)
    assert torch.isfinite(dro.costs).all()


WEIGHTS, RISK = [0.5, 0.5], [0.1, 0.2]


@pytest.mark.parametrize(
    ("weights", "risks", "arguments", "named"),
    [
        ([-0.5, 1.5], RISK, {}, "weights must be finite, not negative"),
        ([math.nan, 1.0], RISK, {}, "weights must be finite, not negative"),
        ([math.inf, 1.0], RISK, {}, "weights must be finite, not negative"),
        ([0.0, 0.0], RISK, {}, "not all zero"),
        (WEIGHTS, [math.inf, 0.0], {}, "risks must be finite, or NaN"),
        (WEIGHTS, RISK, {"step_size": math.inf}, "step_size must be finite"),
        (WEIGHTS, RISK, {"step_size": -1.0}, "step_size must be finite and not negative"),
        (WEIGHTS, RISK, {"decay": 1.5}, "decay must lie in"),
        (WEIGHTS, RISK, {"floor": 0.0}, "floor must lie in"),
    ],
)
def test_the_pure_update_names_what_it_cannot_use(
    weights: list[float], risks: list[float], arguments: dict[str, float], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        exponentiated_gradient(tensor(weights), tensor(risks), **{"step_size": 0.1, **arguments})


def test_many_updates_stay_on_the_simplex_and_recover() -> None:
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(2000):
        weights = exponentiated_gradient(weights, tensor([0.0, 0.5, 1.0]), 0.5)
    on_the_simplex(weights)
    assert float(weights[2]) > 0.999
    for _ in range(60):
        weights = exponentiated_gradient(weights, tensor([1.0, 0.0, 0.0]), 0.5)
    on_the_simplex(weights)
    assert float(weights[0]) > 0.99  # from a floor of 1e-8: log(1e8)/0.5 = 37 updates, and some


def test_the_floor_is_a_setting() -> None:
    weights, risks = tensor([0.5, 0.5]), tensor([0.0, 1.0])
    for floor in (1e-3, 1e-8, 1e-15):
        lowest = float(exponentiated_gradient(weights, risks, 1e6, floor=floor)[0])
        assert lowest == pytest.approx(floor, rel=0.01)
    free = exponentiated_gradient(weights, risks, 20.0, floor=1e-300)
    np.testing.assert_allclose(free.numpy(), reference.exponentiated_gradient([0.5, 0.5], [0, 1], 20.0), rtol=1e-12)


@pytest.mark.parametrize(("step", "decay"), [(0.1, 0.1), (0.1, 0.03), (0.5, 0.1), (3.0, 0.5), (2.0, 1.0)])
def test_decay_bounds_the_multipliers_for_ever(step: float, decay: float) -> None:
    """log λ_i − log λ_j moves by a factor 1 − decay and at most `step` a time: it stays within step/decay."""
    bound = math.exp(step / decay) * (1 + 1e-9)
    generator = torch.Generator().manual_seed(1)
    weights = torch.full((4,), 0.25, dtype=torch.float64)
    worst = 1.0
    for update in range(600):
        random = torch.rand(4, generator=generator, dtype=torch.float64)
        risks = tensor([0.0, 1.0, 0.5, 1.0]) if update < 400 else random
        weights = exponentiated_gradient(weights, risks, step, decay=decay)
        worst = max(worst, float(weights.max() / weights.min()))
        assert worst <= bound
    assert worst == pytest.approx(math.exp(step / decay), rel=1e-4)  # constant risks reach it: the bound is tight


@given(risks=risks_of(5), start=simplexes(5), step=st.sampled_from([0.1, 0.6]))
def test_fixed_point_of_the_decayed_update(risks: list[float], start: list[float], step: float) -> None:
    """It maximises Σ_y λ_y R_y − (1/τ)·KL(λ ‖ uniform), which softmax(τR) does, with τ = step/decay."""
    decay, weights = 0.2, tensor(start)
    tau = step / decay
    for _ in range(150):
        weights = exponentiated_gradient(weights, tensor(risks), step, decay=decay)
    expected = torch.softmax(tau * tensor(risks), 0)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=0)

    def penalised(point: torch.Tensor) -> float:
        return float(point @ tensor(risks) - (point * (5 * point).log()).sum() / tau)

    generator = torch.Generator().manual_seed(0)
    best = penalised(weights)
    for spread in (0.01, 1.0):
        other = torch.softmax(weights.log() + spread * torch.randn(5, generator=generator, dtype=torch.float64), 0)
        assert penalised(other) <= best + 1e-12


@pytest.mark.parametrize(
    ("game", "mixture", "value"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], [1 / 2, 1 / 2], 1 / 2),
        ([[0.5, 0.0], [0.0, 1.0]], [2 / 3, 1 / 3], 1 / 3),
        ([[1 / 3, 0.0, 0.0], [0.0, 1 / 2, 0.0], [0.0, 0.0, 1.0]], [1 / 2, 1 / 3, 1 / 6], 1 / 6),
    ],
)
def test_converges_to_the_value_of_a_matrix_game(game: list[list[float]], mixture: list[float], value: float) -> None:
    """λ against a learner who answers with the best column: the average λ tends to the maximin mixture."""
    risks, updates, step = tensor(game), 3000, 0.03
    weights = torch.full((len(game),), 1 / len(game), dtype=torch.float64)
    average, learner = torch.zeros_like(weights), torch.zeros(len(game), dtype=torch.float64)
    for _ in range(updates):
        answer = int((weights @ risks).argmin())
        average, learner[answer] = average + weights / updates, learner[answer] + 1 / updates
        weights = exponentiated_gradient(weights, risks[:, answer], step)
    gap = math.log(len(game)) / (step * updates) + step / 8  # the regret of exponentiated gradient per update
    assert float((average @ risks).min()) == pytest.approx(value, abs=gap)
    assert float((risks @ learner).max()) == pytest.approx(value, abs=gap)
    np.testing.assert_allclose(average.numpy(), mixture, atol=0.05)


def test_a_hundred_thousand_classes() -> None:
    size = 100_000
    weights = torch.full((size,), 1 / size, dtype=torch.float64)
    risks = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = exponentiated_gradient(weights, risks, 0.1)
    expected = torch.softmax(0.1 * risks, 0)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=0)
    assert float(result.sum()) == pytest.approx(1.0, abs=1e-13)
    assert torch.equal(risks, torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_a_hundred_thousand_classes_at_the_floor() -> None:
    risks = torch.zeros(100_000, dtype=torch.float64)
    risks[7] = 1.0
    result = exponentiated_gradient(torch.full_like(risks, 1e-5), risks, 1e4)
    expected = torch.full_like(risks, 1e-8)
    expected[7] = 1.0
    torch.testing.assert_close(result, expected / expected.sum(), rtol=1e-12, atol=0)


def test_refuses_lengths_that_differ() -> None:
    with pytest.raises(InputError):
        exponentiated_gradient(tensor([0.5, 0.5]), tensor([0.1, 0.2, 0.3]), 0.1)


# ---- the state around it


def known(values: object, count: float = 10.0) -> Risks:
    """Risks with the given means over `count` examples a class."""
    means = tensor(values)
    return Risks(means * count, torch.full_like(means, count))


def test_starts_uniform() -> None:
    multipliers = ClassMultipliers("robust", PRIORS)
    assert multipliers.objective == Objective.parse("robust")
    np.testing.assert_allclose(np.asarray(multipliers.priors), PRIORS.numpy(), rtol=1e-7)
    np.testing.assert_allclose(multipliers.weights.numpy(), np.full(4, 0.25), rtol=1e-15)
    assert multipliers.costs.dtype == torch.float32
    assert multipliers.costs.shape == (4,)


@pytest.mark.parametrize(
    ("name", "anchor", "robustness"),
    [
        ("standard", "standard", 0.0),
        ("balanced", "balanced", 0.0),
        ("robust", "balanced", 1.0),
        ("tradeoff:0.5", "balanced", 0.5),
        ("standard-tradeoff:0.25", "standard", 0.25),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_follows_the_algorithm(name: str, anchor: str, robustness: float, decay: float) -> None:
    """Algorithm 3: λ by exp(γ·α·R), then β from the updated λ, then costs β/π."""
    multipliers = ClassMultipliers(name, PRIORS, step_size=0.3, decay=decay)
    generator, expected = np.random.default_rng(0), np.full(4, 0.25)
    for _ in range(30):
        risks = generator.random(4)
        multipliers.update(known(risks))
        expected = reference.exponentiated_gradient(expected, risks, 0.3 * robustness, decay=decay)
    np.testing.assert_allclose(multipliers.weights.numpy(), expected, rtol=1e-10)
    beta = reference.class_weights(anchor, robustness, PRIORS, expected)
    np.testing.assert_allclose(np.asarray(multipliers.class_weights), beta, rtol=1e-6)
    costs = reference.costs(anchor, robustness, PRIORS, expected)
    np.testing.assert_allclose(multipliers.costs.numpy(), costs, rtol=1e-6)
    if name == "standard":
        assert (multipliers.costs == 1.0).all()


def test_default_step_is_the_papers() -> None:
    multipliers = ClassMultipliers("robust", PRIORS)
    multipliers.update(known([0.0, 0.0, 0.0, 1.0]))
    assert float(multipliers.weights[3] / multipliers.weights[0]) == pytest.approx(math.exp(0.1), rel=1e-12)


@pytest.mark.parametrize("kind", ["tensor", "float32", "numpy", "list"])
def test_priors_in_any_form(kind: str) -> None:
    forms = {"tensor": PRIORS, "float32": PRIORS.float(), "numpy": PRIORS.numpy(), "list": PRIORS.tolist()}
    multipliers = ClassMultipliers(Objective.parse("balanced"), forms[kind])
    np.testing.assert_allclose(multipliers.costs.numpy(), 1 / (4 * PRIORS.numpy()), rtol=1e-6)


def test_weights_sum_to_one_after_any_risks() -> None:
    multipliers = ClassMultipliers("robust", PRIORS, step_size=1e6)
    generator = np.random.default_rng(0)
    for _ in range(50):
        multipliers.update(known(generator.random(4)))
        on_the_simplex(multipliers.weights)
        assert torch.isfinite(multipliers.costs).all()
        assert (multipliers.costs > 0).all()


def test_a_class_missing_from_a_draw_keeps_exactly_its_share() -> None:
    multipliers = ClassMultipliers("robust", PRIORS, step_size=0.5)
    multipliers.update(known([0.1, 0.2, 0.7, 0.9]))
    before = multipliers.weights.clone()
    sums, counts = tensor([3.0, 0.0, 1.0, 0.2]), tensor([10.0, 0.0, 10.0, 0.5])
    multipliers.update(Risks(sums, counts))  # class 1 is absent, class 3 has less than one example of mass
    after = multipliers.weights
    assert float(after[1]) == float(before[1])
    assert float(after[3]) == float(before[3])
    expected = reference.exponentiated_gradient(before, [0.3, math.nan, 0.1, math.nan], 0.5)
    np.testing.assert_allclose(after.numpy(), expected, rtol=1e-12)
    on_the_simplex(after)


def test_many_draws_without_a_class_leave_its_share() -> None:
    multipliers = ClassMultipliers("robust", PRIORS, step_size=2.0)
    share = float(multipliers.weights[2])
    for _ in range(500):
        multipliers.update(Risks(tensor([0.0, 5.0, 0.0, 10.0]), tensor([10.0, 10.0, 0.0, 10.0])))
    assert float(multipliers.weights[2]) == share
    on_the_simplex(multipliers.weights)


def test_update_refuses_what_diverged() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        multipliers = ClassMultipliers("robust", PRIORS)
        with pytest.raises(DivergedError):
            multipliers.update(Risks(tensor([1.0, bad, 1.0, 1.0]), tensor([10.0] * 4)))
        np.testing.assert_allclose(multipliers.weights.numpy(), np.full(4, 0.25))


def test_update_refuses_another_number_of_classes() -> None:
    with pytest.raises(InputError):
        ClassMultipliers("robust", PRIORS).update(known([0.1, 0.2, 0.3]))


# ---- saving


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    generator = np.random.default_rng(0)
    draws = [known(generator.random(4)) for _ in range(20)]
    through = ClassMultipliers("tradeoff:0.5", PRIORS, step_size=0.4, decay=0.01)
    for draw in draws[:10]:
        through.update(draw)
    stored = io.BytesIO()
    torch.save(through.state_dict(), stored)
    for draw in draws[10:]:
        through.update(draw)
    stored.seek(0)
    resumed = ClassMultipliers("tradeoff:0.5", PRIORS, step_size=0.4, decay=0.01)
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    for draw in draws[10:]:
        resumed.update(draw)
    assert torch.equal(resumed.weights, through.weights)
    assert torch.equal(resumed.costs, through.costs)


def test_a_state_is_a_snapshot() -> None:
    multipliers = ClassMultipliers("robust", PRIORS)
    multipliers.update(known([0.1, 0.2, 0.3, 0.4]))
    state, weights = multipliers.state_dict(), multipliers.weights.clone()
    multipliers.update(known([0.9, 0.2, 0.3, 0.4]))
    multipliers.load_state_dict(state)
    assert torch.equal(multipliers.weights, weights)


def test_equal_meanings_share_their_states() -> None:
    state = ClassMultipliers("robust", PRIORS).state_dict()
    ClassMultipliers("standard-tradeoff:1", PRIORS).load_state_dict(state)


def test_refuses_a_state_of_something_else() -> None:
    saved = ClassMultipliers("robust", PRIORS)
    saved.update(known([0.1, 0.2, 0.3, 0.4]))
    others = {
        "objective": ClassMultipliers("tradeoff:0.5", PRIORS),
        "priors": ClassMultipliers("robust", PRIORS.flip(0)),
        "slightly other priors": ClassMultipliers("robust", tensor([0.6, 0.25, 0.101, 0.049])),
        "length": ClassMultipliers("robust", tensor([0.5, 0.3, 0.2])),
    }
    for name, other in others.items():
        before = other.weights.clone()
        with pytest.raises(InputError):
            other.load_state_dict(saved.state_dict())
        assert torch.equal(other.weights, before), name


# ---- bad input


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf])
def test_refuses_priors_that_are_not_positive(bad: float) -> None:
    priors = tensor([0.5, 0.3, bad, 0.2])
    with pytest.raises(InputError, match=r"priors.*class 2"):
        ClassMultipliers("robust", priors)
    with pytest.raises(InputError, match="ship"):
        ClassMultipliers("robust", priors, class_names=["cat", "dog", "ship", "car"])


@pytest.mark.parametrize("priors", [[1.0, 1e308, 1e308], [1.0, 1e-320, 1e300], [1.0, 6.7e307, 0.125]])
def test_refuses_priors_whose_shares_are_no_numbers(priors: list[float]) -> None:
    with pytest.raises(InputError, match=r"priors are too far apart, or their sum is too large: got \[1"):
        ClassMultipliers("robust", tensor(priors))


def test_refuses_an_unknown_objective() -> None:
    with pytest.raises(InputError, match="robust"):
        ClassMultipliers("rubust", PRIORS)


@pytest.mark.parametrize("settings", [{"step_size": -0.1}, {"step_size": math.nan}, {"decay": -0.1}, {"decay": 1.5}])
def test_refuses_settings_that_mean_nothing(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        ClassMultipliers("robust", PRIORS, **settings)

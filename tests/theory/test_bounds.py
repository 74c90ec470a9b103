"""Each term of the bounds against numbers computed by hand or by loops; that a loose bound holds proves little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from robustdistill.errors import InputError
from robustdistill.theory import (
    FiniteProblem,
    approximation_errors,
    best_tau,
    empirical_loss_variances,
    lemma7,
    loss_variances,
    plan,
    random_table,
    theorem2,
    theorem4,
    theorem8,
)
from theory import reference

TRUTH = FiniteProblem([0.5, 0.5], [[0.8, 0.2], [0.4, 0.6]])  # π = (0.6, 0.4)
TEACHER = np.array([[0.6, 0.4], [0.2, 0.8]])  # π^t = (0.4, 0.6)


def test_approximation_error_by_hand() -> None:
    # Class 0: |1.5 − 4/3|, |0.5 − 2/3|, halved and added; class 1: |2/3 − 0.5|, |4/3 − 1.5|.
    np.testing.assert_allclose(approximation_errors(TRUTH, TEACHER), [1 / 6, 1 / 6])
    # τ = 2: |3 − 4/3|, |1 − 2/3| and |4/3 − 0.5|, |8/3 − 1.5|.
    np.testing.assert_allclose(approximation_errors(TRUTH, TEACHER, 2.0), [1.0, 1.0])
    np.testing.assert_allclose(approximation_errors(TRUTH, TRUTH.posteriors), [0, 0], atol=1e-16)


def test_a_teacher_scaled_by_class_has_no_approximation_error_if_rows_allow_it() -> None:
    """What counts is p/π^t: a teacher c_y η_y is perfect, though it is miscalibrated for every class."""
    masses, truth = [0.25, 0.25, 0.5], [[0.4, 0.2, 0.4], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]]
    scaled = np.array(truth) * [0.5, 0.5, 1.75]
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0)
    np.testing.assert_allclose(approximation_errors(FiniteProblem(masses, truth), scaled), 0, atol=1e-15)


@given(seed=st.integers(0, 1000), tau=st.floats(0, 3))
def test_approximation_error_by_loops(seed: int, tau: float) -> None:
    problem = random_table(9, 4, seed, zeros=0.3)
    teacher = random_table(9, 4, seed + 1).posteriors
    found = approximation_errors(problem, teacher, tau)
    expected = reference.normalised_distance(problem.masses, teacher, problem.posteriors, tau)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found >= abs(tau - 1) - 1e-12).all()


def test_theorem_2_term_by_term() -> None:
    logits = np.log([[0.7, 0.3], [0.4, 0.6]])
    found = theorem2(TRUTH, TEACHER, logits, [3, 1])
    phi = [(0.3 * -math.log(0.7) + 0.1 * -math.log(0.4)) / 0.4, (0.2 * -math.log(0.3) + 0.4 * -math.log(0.6)) / 0.6]
    hat = [(0.45 * -math.log(0.7) + 0.05 * -math.log(0.4)) / 0.5, (0.3 * -math.log(0.3) + 0.2 * -math.log(0.6)) / 0.5]
    true = [(0.4 * -math.log(0.7) + 0.2 * -math.log(0.4)) / 0.6, (0.1 * -math.log(0.3) + 0.3 * -math.log(0.6)) / 0.4]
    np.testing.assert_allclose(found.estimation, np.abs(np.subtract(phi, hat)))
    assert found.distilled == pytest.approx(max(hat))
    assert found.true == pytest.approx(max(true))
    assert found.bound == pytest.approx(-math.log(0.3))
    assert found.total == pytest.approx(-math.log(0.3) / 6 + max(np.abs(np.subtract(phi, hat))))
    assert found.difference <= found.total
    assert theorem2(TRUTH, TEACHER, logits, [3, 1], bound=5.0).bound == 5.0


@given(seed=st.integers(0, 1000))
def test_theorem_2_holds_with_half_the_bound(seed: int) -> None:
    problem, teacher = random_table(9, 4, seed), random_table(9, 4, seed + 1).posteriors
    counts = np.random.default_rng(seed).multinomial(200, problem.masses)
    found = theorem2(problem, teacher, np.random.default_rng(seed).normal(size=(9, 4)), counts)
    assert found.difference <= 0.5 * found.bound * found.approximation.max() + found.estimation.max() + 1e-12


def test_theorem_8_has_tau_where_its_proof_has_it() -> None:
    found = theorem8(
        [0.1, 0.3], bound=2.0, Z=5.0, classes=4, updates=100, tau=0.8, delta_train=0.01, delta_val=0.02, delta=0.1
    )
    assert found.approximation == pytest.approx(2 * 2.0 * 0.3)
    assert found.validation == pytest.approx(2 * 0.02)  # without τ
    assert found.train == pytest.approx(2 * 0.8 * 0.01)  # with it
    assert found.convergence == pytest.approx(4 * 2.0 * 5.0 * math.sqrt(math.log(4) / 100))
    assert found.step_size == pytest.approx(1 / (2 * 2.0 * 5.0) * math.sqrt(math.log(4) / 100))
    assert found.validation_size == math.ceil(8 * 5 * math.log(2 * 4 / 0.1))
    assert found.total == pytest.approx(1.2 + 0.04 + 0.016 + 40 * math.sqrt(math.log(4)) / 10)
    four = theorem4(0.3, bound=2.0, Z=5.0, classes=4, updates=100, delta_train=0.01, delta_val=0.02)
    assert four.train == pytest.approx(0.02)
    assert four.validation_size is None


@given(seed=st.integers(0, 1000), price=st.sampled_from([0.0, 0.05, 0.5, 100.0]))
def test_best_tau_as_a_scalar_minimiser_has_it(seed: int, price: float) -> None:
    problem, teacher = random_table(9, 4, seed), random_table(9, 4, seed + 1).posteriors

    def total(tau: float) -> float:
        worst = max(reference.normalised_distance(problem.masses, teacher, problem.posteriors, tau))
        return 2 * 1.5 * worst + 2 * tau * price

    tau, value = best_tau(problem, teacher, bound=1.5, delta_train=price)
    assert 0 <= tau <= 2
    assert value == pytest.approx(total(tau), abs=1e-12)
    solved = optimize.minimize_scalar(total, bounds=(0, 2), method="bounded", options={"xatol": 1e-12})
    assert value <= min(solved.fun, total(1.0), total(0.0)) + 1e-9


def test_best_tau_of_a_right_teacher_is_1_unless_data_are_scarce() -> None:
    assert best_tau(TRUTH, TRUTH.posteriors)[0] == pytest.approx(1.0)
    tau, value = best_tau(TRUTH, TRUTH.posteriors, bound=1.0, delta_train=10.0)
    assert (tau, value) == (pytest.approx(0.0), pytest.approx(2.0))


def test_a_tau_can_help() -> None:
    problem, teacher = random_table(9, 4, 0), random_table(9, 4, 1).posteriors
    tau, value = best_tau(problem, teacher, bound=0.5)
    assert tau != pytest.approx(1.0, abs=1e-3)
    assert value < approximation_errors(problem, teacher).max() - 1e-3


def test_lemma_7_term_by_term() -> None:
    found = lemma7([0.0, 0.04], Z=2.0, samples=1000, delta=0.1, bound=3.0, log_covering=2.0, constant=0.5)
    complexity = math.log(2 / 0.1) + 2.0
    rest = complexity / 1000 + 3.0 * math.sqrt(math.log(20) / 1000)
    np.testing.assert_allclose(found, [rest, math.sqrt(0.04 * complexity / 1000) + rest])  # constant · Z = 1
    with pytest.raises(InputError, match=f"= {math.ceil(16 * math.log(80))}, got 50"):
        lemma7([0.0, 0.04], Z=2.0, samples=50, delta=0.1, bound=3.0)
    with pytest.raises(InputError, match="variances"):
        lemma7([-1.0, 0.0], Z=2.0, samples=1000, delta=0.1, bound=3.0)


def test_loss_variances_by_enumeration() -> None:
    logits = np.log([[0.7, 0.3], [0.4, 0.6]])
    found = loss_variances(TRUTH, TEACHER, logits)
    losses = -logits
    for y in range(2):
        soft = [TEACHER[x, y] * losses[x, y] for x in range(2)]
        assert found.distilled[y] == pytest.approx(np.var(soft))
        outcomes = [
            (0.5 * TRUTH.posteriors[x, label], losses[x, y] * (label == y)) for x in range(2) for label in range(2)
        ]
        mean = sum(chance * value for chance, value in outcomes)
        assert found.one_hot[y] == pytest.approx(sum(chance * (value - mean) ** 2 for chance, value in outcomes))
    total = [(TEACHER[x] * losses[x]).sum() for x in range(2)]
    assert found.distilled_total == pytest.approx(np.var(total))
    labelled = [(0.5 * TRUTH.posteriors[x, y], losses[x, y]) for x in range(2) for y in range(2)]
    mean = sum(chance * value for chance, value in labelled)
    assert found.one_hot_total == pytest.approx(sum(chance * (value - mean) ** 2 for chance, value in labelled))


@given(seed=st.integers(0, 1000))
def test_appendix_b_holds_for_a_right_teacher(seed: int) -> None:
    problem = random_table(12, 5, seed, zeros=0.3)
    found = loss_variances(problem, problem.posteriors, np.random.default_rng(seed).normal(size=(12, 5)))
    assert (found.distilled <= found.one_hot + 1e-12).all()
    assert found.distilled_total <= found.one_hot_total + 1e-12


def test_appendix_b_fails_for_an_overconfident_teacher() -> None:
    """A teacher that always says class 0, against labels that hardly ever do: its labels vary more than the truth."""
    problem = FiniteProblem([0.5, 0.5], [[0.02, 0.98], [0.01, 0.99]])
    teacher = [[0.99, 0.01], [0.01, 0.99]]
    found = loss_variances(problem, teacher, np.zeros((2, 2)))
    assert found.ratios[0] > 10


def test_empirical_variances_are_those_of_the_sample() -> None:
    problem = random_table(6, 3, 0)
    instances, labels = problem.sample(50_000, 0)
    logits = np.random.default_rng(0).normal(size=(6, 3))
    teacher = random_table(6, 3, 5).posteriors
    found = empirical_loss_variances(teacher[instances], labels, logits[instances])
    expected = loss_variances(problem, teacher, logits)
    np.testing.assert_allclose(found.distilled, expected.distilled, rtol=0.03)
    np.testing.assert_allclose(found.one_hot, expected.one_hot, rtol=0.03)
    assert found.one_hot_total == pytest.approx(expected.one_hot_total, rel=0.03)
    two = empirical_loss_variances([[0.5, 0.5], [0.1, 0.9]], [0, 1], [[0.0, 0.0], [0.0, 0.0]])
    assert two.distilled[0] == pytest.approx((0.4 * math.log(2)) ** 2 / 2)  # n − 1 = 1
    for labels_, logits_ in (([0], [[0.0, 0.0]] * 2), ([0, 2], [[0.0, 0.0]] * 2), ([0, 1], [[np.inf, 0.0]] * 2)):
        with pytest.raises(InputError, match=r"labels|logits"):
            empirical_loss_variances([[0.5, 0.5], [0.1, 0.9]], labels_, logits_)


def test_infinite_losses_are_refused() -> None:
    excluded = np.array([[0.0, -np.inf], [0.0, 0.0]])
    with pytest.raises(InputError, match="infinite"):
        theorem2(TRUTH, TEACHER, excluded, [1, 1])
    with pytest.raises(InputError, match="infinite"):
        loss_variances(TRUTH, TEACHER, excluded)
    with pytest.raises(InputError, match="at least the largest loss"):
        theorem2(TRUTH, TEACHER, np.zeros((2, 2)), [1, 1], bound=0.1)
    with pytest.raises(InputError, match="train must"):
        theorem2(TRUTH, TEACHER, np.zeros((2, 2)), [0, 0])


def test_a_plan_by_hand() -> None:
    found = plan(1.0, 2.0, 10.0, 10, 0.05)
    assert found.updates == math.ceil(math.log(10) * (4 * 2 * 10) ** 2)
    assert found.step_size == pytest.approx(math.sqrt(math.log(10) / found.updates) / 40)
    assert found.validation_size == math.ceil(80 * math.log(400))
    assert found.terms.total <= 1.0
    assert not found.vacuous
    assert plan(2.0, 2.0, 10.0, 10, 0.05).vacuous


@given(
    gap=st.floats(0.01, 10),
    bound=st.floats(0.5, 20),
    excess=st.floats(1, 20),
    classes=st.integers(2, 100),
    approximation=st.floats(0, 0.2),
    delta_train=st.floats(0, 0.1),
    delta_val=st.floats(0, 0.1),
    tau=st.floats(0, 2),
)
def test_a_plan_is_enough_and_one_update_less_is_not(
    gap: float,
    bound: float,
    excess: float,
    classes: int,
    approximation: float,
    delta_train: float,
    delta_val: float,
    tau: float,
) -> None:
    terms = {"approximation": approximation, "delta_train": delta_train, "delta_val": delta_val, "tau": tau}
    fixed = 2 * bound * approximation + 2 * tau * delta_train + 2 * delta_val
    if gap <= fixed * 1.001:
        if gap < fixed * 0.999:
            with pytest.raises(InputError, match="a better teacher or more data is needed"):
                plan(gap, bound, excess * classes, classes, 0.05, **terms)
        return
    found = plan(gap, bound, excess * classes, classes, 0.05, **terms)
    constants = {"bound": bound, "Z": excess * classes, "classes": classes}
    assert theorem8(updates=found.updates, **constants, **terms).total <= gap
    if found.updates > 1:
        assert theorem8(updates=found.updates - 1, **constants, **terms).total > gap - 1e-9


def test_a_plan_hardly_possible_ends_all_the_same() -> None:
    fixed = 2 * 2.0 * 0.1
    found = plan(fixed + 1e-5, 2.0, 2.0, 2, 0.05, approximation=0.1)
    assert found.terms.total <= fixed + 1e-5
    with pytest.raises(InputError, match="would be needed"):
        plan(fixed + 1e-9, 2.0, 10.0, 10, 0.05, approximation=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gap": 0.0}, "gap must be positive"),
        ({"gap": math.nan}, "gap must be positive"),
        ({"bound": 0.0}, "bound"),
        ({"bound": math.inf}, "bound"),
        ({"Z": 9.0}, "class priors sum to 1, so the smallest is at most 1/10"),
        ({"classes": 1}, "classes"),
        ({"delta": 1.0}, "delta"),
        ({"delta": 0.0}, "delta"),
        ({"approximation": -0.1}, "approximation"),
        ({"delta_train": math.inf}, "delta_train"),
        ({"tau": -1.0}, "tau"),
        ({"approximation": 0.5}, "approximation error takes 2 .*together 2"),
    ],
)
def test_an_infeasible_plan_is_refused_with_the_reason(changes: dict[str, float], message: str) -> None:
    settings = {"gap": 1.0, "bound": 2.0, "Z": 10.0, "classes": 10, "delta": 0.05, **changes}
    with pytest.raises(InputError, match=message):
        plan(**settings)  # type: ignore[arg-type]


def test_other_numbers_out_of_range() -> None:
    with pytest.raises(InputError, match="updates"):
        theorem4(0.1, bound=1.0, Z=2.0, classes=2, updates=0)
    with pytest.raises(InputError, match="tau"):
        approximation_errors(TRUTH, TEACHER, -1.0)
    with pytest.raises(InputError, match="bound"):
        best_tau(TRUTH, TEACHER, bound=0.0)

"""The solver against independent ones: SciPy's on another formulation, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from robustdistill.errors import DivergedError, InputError
from robustdistill.objectives import Objective
from robustdistill.theory import FiniteProblem, optimal_scorer, random_table
from theory import reference

OBJECTIVES = ("standard", "balanced", "robust", "tradeoff:0.5", "standard-tradeoff:0.7")


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def scorer_of(problem: FiniteProblem, weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(weights / problem.priors * problem.posteriors)


@pytest.mark.parametrize(("objective", "power"), [("standard", 0), ("balanced", 1)])
def test_standard_and_balanced_scorers_are_closed_forms(objective: str, power: int) -> None:
    problem = random_table(30, 7, seed=1, zeros=0.3)
    found = optimal_scorer(problem, objective)
    expected = problem.posteriors / problem.priors**power
    np.testing.assert_allclose(softmax(found.logits), expected / expected.sum(axis=1, keepdims=True), atol=1e-14)
    assert found.multipliers is None
    assert abs(found.gap) < 1e-14


@pytest.mark.parametrize("classes", [2, 5, 20, 50])
@pytest.mark.parametrize("seed", range(3))
def test_robust_multipliers_equalise_the_risks_as_a_root_finder_has_it(classes: int, seed: int) -> None:
    """At an interior optimum all class risks are equal (reading 11): a system of equations for log λ."""
    problem = random_table(4 * classes, classes, seed, concentration=1.0, imbalance=10.0)
    found = optimal_scorer(problem, "robust")
    assert found.multipliers is not None

    def conditions(logs: np.ndarray) -> np.ndarray:
        weights = np.exp(np.append(logs, 0.0))
        risks = problem.class_risks(scorer_of(problem, weights))
        return risks[:-1] - risks[-1]

    start = np.log(problem.priors[:-1] / problem.priors[-1]) * 0.5
    root = optimize.root(conditions, start, method="hybr", options={"xtol": 1e-14})
    assert np.abs(root.fun).max() < 1e-10
    weights = np.exp(np.append(root.x, 0.0))
    weights /= weights.sum()
    np.testing.assert_allclose(found.multipliers, weights, atol=1e-8, rtol=0)
    np.testing.assert_allclose(softmax(found.logits), softmax(scorer_of(problem, weights)), atol=1e-8)
    value = max(reference.class_risks(problem.masses, problem.posteriors, scorer_of(problem, weights)))
    assert found.value == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("objective", ["robust", "tradeoff:0.5", "tradeoff:0.2", "standard-tradeoff:0.8"])
@pytest.mark.parametrize("seed", range(3))
def test_traded_off_optima_as_a_minimiser_of_the_primal_has_them(objective: str, seed: int) -> None:
    """SLSQP over scorers: minimise (1 − α) average + α t subject to every class risk being at most t."""
    problem = random_table(5, 4, seed, concentration=1.0, imbalance=20.0)
    meaning = Objective.parse(objective)
    anchor = problem.priors if meaning.anchor == "standard" else np.full(4, 0.25)

    def risks(flat: np.ndarray) -> np.ndarray:
        return problem.class_risks(flat[:-1].reshape(5, 4))

    def gradients(flat: np.ndarray) -> np.ndarray:
        chances = softmax(flat[:-1].reshape(5, 4))
        joint = problem.masses[:, None] * problem.class_densities
        by_class = joint[:, :, None] * (chances[:, None, :] - np.eye(4))
        return np.hstack([by_class.transpose(1, 0, 2).reshape(4, -1), np.zeros((4, 1))])

    alpha = meaning.robustness
    unit = np.append(np.zeros(20), 1.0)
    solved = optimize.minimize(
        lambda flat: (1 - alpha) * anchor @ risks(flat) + alpha * flat[-1],
        np.append(np.log(problem.posteriors).ravel(), 3.0),
        jac=lambda flat: (1 - alpha) * anchor @ gradients(flat) + alpha * unit,
        constraints={
            "type": "ineq",
            "fun": lambda flat: flat[-1] - risks(flat),
            "jac": lambda flat: unit - gradients(flat),
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 2000},
    )
    found = optimal_scorer(problem, objective)
    assert found.value == pytest.approx(float(solved.fun), abs=1e-8)
    assert found.value <= solved.fun + 1e-11


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 50),
    zeros=st.sampled_from([0.0, 0.5, 0.95]),
    concentration=st.sampled_from([0.02, 1.0, 50.0]),
    imbalance=st.sampled_from([1.0, 1e6]),
    objective=st.sampled_from(OBJECTIVES),
)
def test_every_optimum_comes_with_a_certificate(
    seed: int, classes: int, zeros: float, concentration: float, imbalance: float, objective: str
) -> None:
    problem = random_table(classes * 2, classes, seed, zeros=zeros, concentration=concentration, imbalance=imbalance)
    found = optimal_scorer(problem, objective)
    assert abs(found.gap) < 1e-11
    # The certificate again, from the definitions: the value by loops, the dual by the scorer's weighted risks.
    risks = reference.class_risks(problem.masses, problem.posteriors, found.logits)
    assert found.value == pytest.approx(found_value(risks, problem, objective), abs=1e-11)
    assert found.dual == pytest.approx(float(found.class_weights @ risks), abs=1e-11)
    assert found.class_weights.sum() == pytest.approx(1.0, abs=1e-12)


def found_value(risks: list[float], problem: FiniteProblem, objective: str) -> float:
    meaning = Objective.parse(objective)
    average = np.dot(problem.priors, risks) if meaning.anchor == "standard" else np.mean(risks)
    return float((1 - meaning.robustness) * average + meaning.robustness * max(risks))


@given(seed=st.integers(0, 10_000))
def test_no_other_scorer_is_better(seed: int) -> None:
    problem = random_table(8, 4, seed, zeros=0.2)
    noise = np.random.default_rng(seed).normal(size=(8, 4))
    for objective in OBJECTIVES:
        found = optimal_scorer(problem, objective)
        for size in (1e-3, 0.1, 1.0):
            assert problem.risk(found.logits + size * noise, objective) >= found.dual - 1e-13


def test_distilled_optima_are_those_of_the_teachers_problem() -> None:
    problem = random_table(20, 5, seed=3)
    teacher = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    distilled = problem.distilled(teacher)
    found = optimal_scorer(distilled, "robust")
    assert np.ptp(found.class_risks) < 1e-11
    expected = found.class_weights / (problem.masses @ teacher) * teacher
    np.testing.assert_allclose(softmax(found.logits), expected / expected.sum(axis=1, keepdims=True), atol=1e-13)


def test_a_right_teacher_gives_the_one_hot_optimum() -> None:
    problem = random_table(20, 5, seed=4)
    ours = optimal_scorer(problem, "robust")
    theirs = optimal_scorer(problem.distilled(problem.posteriors), "robust")
    np.testing.assert_allclose(softmax(ours.logits), softmax(theirs.logits), atol=1e-10)


def test_the_tradeoff_is_flat_near_the_robust_end() -> None:
    problem = random_table(40, 4, seed=5, concentration=1.0)
    robust = optimal_scorer(problem, "robust")
    assert robust.multipliers is not None
    edge = 1 - 4 * robust.multipliers.min()
    inside = optimal_scorer(problem, f"tradeoff:{(1 + edge) / 2}")
    np.testing.assert_allclose(softmax(inside.logits), softmax(robust.logits), atol=1e-8)
    outside = optimal_scorer(problem, f"tradeoff:{0.9 * edge}")
    assert np.abs(softmax(outside.logits) - softmax(robust.logits)).max() > 1e-6


def test_a_multiplier_of_zero_at_the_optimum() -> None:
    """Two blocks that never meet: the easier one has no say, and its scorer is defined all the same."""
    problem = FiniteProblem(
        np.full(4, 0.25), [[0.5, 0.5, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0.95, 0.05], [0, 0, 0.05, 0.95]]
    )
    found = optimal_scorer(problem, "robust")
    assert found.multipliers is not None
    assert (found.multipliers[2:] < 1e-9).all()
    assert (found.multipliers > 0).all()
    assert np.isfinite(found.class_risks).all()
    hard = optimal_scorer(FiniteProblem([0.5, 0.5], [[0.5, 0.5], [0.4, 0.6]]), "robust")
    assert found.value == pytest.approx(hard.value, abs=1e-12)


def test_certain_labels_have_no_risk() -> None:
    found = optimal_scorer(FiniteProblem(np.full(3, 1 / 3), np.eye(3)), "robust")
    assert found.value == 0.0
    assert found.gap == 0.0


@pytest.mark.parametrize("coupling", [1e-3, 1e-8, 1e-100, 1e-300])
def test_blocks_that_hardly_meet(coupling: float) -> None:
    rows = np.array([[0.5, 0.5, 0, 0], [0.4, 0.6, 0, coupling], [0, 0, 0.9, 0.1], [coupling, 0, 0.8, 0.2]])
    problem = FiniteProblem(np.full(4, 0.25), rows / rows.sum(axis=1, keepdims=True))
    for objective in ("robust", "tradeoff:0.999"):
        assert abs(optimal_scorer(problem, objective).gap) < 1e-12


def test_permuting_classes_permutes_the_optimum() -> None:
    problem, order = random_table(15, 6, seed=6), np.array([3, 1, 5, 0, 2, 4])
    ours = optimal_scorer(problem, "tradeoff:0.6")
    theirs = optimal_scorer(FiniteProblem(problem.masses, problem.posteriors[:, order]), "tradeoff:0.6")
    assert ours.multipliers is not None
    np.testing.assert_allclose(theirs.multipliers, ours.multipliers[order], atol=1e-9)


def test_the_value_of_two_symmetric_classes_is_known() -> None:
    problem = FiniteProblem([0.5, 0.5], [[0.8, 0.2], [0.2, 0.8]])
    found = optimal_scorer(problem, "robust")
    assert found.value == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)), abs=1e-14)
    np.testing.assert_allclose(found.multipliers, [0.5, 0.5], atol=1e-9)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_table(5, 3, 0, imbalance=10.0)
    with pytest.raises(InputError, match="tolerance"):
        optimal_scorer(problem, "robust", tolerance=0)
    monkeypatch.setattr("robustdistill.theory.optimal.maximise", lambda dual: np.full(3, 1 / 3))
    with pytest.raises(DivergedError, match="gap is"):
        optimal_scorer(problem, "robust")

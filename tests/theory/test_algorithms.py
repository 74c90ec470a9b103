from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.errors import InputError
from robustdistill.theory import FiniteProblem, lemma5, optimal_scorer, random_table, tabular_run
from robustdistill.theory.convergence import convergence
from theory import reference

PROBLEM = random_table(12, 4, seed=0, zeros=0.2)
TEACHER = np.random.default_rng(1).dirichlet(np.ones(4), size=12)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    centred = logits - logits.max(axis=1, keepdims=True)
    return centred - np.log(np.exp(centred).sum(axis=1, keepdims=True))


@given(seed=st.integers(0, 1000))
def test_lemma_5_minimises_the_margin_loss_and_every_weighted_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    teacher, costs = rng.dirichlet(np.ones(3), size=5), rng.uniform(0.1, 3, size=3)
    best = lemma5(teacher, costs)
    other = best + rng.normal(size=best.shape) * rng.choice([0.01, 1.0])
    for logits in (best - np.log(costs), other - np.log(costs)):  # the margin loss is softmax of f − log c
        assert (-(teacher * log_softmax(logits)).sum(1) >= -(teacher * np.log(teacher)).sum(1) - 1e-12).all()
    np.testing.assert_allclose(
        -(teacher * log_softmax(best - np.log(costs))).sum(1), -(teacher * np.log(teacher)).sum(1), atol=1e-12
    )
    weighted = [-(costs * teacher * log_softmax(logits)).sum(axis=1) for logits in (best, other)]
    assert (weighted[0] <= weighted[1] + 1e-12).all()


@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        ("robust", "teacher"),
        ("robust", "one-hot"),
        ("tradeoff:0.4", "teacher"),
        ("standard-tradeoff:0.7", "one-hot"),
    ],
)
def test_every_iterate_is_that_of_the_paper(objective: str, labels: str) -> None:
    joint = PROBLEM.masses[:, None] * (TEACHER if labels == "teacher" else PROBLEM.posteriors)
    alpha = float(objective.partition(":")[2] or 1.0)
    marginals = PROBLEM.masses @ TEACHER
    anchor = marginals if objective.startswith("standard") else np.full(4, 0.25)
    multipliers, scorers = reference.algorithm(
        PROBLEM.masses, TEACHER, joint, alpha=alpha, anchor=anchor, gamma=0.3, updates=7
    )
    run = tabular_run(
        PROBLEM,
        TEACHER,
        objective,
        updates=7,
        step_size=0.3,
        validation_labels=labels,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(run.multipliers, multipliers, rtol=1e-12)
    for k in range(1, 8):
        np.testing.assert_allclose(run.iterate(k), scorers[k - 1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(run.class_weights, (1 - alpha) * anchor + alpha * run.multipliers[1:])


def test_proposition_3_is_the_mean_of_the_iterates() -> None:
    run = tabular_run(PROBLEM, TEACHER, updates=9, step_size=0.5)
    for k in (1, 4, 9):
        mean = np.mean([run.iterate(i) for i in range(1, k + 1)], axis=0)
        np.testing.assert_allclose(log_softmax(run.averaged(k)), log_softmax(mean), atol=1e-12)
    by_hand = np.prod(run.multipliers[1:] / (PROBLEM.masses @ TEACHER), axis=0) ** (1 / 9)
    np.testing.assert_allclose(run.averaged_costs(), by_hand, rtol=1e-12)
    np.testing.assert_array_equal(run.iterate(0), np.zeros((12, 4)))


def test_samples_take_the_place_of_the_population() -> None:
    train, validation = (PROBLEM.counts(*PROBLEM.sample(60, seed)) for seed in (1, 2))
    run = tabular_run(
        PROBLEM, TEACHER, updates=3, step_size=0.2, validation_labels="one-hot", train=train, validation=validation
    )
    marginals = train.sum(axis=1) / 60 @ TEACHER
    np.testing.assert_allclose(run.costs, run.multipliers[1:] / marginals)
    by_hand = [
        np.mean(
            [reference.softmax_loss(run.iterate(1)[x].tolist(), y) for x in range(12) for _ in range(validation[x, y])]
        )
        for y in range(4)
    ]
    np.testing.assert_allclose(run.risks[1], by_hand)
    weights = validation.sum(axis=1)
    labelled = tabular_run(PROBLEM, TEACHER, updates=1, step_size=0.2, validation=weights, start=TEACHER)
    expected = reference.class_risks(weights / 60, TEACHER, TEACHER)
    np.testing.assert_allclose(labelled.risks[0], expected)


def test_zero_one_starts_from_the_teacher_so_that_ties_decide_nothing() -> None:
    run = tabular_run(PROBLEM, TEACHER, updates=1, step_size=1.0, loss="zero-one")
    np.testing.assert_allclose(run.risks[0], PROBLEM.distilled(TEACHER).class_risks(run.start, "zero-one"))
    assert len(np.unique(run.start)) > 4


def test_algorithm_1_with_a_right_teacher_approaches_the_optimum() -> None:
    best = optimal_scorer(PROBLEM, "robust")
    for labels in ("teacher", "one-hot"):  # p^t = η: Algorithms 1 and 2 are one
        run = tabular_run(
            PROBLEM,
            PROBLEM.posteriors,
            updates=2000,
            step_size=0.1,
            validation_labels=labels,  # type: ignore[arg-type]
        )
        assert 0 <= PROBLEM.risk(run.averaged(), "robust") - best.value < 0.02
        np.testing.assert_allclose(run.multipliers[-1], best.multipliers, atol=1e-3)


def test_algorithm_3_approaches_the_traded_off_optimum() -> None:
    problem = random_table(30, 4, seed=3, concentration=1.0, imbalance=5.0)
    for objective in ("tradeoff:0.5", "standard-tradeoff:0.5"):
        best = optimal_scorer(problem, objective)
        run = tabular_run(problem, problem.posteriors, objective, updates=3000, step_size=0.5)
        assert 0 <= problem.risk(run.iterate(3000), objective) - best.value < 1e-6


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 2), (5, 1)])
def test_the_gap_shrinks_at_least_as_fast_as_stated(classes: int, seed: int) -> None:
    problem = random_table(10 * classes, classes, seed, concentration=2.0, imbalance=4.0)
    found = convergence(problem, problem.posteriors, (16, 64, 256, 1024))
    for gaps, bounds in ((found.gaps, found.bounds), (found.tight_gaps, found.tight_bounds)):
        assert (gaps > 0).all()
        assert (gaps <= bounds).all()
        assert (np.diff(gaps) < 0).all()
    # √K falls to a half with four times the updates; so does the gap, once γK is past its transient.
    assert (found.tight_gaps[2:] <= 0.505 * found.tight_gaps[1:-1]).all()
    np.testing.assert_allclose(
        found.bounds, 4 * found.bound * found.Z * np.sqrt(math.log(classes) / np.array(found.updates))
    )
    assert pytest.approx(1 / problem.priors.min()) == found.Z
    # The step sizes are those that the two bounds are for: γ = √(log C / K) over 2BZ, and over r.
    best = optimal_scorer(problem, "robust").value
    for cap, gaps in ((2 * found.bound * found.Z, found.gaps), (found.largest_risk, found.tight_gaps)):
        step_size = math.sqrt(math.log(classes) / 64) / cap
        run = tabular_run(problem, problem.posteriors, updates=64, step_size=step_size)
        assert problem.risk(run.averaged(), "robust") - best == pytest.approx(gaps[1], rel=1e-6)
        assert run.risks.max() <= cap


def test_regret_of_the_multipliers_is_within_its_bound() -> None:
    """From uniform λ^1 and with risks in [0, r], exponentiated gradient has a regret of log C/(γK) + γ r²/8 at most."""
    run = tabular_run(PROBLEM, TEACHER, updates=400, step_size=0.05)
    np.testing.assert_allclose(run.multipliers[1], 0.25)  # f^0 is constant: the first update moves nothing
    risks, shares = run.risks[1:], run.multipliers[1:-1]
    regret = risks.mean(axis=0).max() - (shares * risks).sum(axis=1).mean()
    count = len(risks)
    assert 0 <= regret <= math.log(4) / (0.05 * count) + 0.05 * risks.max() ** 2 / 8


def test_a_long_run_never_loses_a_class_for_good() -> None:
    run = tabular_run(PROBLEM, TEACHER, updates=50, step_size=1e4)
    assert (run.multipliers > 0).all()
    assert np.isfinite(run.multipliers).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "balanced"}, "must have multipliers"),
        ({"updates": 0}, "updates"),
        ({"step_size": 0.0}, "step_size"),
        ({"validation_labels": "soft"}, "validation_labels"),
        ({"multipliers": [0.5, 0.5, 0.0, 0.0]}, "class 2 has 0 and would keep it for ever"),
        ({"multipliers": [0.5, 0.5]}, r"\(4,\)"),
        ({"validation": np.ones(12), "validation_labels": "one-hot"}, "one-hot"),
        ({"validation": np.eye(12, 4, dtype=int) * [1, 1, 1, 0], "validation_labels": "one-hot"}, "class 3 has 0"),
        ({"train": np.zeros(12)}, "train must hold"),
        ({"teacher": np.where(np.arange(4) == PROBLEM.posteriors.argmax(1)[:, None], 1.0, 0.0)}, "probability 0"),
        ({"loss": "hinge"}, "hinge"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, object], message: str) -> None:
    settings = {"objective": "robust", "updates": 2, "step_size": 0.1, "validation_labels": "teacher", **changes}
    teacher = settings.pop("teacher", TEACHER)
    labels = "one-hot" if "teacher" in changes else settings.pop("validation_labels")
    settings.pop("validation_labels", None)
    with pytest.raises(InputError, match=message):
        tabular_run(PROBLEM, teacher, validation_labels=labels, **settings)  # type: ignore[arg-type]


def test_lemma_5_says_which_costs_it_cannot_take() -> None:
    with pytest.raises(InputError, match="class 1 has -1"):
        lemma5([[0.5, 0.5]], [1.0, -1.0])
    with pytest.raises(InputError, match="instance 1"):
        lemma5([[0.5, 0.5], [0.0, 1.0]], [1.0, 0.0])
    with pytest.raises(InputError, match="costs must be"):
        lemma5([[0.5, 0.5]], [1.0])
    with pytest.raises(InputError, match="k must lie"):
        tabular_run(PROBLEM, TEACHER, updates=2, step_size=0.1).averaged(3)
    with pytest.raises(InputError, match="updates"):
        convergence(FiniteProblem([1.0], [[0.5, 0.5]]), [[0.5, 0.5]], [])

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.errors import InputError
from robustdistill.theory import FiniteProblem, gaussian_mixture, random_table
from theory import reference

SMALL = FiniteProblem([0.2, 0.3, 0.5], [[0.5, 0.5, 0.0], [0.0, 0.4, 0.6], [1.0, 0.0, 0.0]])


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), zeros=st.sampled_from([0.0, 0.5]))
def test_risks_are_the_sums_of_the_paper(seed: int, classes: int, zeros: float) -> None:
    problem = random_table(10, classes, seed, zeros=zeros)
    logits = np.random.default_rng(seed).normal(size=(10, classes))
    logits[(problem.posteriors == 0) & (logits < 0)] = -np.inf
    for loss, twin in (("cross-entropy", reference.softmax_loss), ("zero-one", reference.zero_one_loss)):
        expected = reference.class_risks(problem.masses, problem.posteriors, logits, twin)
        np.testing.assert_allclose(problem.class_risks(logits, loss), expected, atol=1e-13)


def test_objectives_by_hand() -> None:
    np.testing.assert_allclose(SMALL.priors, [0.6, 0.22, 0.18])
    logits = np.log([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    risks = [
        (0.1 * -math.log(0.5) + 0.5 * -math.log(0.6)) / 0.6,
        (0.1 * -math.log(0.25) + 0.12 * -math.log(0.3)) / 0.22,
        -math.log(0.5),
    ]
    np.testing.assert_allclose(SMALL.class_risks(logits), risks)
    assert SMALL.risk(logits, "standard") == pytest.approx(np.dot([0.6, 0.22, 0.18], risks))
    assert SMALL.risk(logits, "balanced") == pytest.approx(np.mean(risks))
    assert SMALL.risk(logits, "robust") == pytest.approx(max(risks))
    assert SMALL.risk(logits, "tradeoff:0.3") == pytest.approx(0.7 * np.mean(risks) + 0.3 * max(risks))
    standard = np.dot([0.6, 0.22, 0.18], risks)
    assert SMALL.risk(logits, "standard-tradeoff:0.3") == pytest.approx(0.7 * standard + 0.3 * max(risks))


def test_excluding_a_class_costs_nothing_where_it_never_occurs() -> None:
    logits = np.log(np.maximum(SMALL.posteriors, 1e-300))
    logits[SMALL.posteriors == 0] = -np.inf
    assert np.isfinite(SMALL.class_risks(logits)).all()
    logits[0, 1] = -np.inf
    assert SMALL.class_risks(logits)[1] == np.inf
    logits[0, :2] = 1e308, -1e308
    assert SMALL.class_risks(logits)[1] == np.inf


def test_an_instance_without_mass_changes_nothing() -> None:
    more = FiniteProblem([*SMALL.masses, 0.0], [*SMALL.posteriors, [0.1, 0.1, 0.8]])
    logits = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(more.class_risks(logits), SMALL.class_risks(logits[:3]))


def test_a_distilled_problem_has_the_teachers_marginals() -> None:
    teacher = [[0.2, 0.3, 0.5], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]]
    distilled = SMALL.distilled(teacher)
    np.testing.assert_allclose(distilled.priors, np.array([0.2, 0.3, 0.5]) @ teacher)
    logits = np.random.default_rng(1).normal(size=(3, 3))
    np.testing.assert_allclose(distilled.class_risks(logits), reference.class_risks(SMALL.masses, teacher, logits))


def test_a_sample_has_the_frequencies_of_the_problem() -> None:
    instances, labels = SMALL.sample(40_000, seed=0)
    joint = SMALL.counts(instances, labels) / 40_000
    np.testing.assert_allclose(joint, SMALL.masses[:, None] * SMALL.posteriors, atol=0.01)
    assert (joint[SMALL.posteriors == 0] == 0).all()


def test_a_gaussian_mixture_is_exact_up_to_its_cells() -> None:
    problem = gaussian_mixture([-1.0, 2.0], [3, 1], scales=[1.0, 0.5], cells=7)
    np.testing.assert_allclose(problem.priors, [0.75, 0.25], rtol=1e-14)
    assert problem.points is not None
    centre = problem.points[3, 0]
    width = problem.points[4, 0] - centre
    inside = [
        share * (normal.cdf(centre + width / 2) - normal.cdf(centre - width / 2))
        for share, normal in ((0.75, NormalDist(-1, 1)), (0.25, NormalDist(2, 0.5)))
    ]
    assert problem.masses[3] == pytest.approx(sum(inside), rel=1e-12)
    np.testing.assert_allclose(problem.posteriors[3], np.array(inside) / sum(inside), rtol=1e-12)


def test_a_fine_grid_has_the_posterior_of_the_density() -> None:
    problem = gaussian_mixture([[0.0, 0.0], [1.0, 0.5]], [0.5, 0.5], cells=200)
    assert problem.points is not None
    density = np.exp(-0.5 * ((problem.points[:, None] - np.array([[0.0, 0.0], [1.0, 0.5]])) ** 2).sum(-1))
    inner = (np.abs(problem.points) < 2).all(axis=1)
    np.testing.assert_allclose(
        problem.posteriors[inner], (density / density.sum(axis=1, keepdims=True))[inner], atol=1e-4
    )
    np.testing.assert_allclose(problem.priors, 0.5, rtol=1e-13)


@pytest.mark.parametrize(
    ("masses", "rows", "message"),
    [
        ([0.5, 0.6], [[1, 0], [0, 1]], "masses must sum to 1, got 1.1"),
        ([1.5, -0.5], [[1, 0], [0, 1]], "instance 1 has -0.5"),
        ([0.5, 0.5], [[1, 0], [0.5, 0.4]], "instance 1 sums to 0.9"),
        ([0.5, 0.5], [[1.5, -0.5], [0, 1]], "not negative; instance 0"),
        ([0.5, 0.5], [[math.nan, 1], [0, 1]], "finite"),
        ([0.5, 0.5], [[1, 0], [1, 0]], "class 1 has 0.*leave the class out"),
        ([1.0, 0.0], [[1, 0], [0, 1]], "class 1 has 0"),
        ([1.0], [[1.0]], "C >= 2"),
        ([[1.0]], [[0.5, 0.5]], r"masses must be \(M,\)"),
    ],
)
def test_what_is_no_problem_is_refused(masses: list[float], rows: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FiniteProblem(masses, rows)  # type: ignore[arg-type]


def test_bad_arguments_are_refused() -> None:
    for teacher, message in (
        ([[1, 0, 0], [1, 0, 0], [1, 0, 0]], "class 1 has none"),
        ([[0.5, 0.5]] * 3, r"\(3, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            SMALL.distilled(teacher)
    with pytest.raises(InputError, match="zero-one"):
        SMALL.class_risks(np.zeros((3, 3)), "hinge")  # type: ignore[arg-type]
    for bad in (np.full((3, 3), -np.inf), np.full((3, 3), np.nan), np.zeros((3, 2))):
        with pytest.raises(InputError, match="logits must"):
            SMALL.class_risks(bad)
    for arguments in (([0.0], [1.0]), ([0.0, 1.0], [1.0, 0.0]), ([0.0, 1.0], [0.5])):
        with pytest.raises(InputError, match=r"means|priors"):
            gaussian_mixture(*arguments)
    with pytest.raises(InputError, match="instances >= classes"):
        random_table(3, 4, 0)

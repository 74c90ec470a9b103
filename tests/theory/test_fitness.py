"""Estimates of teacher fitness where the truth is known: their bias, and what none of them may call good."""

from __future__ import annotations

import numpy as np
import pytest

from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.theory import FiniteProblem, Fitness, approximation_errors, gaussian_mixture, teacher_fitness

NAMES = ("a", "b", "c")
PROBLEM = gaussian_mixture([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]], [0.5, 0.3, 0.2], cells=25)
TRUTH = PROBLEM.posteriors
DRAWS = 6


def normalised(rows: np.ndarray) -> np.ndarray:
    return rows / rows.sum(axis=1, keepdims=True)


def table(
    teacher: np.ndarray, count: int, seed: int, problem: FiniteProblem = PROBLEM
) -> tuple[Predictions, np.ndarray]:
    instances, labels = problem.sample(count, seed)
    assert problem.points is not None
    predictions = Predictions(np.arange(count), teacher[instances], "probabilities", NAMES, labels)
    return predictions, problem.points[instances]


def first_coordinate_only() -> np.ndarray:
    """E[η | first coordinate]: calibrated, but blind to the second one."""
    assert PROBLEM.points is not None
    rows = np.empty_like(TRUTH)
    for value in np.unique(PROBLEM.points[:, 0]):
        column = PROBLEM.points[:, 0] == value
        rows[column] = PROBLEM.masses[column] @ TRUTH[column] / PROBLEM.masses[column].sum()
    return rows


TEACHERS = {
    "right": TRUTH,
    "softened": normalised(TRUTH ** (1 / 3)),
    "sharpened": normalised(TRUTH**3),
    "noisy": normalised(TRUTH * np.exp(np.random.default_rng(0).normal(size=TRUTH.shape))),
    "blind to one coordinate": first_coordinate_only(),
    "constant": np.tile(PROBLEM.priors, (len(TRUTH), 1)),
}


@pytest.fixture(scope="module")
def found() -> dict[str, list[Fitness]]:
    result = {}
    for name, teacher in TEACHERS.items():
        tables = [table(teacher, 1500, seed) for seed in range(DRAWS)]
        result[name] = [teacher_fitness(one, features=points, folds=3) for one, points in tables]
    return result


def means(runs: list[Fitness], part: str) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([getattr(run, part).values for run in runs])
    return values.mean(axis=0), values.std(axis=0, ddof=1) / DRAWS**0.5 + 0.005


@pytest.mark.parametrize("name", TEACHERS)
def test_the_truth_lies_between_the_bounds_and_the_estimate_is_near(name: str, found: dict[str, list[Fitness]]) -> None:
    truth = approximation_errors(PROBLEM, TEACHERS[name])
    lower, lower_error = means(found[name], "lower")
    upper, upper_error = means(found[name], "upper")
    estimate, error = means(found[name], "estimate")
    assert (lower <= truth + 3 * lower_error).all()
    assert (upper >= truth - 3 * upper_error).all()
    assert (estimate <= truth + 3 * error).all()  # never above the truth, in expectation
    assert (estimate >= truth - 3 * error - 0.06).all()  # and little below it: the second model can be right here


def test_only_the_second_model_sees_what_a_prediction_leaves_out(found: dict[str, list[Fitness]]) -> None:
    for name in ("constant", "blind to one coordinate"):
        truth = approximation_errors(PROBLEM, TEACHERS[name])
        assert np.abs(means(found[name], "lower")[0]).max() < 0.05  # looks perfect
        assert means(found[name], "refinement")[0].min() > 0.8 * truth.min()
        assert truth.max() > 0.6
    # The constant leaves out E|π − η|/π exactly.
    left_out = PROBLEM.masses @ np.abs(1 - PROBLEM.class_densities)
    np.testing.assert_allclose(means(found["constant"], "refinement")[0], left_out, atol=0.06)
    assert means(found["right"], "refinement")[0].max() < 0.25  # bins leave out a little of any prediction


def test_the_constant_teacher_scores_badly_with_and_without_features(found: dict[str, list[Fitness]]) -> None:
    worst = {name: np.mean([run.score for run in runs]) for name, runs in found.items()}
    assert worst["constant"] == max(worst.values())
    assert worst["constant"] > 0.6
    assert worst["right"] < 0.15
    alone = teacher_fitness(table(TEACHERS["constant"], 1500, 0)[0])
    assert alone.estimate is None
    assert alone.score == alone.upper.worst
    np.testing.assert_allclose(alone.upper.values, 2 * (1 - alone.priors), rtol=1e-12)  # the most that π allows


def test_the_upper_bound_is_the_truth_where_labels_are_certain() -> None:
    rows = np.eye(3)[TRUTH.argmax(axis=1)]
    problem = FiniteProblem(PROBLEM.masses, rows, PROBLEM.points)
    for name in ("right", "noisy"):
        teacher = TEACHERS[name]
        values = [teacher_fitness(table(teacher, 1500, seed, problem)[0]).upper.values for seed in range(DRAWS)]
        np.testing.assert_allclose(np.mean(values, axis=0), approximation_errors(problem, teacher), atol=0.03)


def test_miscalibration_and_marginal_mismatch_are_told_apart() -> None:
    """A teacher c_y η_y (a spare class takes the rest) is miscalibrated, and harmless once divided by its marginals."""
    truth = np.hstack([TRUTH[:, :2] * 0.5, 1 - TRUTH[:, :2].sum(1, keepdims=True) * 0.5])
    problem = FiniteProblem(PROBLEM.masses, truth, PROBLEM.points)
    scaled = truth.copy()
    scaled[:, 0] *= 0.5
    scaled[:, 2] += truth[:, 0] * 0.5
    runs = [teacher_fitness(table(scaled, 1500, seed, problem)[0]) for seed in range(DRAWS)]
    priors = problem.priors
    np.testing.assert_allclose(
        np.mean([run.marginal_mismatch for run in runs], axis=0), [0.5, 0, 0.5 * priors[0] / priors[2]], atol=0.05
    )
    assert means(runs, "miscalibration")[0][0] == pytest.approx(0.5, abs=0.05)
    assert means(runs, "lower")[0][0] < 0.05


def test_standard_errors_are_those_of_repetition(found: dict[str, list[Fitness]]) -> None:
    for part in ("estimate", "upper"):
        values = np.array([getattr(run, part).values for run in found["noisy"]])
        claimed = np.mean([getattr(run, part).errors for run in found["noisy"]], axis=0)
        assert (values.std(axis=0, ddof=1) < 3 * claimed).all()
        assert (values.std(axis=0, ddof=1) > claimed / 5).all()


def test_held_out_examples_with_other_priors_are_weighted() -> None:
    """Balanced held-out data, long-tailed training data: P(x | y) is the same, and with weights so is the answer."""
    shares = TRUTH / PROBLEM.priors / 3
    balanced = FiniteProblem(
        PROBLEM.masses * shares.sum(axis=1), shares / shares.sum(axis=1, keepdims=True), PROBLEM.points
    )
    np.testing.assert_allclose(balanced.priors, 1 / 3)
    teacher = TEACHERS["softened"]
    truth = approximation_errors(PROBLEM, teacher)
    assert np.abs(approximation_errors(balanced, teacher) - truth).max() > 0.05
    runs = []
    for seed in range(DRAWS):
        one, points = table(teacher, 1500, seed, balanced)
        runs.append(teacher_fitness(one, features=points, priors=[50, 30, 20], folds=3))
    np.testing.assert_allclose(means(runs, "estimate")[0], truth, atol=0.06)
    np.testing.assert_allclose(runs[0].priors, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(runs[0].marginals, PROBLEM.masses @ teacher, atol=0.03)


def test_the_upper_bound_by_loops_and_the_variances() -> None:
    one, _ = table(TEACHERS["noisy"], 60, 3)
    found = teacher_fitness(one, folds=2)
    assert one.labels is not None
    for y in range(3):
        theirs = sum(one.scores[:, y]) / 60
        prior = sum(one.labels == y) / 60
        terms = [abs(one.scores[i, y] / theirs - (one.labels[i] == y) / prior) for i in range(60)]
        assert found.upper.values[y] == pytest.approx(sum(terms) / 60)
        soft = [one.scores[i, y] * -np.log(one.scores[i, y]) for i in range(60)]
        assert found.variances.distilled[y] == pytest.approx(np.var(soft, ddof=1))


def test_temperature_is_applied_to_the_targets_only() -> None:
    one, _ = table(TRUTH, 500, 0)
    logits = Predictions(one.ids, np.log(TRUTH)[PROBLEM.sample(500, 0)[0]], "logits", NAMES, one.labels)
    soft, plain = (teacher_fitness(logits, temperature=t) for t in (3.0, 1.0))
    np.testing.assert_allclose(plain.upper.values, teacher_fitness(one).upper.values, rtol=1e-9)
    assert soft.lower.worst > plain.lower.worst + 0.1
    np.testing.assert_allclose(soft.variances.one_hot, plain.variances.one_hot)


def test_another_second_model_can_be_passed() -> None:
    from sklearn.dummy import DummyClassifier

    one, points = table(TRUTH, 300, 0)
    blind = teacher_fitness(one, features=points, second_model=DummyClassifier())
    assert blind.estimate is not None
    assert blind.estimate.worst < 0.1  # a second model that knows nothing finds nothing
    as_dict = blind.as_dict()
    assert as_dict["score_is"] == "estimate"
    assert as_dict["score"] == pytest.approx(max(as_dict["estimate"]["values"]))


def test_refusals() -> None:
    one, points = table(TRUTH, 100, 0)
    with pytest.raises(InputError, match="must have labels"):
        teacher_fitness(Predictions(one.ids, one.scores, "probabilities", NAMES))
    with pytest.raises(InputError, match=r"folds \(60\); '.' has"):
        teacher_fitness(one, folds=60)
    with pytest.raises(InputError, match="features"):
        teacher_fitness(one, features=points[:-1])
    with pytest.raises(InputError, match="priors"):
        teacher_fitness(one, priors=[0.5, 0.5, 0.0])
    with pytest.raises(InputError, match="bins"):
        teacher_fitness(one, bins=1)
    with pytest.raises(InputError, match="predicted classes only"):
        teacher_fitness(Predictions(one.ids, one.predicted, "classes", NAMES, one.labels))
    never = np.tile([0.5, 0.5, 0.0], (100, 1))
    with pytest.raises(InputError, match="'c' has none"):
        teacher_fitness(Predictions(one.ids, never, "probabilities", NAMES, one.labels))

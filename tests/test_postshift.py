from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdistill.errors import InputError
from robustdistill.postshift import METHODS, PostShift, cross_fitted, fit_tau
from robustdistill.predictions import Predictions

both = pytest.mark.parametrize("method", METHODS)


def names(num_classes: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(num_classes))


def as_table(scores, labels, kind="probabilities", class_names=None) -> Predictions:
    scores = np.asarray(scores)
    return Predictions(np.arange(len(scores)), scores, kind, class_names or names(scores.shape[1]), labels)


def normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)


def blobs(seed: int, per_class: int = 25, num_classes: int = 4, spread: float = 1.0) -> Predictions:
    """Gaussian classes, and a model that believes in long-tailed priors."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_classes, 3)) * 1.5
    labels = np.repeat(np.arange(num_classes), per_class)
    points = centres[labels] + rng.standard_normal((len(labels), 3))
    priors = 10.0 ** (-np.arange(num_classes) / (num_classes - 1))
    logits = spread * (-0.5 * ((points[:, None] - centres) ** 2).sum(-1) + np.log(priors))
    return as_table(normalised(np.exp(logits)), labels)


def merit(weights, table: Predictions, robustness: float) -> tuple[float, float]:
    """What a fit maximises, from its definition."""
    winners = (table.probabilities() * weights).argmax(axis=1)
    recalls = [np.mean(winners[table.labels == y] == y) for y in range(table.num_classes)]
    balanced = float(np.mean(recalls))
    return round((1 - robustness) * balanced + robustness * min(recalls), 10), round(balanced, 10)


def one_coefficient_changes(table: Predictions, weights, y: int):
    """`weights` with the one of `y` in the middle of each interval in which no prediction flips, and past both ends."""
    shifted = table.probabilities() * weights
    flips = np.sort(np.delete(shifted, y, axis=1).max(axis=1) / shifted[:, y])
    for factor in [flips[0] / 2, *np.sqrt(flips[1:] * flips[:-1]), flips[-1] * 2]:
        changed = np.array(weights, dtype=float)
        changed[y] *= factor
        yield changed


# What a fit finds


@both
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("robustness", [0.0, 0.5, 1.0])
@given(st.integers(0, 10**6), st.sampled_from([0.5, 2.0]))
def test_equivariance(method, kind, robustness, seed, size) -> None:
    rng = np.random.default_rng(seed)
    table = blobs(seed, spread=rng.uniform(0.3, 2))
    factors = np.exp(rng.normal(0, size, 4))
    # Below 1e-12 a probability counts as that, so those that are given as such are kept from it.
    scores = table.scores if kind == "logits" else 0.999 * table.scores + 0.001 / 4
    pair = [scores, normalised(scores * factors)]
    tables = [as_table(np.log(part) if kind == "logits" else part, table.labels, kind) for part in pair]
    shift, other = (PostShift(robustness, method).fit(fitted) for fitted in tables)
    if (shift.coefficients_ == 1).all() or (other.coefficients_ == 1).all():
        return  # nothing found was as good as no shift, which is then kept
    expected = shift.coefficients_ / factors
    np.testing.assert_allclose(other.coefficients_, expected / np.exp(np.log(expected).mean()), rtol=1e-6)
    np.testing.assert_array_equal(shift.predict(tables[0]), other.predict(tables[1]))
    np.testing.assert_allclose(shift.predict_proba(tables[0]), other.predict_proba(tables[1]), rtol=1e-6)


@both
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.3, 1.0, 8.0]), st.integers(2, 6))
def test_never_worse_than_the_unshifted_model_on_the_fit_table(method, seed, robustness, spread, num_classes) -> None:
    table = blobs(seed, per_class=7, num_classes=num_classes, spread=spread)
    shift = PostShift(robustness, method, iterations=10).fit(table)
    assert merit(shift.coefficients_, table, robustness) >= merit(np.ones(num_classes), table, robustness)
    reported = (1 - robustness) * shift.fit_scores_.balanced + robustness * shift.fit_scores_.worst_class
    assert reported == pytest.approx(merit(shift.coefficients_, table, robustness)[0])
    assert shift.unshifted_scores_.as_dict() == table.evaluate().as_dict()


@both
@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_is_already_shifted_well_is_left_alone_or_improved(method, seed) -> None:
    best = PostShift(iterations=300).fit(blobs(seed)).transform(blobs(seed))
    again = PostShift(method=method, iterations=1).fit(best)
    assert again.fit_scores_.worst_class >= best.evaluate().worst_class
    if method != "search":  # one iteration is the balanced solution, which is worse
        assert again.coefficients_.tolist() == [1.0] * 4


def test_an_unshifted_model_that_is_perfect_stays_so() -> None:
    perfect = as_table([[0.6, 0.4], [0.9, 0.1], [0.45, 0.55]], [0, 0, 1])
    for method in METHODS:
        assert PostShift(method=method).fit(perfect).fit_scores_.worst_class == 1.0


def test_balanced_coefficients_undo_prior_and_bias_of_a_calibrated_model() -> None:
    """Labels occur exactly as often as η says, and the scores are η·s: the coefficients must be 1/(π·s) (Eq. 2)."""
    eta = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.6, 0.1, 0.3], [0.8, 0.1, 0.1]])
    labels = np.concatenate([np.repeat(np.arange(3), np.rint(20 * row).astype(int)) for row in eta])
    bias = np.array([1.0, 3.0, 0.2])
    shift = PostShift(robustness=0).fit(as_table(np.repeat(normalised(eta * bias), 20, axis=0), labels))
    expected = 1 / (eta.mean(axis=0) * bias)
    np.testing.assert_allclose(shift.coefficients_, expected / np.exp(np.log(expected).mean()), rtol=1e-4)


@both
def test_worst_class_optimum_of_a_symmetric_problem(method) -> None:
    """Each class is its neighbour's mirror image, so the minimax classifier is argmax η, which a bias hides."""
    similar = 0.7 * np.eye(4) + 0.15 * (np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))
    eta = np.clip(similar, 1e-3, None)
    labels = np.concatenate([np.repeat(np.arange(4), np.rint(20 * row).astype(int)) for row in similar])
    bias = np.array([1.0, 8.0, 0.1, 2.0])
    table = as_table(np.repeat(normalised(eta * bias), 20, axis=0), labels)
    assert table.evaluate().worst_class == 0.0
    shift = PostShift(method=method).fit(table)
    assert shift.fit_scores_.per_class.tolist() == [0.7] * 4
    np.testing.assert_array_equal(shift.predict(table), np.repeat(np.arange(4), 20))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.4, 1.0]))
def test_two_classes_against_every_threshold(seed, robustness) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.beta(1, 3, 40).clip(1e-6, 1 - 1e-6)
    labels = np.r_[0, 1, rng.random(38) < positive[2:] ** 0.5].astype(int)
    table = as_table(np.stack([1 - positive, positive], axis=1), labels)
    best = max(merit(weights, table, robustness) for weights in one_coefficient_changes(table, np.ones(2), 1))
    assert merit(PostShift(robustness, "search").fit(table).coefficients_, table, robustness) == best
    gradient = PostShift(robustness, iterations=400).fit(table)
    found, _ = merit(gradient.coefficients_, table, robustness)
    assert found <= best[0]
    if robustness == 1.0:  # its steps end where the two errors cross, at most an example of each class away
        assert found >= best[0] - 1 / np.bincount(labels).min()


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_search_ends_where_no_single_coefficient_helps(seed, robustness) -> None:
    table = blobs(seed, per_class=8)
    weights = PostShift(robustness, "search").fit(table).coefficients_
    reached = merit(weights, table, robustness)
    for y in range(4):
        assert (
            max(merit(changed, table, robustness) for changed in one_coefficient_changes(table, weights, y)) <= reached
        )


def test_exponentiated_gradient_against_a_slow_twin() -> None:
    """Algorithm 3 written out, from given priors: π, then λ_y ∝ λ_y·exp(γ·α·R_y); the best iterate wins."""
    table, priors, step_size, robustness = blobs(3), np.array([2.0, 2.0, 4.0, 8.0]) / 16, 0.2, 0.8
    multipliers, best, when = [0.25] * 4, None, 0
    for iteration in range(30):
        weights = [((1 - robustness) / 4 + robustness * multipliers[y]) / priors[y] for y in range(4)]
        if best is None or merit(weights, table, robustness) > merit(best, table, robustness):
            best, when = weights, iteration
        winners = (table.probabilities() * weights).argmax(axis=1)
        errors = [np.mean(winners[table.labels == y] != y) for y in range(4)]
        raised = [multipliers[y] * np.exp(step_size * robustness * errors[y]) for y in range(4)]
        multipliers = [value / sum(raised) for value in raised]
    assert when > 2  # so that the steps matter
    shift = PostShift(robustness, iterations=30, step_size=step_size).fit(table, priors=[2, 2, 4, 8])
    np.testing.assert_allclose(shift.coefficients_, best / np.exp(np.mean(np.log(best))), rtol=1e-10)
    named = dict(zip(reversed(names(4)), (8, 4, 2, 2), strict=True))
    again = PostShift(robustness, iterations=30, step_size=step_size).fit(table, priors=named)
    np.testing.assert_array_equal(again.coefficients_, shift.coefficients_)


@both
@given(st.permutations(range(5)))
def test_the_order_of_the_classes_does_not_matter(method, order) -> None:
    table = blobs(7, num_classes=5)
    permuted = table.match_classes([table.class_names[index] for index in order])
    shift, other = PostShift(method=method).fit(table), PostShift(method=method).fit(permuted)
    np.testing.assert_allclose(other.coefficients_, shift.coefficients_[list(order)], rtol=1e-4)
    # Indices are into the classes of the table that is asked about, whatever the order of the fit table.
    np.testing.assert_array_equal(shift.predict(permuted), other.predict(permuted))
    predicted = np.array(table.class_names)[shift.predict(table)]
    assert (np.array(permuted.class_names)[shift.predict(permuted)] == predicted).all()


@both
def test_fit_is_deterministic_and_takes_logits_as_probabilities(method) -> None:
    table = blobs(1)
    shift, again = PostShift(method=method).fit(table), PostShift(method=method).fit(table)
    np.testing.assert_array_equal(shift.coefficients_, again.coefficients_)
    logits = as_table(np.log(table.scores) + np.arange(100)[:, None], table.labels, "logits")
    np.testing.assert_allclose(PostShift(method=method).fit(logits).coefficients_, shift.coefficients_, rtol=1e-4)
    assert np.log(shift.coefficients_).mean() == pytest.approx(0, abs=1e-12)
    assert (shift.coefficients_ > 0).all()


@both
def test_fitting_again_forgets_the_first_fit(method) -> None:
    shift = PostShift(method=method)
    assert shift.fit(blobs(1)) is shift
    shift.fit(blobs(2))
    np.testing.assert_array_equal(shift.coefficients_, PostShift(method=method).fit(blobs(2)).coefficients_)


@both
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_monotone_on_the_fit_table(method, seed) -> None:
    table = blobs(seed)
    amounts = [0.0, 0.2, 0.5, 0.8, 1.0]
    curve = PostShift(method=method).curve(table, amounts)
    assert [shift.robustness for shift in curve] == amounts
    worst = [shift.fit_scores_.worst_class for shift in curve]
    balanced = [shift.fit_scores_.balanced for shift in curve]
    assert worst == sorted(worst)
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(balanced))
    for shift in curve:
        alone = PostShift(shift.robustness, method).fit(table)
        here, there = (merit(fitted.coefficients_, table, shift.robustness) for fitted in (shift, alone))
        assert here >= there


def test_ties_and_hard_zeros() -> None:
    coarse = as_table([[1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0.5, 0, 0.5], [0, 0, 1]], [0, 1, 1, 1, 2, 2])
    for method in METHODS:
        shift = PostShift(method=method).fit(coarse)
        assert np.isfinite(shift.coefficients_).all()
        assert shift.fit_scores_.worst_class >= coarse.evaluate().worst_class


def test_extreme_logits_stay_finite() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float16, np.float32, np.float64):
        table = as_table(rng.normal(0, 5e3, (60, 3)).astype(dtype), np.arange(60) % 3, "logits")
        for method in METHODS:
            shift = PostShift(method=method).fit(table)
            assert np.isfinite(shift.log_coefficients_).all()
            np.testing.assert_allclose(shift.predict_proba(table).sum(axis=1), 1, rtol=1e-5)
            assert np.isfinite(shift.coefficients_[shift.log_coefficients_ < 700]).all()


def test_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 10)
    logits = rng.standard_normal((10_000, 1000), dtype=np.float32) - np.linspace(0, 4, 1000, dtype=np.float32)
    logits[np.arange(10_000), labels] += 3.5
    table = as_table(logits, labels, "logits")
    begin = time.process_time()
    shift = PostShift().fit(table)
    assert time.process_time() - begin < 10  # under a second where it was written
    assert table.evaluate().worst_class == 0.0
    assert shift.fit_scores_.worst_class > 0.1


# Applying


def test_probabilities_are_rescaled_and_the_table_stays_otherwise() -> None:
    table = blobs(0)
    shift = PostShift().fit(table)
    expected = normalised(table.scores * shift.coefficients_)
    np.testing.assert_allclose(shift.predict_proba(table), expected, rtol=1e-10)
    np.testing.assert_array_equal(shift.predict(table), expected.argmax(axis=1))
    shifted = shift.transform(table)
    assert shifted.kind == "probabilities"
    np.testing.assert_array_equal(shifted.ids, table.ids)
    np.testing.assert_array_equal(shifted.labels, table.labels)
    assert shifted.evaluate().as_dict() == shift.fit_scores_.as_dict()
    unlabelled = as_table(table.scores, None)
    assert shift.transform(unlabelled).labels is None
    assert shift.predict_proba(as_table(table.scores.astype(np.float32), None)).dtype == np.float32


def test_applying_refuses_what_it_cannot_use() -> None:
    table = blobs(0)
    with pytest.raises(InputError, match="not fitted"):
        PostShift().predict(table)
    shift = PostShift().fit(table)
    others = as_table(table.scores, None, class_names=("class 0", "class 1", "class 2", "cat"))
    with pytest.raises(InputError, match="missing 'class 3'; extra 'cat'"):
        shift.predict(others)


def test_fitting_refuses_what_it_cannot_use() -> None:
    table = blobs(0)
    decided = Predictions(table.ids, table.predicted, "classes", table.class_names, table.labels)
    for use in (PostShift().fit, PostShift().fit(table).predict, PostShift().fit(table).transform):
        with pytest.raises(InputError, match="predicted classes only"):
            use(decided)
    with pytest.raises(InputError, match="needs labels"):
        PostShift().fit(as_table(table.scores, None))
    with pytest.raises(InputError, match="none of 'class 1', 'class 3'"):
        PostShift().fit(as_table(table.scores, table.labels // 2 * 2))
    with pytest.raises(InputError, match=r"priors must be positive and finite; class 'class 2' has 0"):
        PostShift().fit(table, priors=[1, 1, 0, 1])
    absurd = Predictions(table.ids, 1e308 * np.eye(4)[table.labels], "logits", table.class_names, table.labels)
    with pytest.raises(InputError, match=r"logits to fit a shift on must be at most 1\.12e\+307 in size"):
        PostShift().fit(absurd)
    with pytest.raises(InputError, match=r"priors must have a finite sum, got \[1e\+308"):
        PostShift().fit(table, priors=[1e308] * 4)
    for priors, told in (("many", "many"), ([1, [2, 3]], r"\[1, \[2"), (np.ones(4, dtype=complex), r"\[1\.\+0\.j")):
        with pytest.raises(InputError, match=f"priors must be numbers, got '{told}"):
            PostShift().fit(table, priors=priors)
    with pytest.raises(InputError, match=r"priors must be \(C,\) = \(4,\), got \(3,\)"):
        PostShift().fit(table, priors=[1, 1, 1])
    with pytest.raises(InputError, match="at least one value"):
        PostShift().curve(table, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"robustness": 1.5}, r"robustness \(alpha\) must lie in \[0, 1\], got 1.5"),
        ({"method": "serach"}, "did you mean 'search'"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"step_size": float("nan")}, "step_size must be a positive number, got nan"),
    ],
)
def test_settings_are_checked(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        PostShift(**settings)


# Logit adjustment


def test_from_priors_is_post_hoc_logit_adjustment() -> None:
    table, priors = blobs(0), np.array([8.0, 4.0, 2.0, 2.0])
    shift = PostShift.from_priors(priors, table.class_names, tau=1.5)
    adjusted = np.log(table.scores) - 1.5 * np.log(priors / priors.sum())
    np.testing.assert_array_equal(shift.predict(table), adjusted.argmax(axis=1))
    np.testing.assert_allclose(shift.coefficients_ / shift.coefficients_[0], (priors / priors[0]) ** -1.5)
    named = PostShift.from_priors(dict(zip(table.class_names, priors, strict=True)), tau=1.5)
    np.testing.assert_array_equal(named.coefficients_, shift.coefficients_)
    assert PostShift.from_priors(priors, table.class_names, tau=0).coefficients_.tolist() == [1.0] * 4
    with pytest.raises(InputError, match="nothing to fit"):
        shift.fit(table)
    with pytest.raises(InputError, match="class_names are needed"):
        PostShift.from_priors(priors)
    with pytest.raises(InputError, match="tau must be a finite number, got inf"):
        PostShift.from_priors(priors, table.class_names, tau=float("inf"))


def test_fit_tau_takes_the_best_worst_class_then_balanced() -> None:
    table, priors = blobs(5), 10.0 ** (-np.arange(4) / 3)
    taus = [0.0, 0.5, 1.0, 1.5, 2.0]
    shift = fit_tau(table, priors, taus)
    merits = [merit(priors**-tau, table, 1.0) for tau in taus]
    assert shift.tau_ == taus[merits.index(max(merits))]
    assert shift.tau_ > 0
    assert shift.fit_scores_.worst_class >= shift.unshifted_scores_.worst_class
    assert merit(fit_tau(table, priors).coefficients_, table, 1.0) >= max(merits)
    with pytest.raises(InputError, match="at least one number"):
        fit_tau(table, priors, [])


# Files


def test_save_and_load(tmp_path: Path) -> None:
    table = blobs(0)
    for shift in (
        PostShift(0.7, "search").fit(table),
        PostShift(iterations=7, step_size=0.5).fit(table),
        PostShift.from_priors([4, 3, 2, 1], table.class_names, tau=0.3),
    ):
        path = shift.save(tmp_path / "shift.json")
        again = PostShift.load(path)
        np.testing.assert_array_equal(again.coefficients_, shift.coefficients_)
        np.testing.assert_array_equal(again.predict(table), shift.predict(table))
        for name in ("robustness", "method", "iterations", "step_size", "tau_", "fingerprint_", "class_names_"):
            assert getattr(again, name) == getattr(shift, name)
        if shift.fit_scores_ is None:
            assert again.fit_scores_ is None
        else:
            assert again.fit_scores_.as_dict() == shift.fit_scores_.as_dict()
            assert again.unshifted_scores_.class_names == table.class_names
        assert repr(again) == repr(shift)
    with pytest.raises(InputError, match="not fitted"):
        PostShift().save(path)


def test_the_fingerprint_is_of_the_fit_table() -> None:
    first, again, other = (PostShift().fit(blobs(seed)).fingerprint_ for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(first) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "recipe"}, "not a post-shift file"),
        ({"schema": 2}, "not a post-shift file of schema 1"),
        ({"classes": [{"class": "a", "log_coefficient": 0.0}] * 2}, "class names must be distinct"),
        ({"classes": [{"class": name, "log_coefficient": None} for name in "abcd"]}, "damaged|distinct"),
        ({"classes": [{"class": name} for name in "abcd"]}, "damaged"),
        ({"method": "magic"}, "unknown post-shift method"),
        ({"classes": None}, "damaged"),
    ],
)
def test_load_refuses_other_files(tmp_path: Path, change, message) -> None:
    path = PostShift().fit(blobs(0)).save(tmp_path / "shift.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        PostShift.load(path)


def test_load_refuses_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        PostShift.load(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("w = 1")
    with pytest.raises(InputError, match="cannot be read"):
        PostShift.load(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="not a post-shift"):
        PostShift.load(tmp_path / "list.json")


# Arrays, as scikit-learn has them


def test_arrays_give_what_tables_give() -> None:
    table = blobs(0)
    text = np.array(["kiwi", "fig", "lime", "plum"])
    order = np.argsort(text)
    X, y = table.scores[:, order], text[table.labels]  # noqa: N806
    shift, expected = PostShift(0.7).fit(X, y), PostShift(0.7).fit(table.match_classes([names(4)[i] for i in order]))
    np.testing.assert_array_equal(shift.coefficients_, expected.coefficients_)
    assert shift.classes_.tolist() == sorted(text)
    np.testing.assert_array_equal(shift.predict(X), shift.classes_[shift.predict_proba(X).argmax(axis=1)])
    np.testing.assert_allclose(shift.predict_proba(X).sum(axis=1), 1)
    logits = PostShift(0.7, kind="logits").fit(np.log(X), y)
    np.testing.assert_array_equal(logits.predict(np.log(X)), shift.predict(X))
    numbers = PostShift().fit(X, np.array([30, 10, 40, 20])[table.labels])
    assert numbers.predict(X).dtype.kind == "i"
    assert set(numbers.predict(X).tolist()) <= {10, 20, 30, 40}


def test_settings_can_be_asked_for_changed_and_cloned() -> None:
    from sklearn.base import clone

    shift = PostShift(0.3, "search", iterations=7)
    assert clone(shift).get_params() == shift.get_params()
    assert shift.set_params(robustness=0.5).robustness == 0.5
    for bad in ({"robust": 1}, {"robustness": 2}, {"kind": "classes"}):
        with pytest.raises(InputError):
            shift.set_params(**bad)


def test_arrays_that_do_not_fit_are_refused() -> None:
    table = blobs(0)
    with pytest.raises(InputError, match="y must be given"):
        PostShift().fit(table.scores)
    with pytest.raises(InputError, match="y must be left out"):
        PostShift().fit(table, table.labels)
    with pytest.raises(InputError, match=r"each of the 4 classes .* got 3"):
        PostShift().fit(table.scores[table.labels < 3], table.labels[table.labels < 3])
    with pytest.raises(InputError, match=r"scores must be \(N, C\) and y \(N,\)"):
        PostShift().fit(table.scores, table.labels[:5])
    with pytest.raises(InputError, match="a column for each class"):
        PostShift().fit(table.scores, table.labels).predict(table.scores[:, :3])


def test_cross_fitting_counts_every_example_once_on_shifts_that_did_not_see_it() -> None:
    table = blobs(0)
    amounts = [0.0, 1.0]
    found = cross_fitted(PostShift(), table, amounts, folds=4)
    assert [scores.counts.tolist() for scores in found] == [np.bincount(table.labels).tolist()] * 2
    honest, flattered = found[1].worst_class, PostShift().fit(table).fit_scores_.worst_class
    assert honest <= flattered + 0.02
    again = cross_fitted(PostShift(), table, amounts, folds=4)
    assert [scores.correct.tolist() for scores in again] == [scores.correct.tolist() for scores in found]
    with pytest.raises(InputError, match="folds must be at least 2"):
        cross_fitted(PostShift(), table, amounts, folds=1)
    with pytest.raises(InputError, match="at least as many examples as folds"):
        cross_fitted(PostShift(), table, amounts, folds=10_000)

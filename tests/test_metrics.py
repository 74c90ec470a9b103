from __future__ import annotations

import json
import math
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

import reference
from robustdistill import metrics
from robustdistill.errors import InputError
from robustdistill.metrics import Scores

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
PREDICTIONS = np.array([0, 0, 0, 1, 1, 0, 2, 0, 1, 0])  # recalls 3/4, 1/2, 1/4


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    num_classes, rows = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=rows, max_size=rows))
    predictions = draw(st.lists(st.integers(0, num_classes - 1), min_size=rows, max_size=rows))
    return np.array(predictions), np.array(labels), num_classes


def test_hand_computed_values() -> None:
    arguments = {"labels": LABELS, "num_classes": 3}
    np.testing.assert_allclose(metrics.per_class_recall(PREDICTIONS, **arguments), [0.75, 0.5, 0.25])
    assert metrics.worst_class_accuracy(PREDICTIONS, **arguments) == 0.25
    assert metrics.worst_k_accuracy(PREDICTIONS, **arguments, k=2) == pytest.approx(0.375)
    assert metrics.balanced_accuracy(PREDICTIONS, **arguments) == pytest.approx(0.5)
    assert metrics.standard_accuracy(PREDICTIONS, **arguments) == pytest.approx(0.5)
    lopsided = {"labels": LABELS[:6], "num_classes": 2}
    assert metrics.balanced_accuracy(PREDICTIONS[:6], **lopsided) == pytest.approx(0.625)
    assert metrics.standard_accuracy(PREDICTIONS[:6], **lopsided) == pytest.approx(4 / 6)


@given(outcome=outcomes(), data=st.data())
def test_agrees_with_the_twin(outcome: tuple[np.ndarray, np.ndarray, int], data: st.DataObject) -> None:
    predictions, labels, num_classes = outcome
    k = data.draw(st.integers(1, num_classes))
    recalls = reference.per_class_recall(predictions, labels, num_classes)
    arguments = {"labels": labels, "num_classes": num_classes}
    np.testing.assert_allclose(metrics.per_class_recall(predictions, **arguments), recalls, rtol=1e-14)
    for value, expected in [
        (metrics.worst_class_accuracy(predictions, **arguments), reference.worst_k(recalls, 1)),
        (metrics.worst_k_accuracy(predictions, **arguments, k=k), reference.worst_k(recalls, k)),
        (metrics.balanced_accuracy(predictions, **arguments), reference.worst_k(recalls, num_classes)),
        (metrics.standard_accuracy(predictions, **arguments), float((predictions == labels).mean())),
    ]:
        assert value == pytest.approx(expected, rel=1e-12, nan_ok=True)


@given(outcome=outcomes(), data=st.data())
def test_scores_agree_with_the_functions(outcome: tuple[np.ndarray, np.ndarray, int], data: st.DataObject) -> None:
    predictions, labels, num_classes = outcome
    k = data.draw(st.integers(1, num_classes))
    counts = np.array([(labels == y).sum() for y in range(num_classes)])
    correct = np.array([((labels == y) & (predictions == y)).sum() for y in range(num_classes)])
    scores, arguments = Scores(correct, counts), {"labels": labels, "num_classes": num_classes}
    np.testing.assert_array_equal(scores.per_class, metrics.per_class_recall(predictions, **arguments))
    for value, expected in [
        (scores.worst_class, metrics.worst_class_accuracy(predictions, **arguments)),
        (scores.worst_k(k), metrics.worst_k_accuracy(predictions, **arguments, k=k)),
        (scores.balanced, metrics.balanced_accuracy(predictions, **arguments)),
        (scores.standard, metrics.standard_accuracy(predictions, **arguments)),
    ]:
        assert value == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_an_absent_class_is_never_dropped_silently() -> None:
    arguments = {"labels": LABELS, "num_classes": 4}
    recalls = metrics.per_class_recall(PREDICTIONS, **arguments)
    assert np.isnan(recalls).tolist() == [False, False, False, True]
    assert math.isnan(metrics.worst_class_accuracy(PREDICTIONS, **arguments))
    assert math.isnan(metrics.worst_k_accuracy(PREDICTIONS, **arguments, k=2))
    assert math.isnan(metrics.balanced_accuracy(PREDICTIONS, **arguments))
    assert metrics.standard_accuracy(PREDICTIONS, **arguments) == pytest.approx(0.5)
    scores = Scores(np.array([3, 1, 1, 0]), np.array([4, 2, 4, 0]))
    assert math.isnan(scores.worst_class)
    assert math.isnan(scores.balanced)
    assert math.isnan(scores.worst_k(2))
    assert scores.standard == pytest.approx(0.5)
    assert scores.counts[3] == 0


def test_a_class_predicted_wrong_every_time_is_zero_and_not_absent() -> None:
    recalls = metrics.per_class_recall(np.array([1, 1, 1]), labels=np.array([0, 0, 1]), num_classes=2)
    np.testing.assert_array_equal(recalls, [0.0, 1.0])


@given(outcome=outcomes(), data=st.data())
def test_the_order_of_examples_and_the_names_of_classes_do_not_matter(
    outcome: tuple[np.ndarray, np.ndarray, int], data: st.DataObject
) -> None:
    predictions, labels, num_classes = outcome
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    names = np.array(data.draw(st.permutations(range(num_classes))))
    recalls = metrics.per_class_recall(predictions, labels=labels, num_classes=num_classes)
    moved = metrics.per_class_recall(names[predictions[order]], labels=names[labels[order]], num_classes=num_classes)
    np.testing.assert_allclose(moved[names], recalls, rtol=1e-14)


def test_labels_are_keyword_only() -> None:
    for function in (metrics.per_class_recall, metrics.worst_class_accuracy, metrics.balanced_accuracy):
        with pytest.raises(TypeError):
            function(PREDICTIONS, LABELS, 3)  # type: ignore[misc]
    with pytest.raises(TypeError):
        metrics.standard_accuracy(PREDICTIONS, LABELS, 3)  # type: ignore[misc]
    with pytest.raises(TypeError):
        metrics.worst_k_accuracy(PREDICTIONS, LABELS, 3, 2)  # type: ignore[misc]


def test_accepts_lists_and_small_integers() -> None:
    recalls = metrics.per_class_recall([0, 1, 1], labels=[0, 1, 0], num_classes=2)
    np.testing.assert_array_equal(recalls, [0.5, 1.0])
    small = metrics.per_class_recall(PREDICTIONS.astype(np.uint8), labels=LABELS.astype(np.int8), num_classes=3)
    np.testing.assert_array_equal(small, [0.75, 0.5, 0.25])


# ---- intervals


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_two_twins(level: float) -> None:
    correct, counts = np.array([0, 1, 5, 10, 50, 480, 0]), np.array([10, 1, 10, 10, 60, 1000, 0])
    intervals = Scores(correct, counts).wilson(level)
    assert intervals.shape == (7, 2)
    z = NormalDist().inv_cdf((1 + level) / 2)
    for interval, hits, count in zip(intervals, correct.tolist(), counts.tolist(), strict=True):
        np.testing.assert_allclose(interval, reference.wilson(hits, count, z), rtol=1e-9, atol=1e-12)
        if count:
            scipys = binomtest(hits, count).proportion_ci(level, method="wilson")
            np.testing.assert_allclose(interval, scipys, rtol=1e-9, atol=1e-12)
    assert np.isnan(intervals[-1]).all()
    assert (intervals[:-1] >= 0).all()
    assert (intervals[:-1] <= 1).all()


def test_wilson_default_level() -> None:
    scores = Scores(np.array([5, 8]), np.array([10, 10]))
    np.testing.assert_array_equal(scores.wilson(), scores.wilson(0.95))


def test_intervals_are_reproducible_and_ordered() -> None:
    scores = Scores(np.array([80, 60, 45]), np.array([100, 100, 100]))
    first = scores.intervals(level=0.95, draws=2000, seed=0)
    assert first == scores.intervals()
    assert first == scores.intervals(level=0.95, draws=2000, seed=0)
    assert first != scores.intervals(level=0.95, draws=2000, seed=1)
    assert set(first) >= {"worst_class", "balanced", "standard"}
    for name, (low, high) in first.items():
        assert 0 <= low < high <= 1, name
        wide_low, wide_high = scores.intervals(level=0.99, draws=2000, seed=0)[name]
        assert wide_low <= low < high <= wide_high, name
    for name in ("worst_class", "balanced", "standard"):
        low, high = first[name]
        assert low <= getattr(scores, name) <= high, name


@pytest.mark.parametrize("name", ["balanced", "standard"])
def test_intervals_have_the_width_of_the_normal_approximation(name: str) -> None:
    """Equal recalls in equal classes: both accuracies are means of 2,000 independent trials."""
    scores = Scores(np.full(4, 350), np.full(4, 500))
    low, high = scores.intervals(level=0.95, draws=4000, seed=0)[name]
    half = 1.96 * math.sqrt(0.7 * 0.3 / 2000)
    assert low == pytest.approx(0.7 - half, abs=0.1 * half)
    assert high == pytest.approx(0.7 + half, abs=0.1 * half)


def test_intervals_of_a_lopsided_sample_know_the_class_sizes() -> None:
    """A rare class of ten examples leaves the balanced accuracy far less certain than the standard one."""
    scores = Scores(np.array([900, 5]), np.array([1000, 10]))
    intervals = scores.intervals(draws=4000)
    half = 1.96 * math.sqrt(0.9 * 0.1 / 1000 + 0.5 * 0.5 / 10) / 2
    low, high = intervals["balanced"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert intervals["standard"][1] - intervals["standard"][0] < (high - low) / 4


def test_intervals_with_an_absent_class_are_unknown() -> None:
    intervals = Scores(np.array([5, 8, 0]), np.array([10, 10, 0])).intervals(draws=200)
    assert np.isnan(intervals["worst_class"]).all()
    assert np.isnan(intervals["balanced"]).all()
    assert np.isfinite(intervals["standard"]).all()


@pytest.mark.parametrize("cells", [1, 7, 100])
def test_intervals_do_not_depend_on_how_many_draws_are_made_at_once(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores(np.array([80, 60, 0, 3]), np.array([100, 100, 50, 5]))
    whole = scores.intervals(draws=30)
    monkeypatch.setattr(metrics, "_CELLS", cells)
    assert scores.intervals(draws=30) == whole


def test_intervals_of_many_classes_fit_into_memory() -> None:
    """All 100 draws of 50,000 classes at once would take 40 MB an array."""
    scores = Scores(np.full(50_000, 3), np.full(50_000, 4))
    tracemalloc.start()
    scores.intervals(draws=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


# ---- records


def test_as_dict_is_plain_and_round_trips() -> None:
    scores = Scores(np.array([80, 60, 45]), np.array([100, 100, 90]), class_names=("cat", "dog", "ship"))
    plain = json.loads(json.dumps(scores.as_dict()))
    assert plain["correct"] == [80, 60, 45]
    assert plain["counts"] == [100, 100, 90]
    assert plain["worst_class"] == pytest.approx(0.5)
    assert plain["balanced"] == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert plain["standard"] == pytest.approx(185 / 290)
    again = Scores.from_dict(plain)
    np.testing.assert_array_equal(again.correct, scores.correct)
    np.testing.assert_array_equal(again.counts, scores.counts)
    assert again.as_dict() == scores.as_dict()


def test_as_dict_with_an_absent_class_round_trips() -> None:
    scores = Scores(np.array([5, 0]), np.array([10, 0]))
    again = Scores.from_dict(json.loads(json.dumps(scores.as_dict())))
    assert math.isnan(again.worst_class)
    assert math.isnan(again.per_class[1])
    assert again.standard == 0.5


# ---- bad input


@pytest.mark.parametrize(
    ("predictions", "labels", "named"),
    [
        ([0, 3], [0, 1], "predictions"),
        ([0, -1], [0, 1], "predictions"),
        ([0, 1], [0, 3], "labels"),
        ([0, 1], [-1, 1], "labels"),
        ([0, 1, 2], [0, 1], "predictions|labels"),
        ([[0, 1]], [[0, 1]], "predictions|labels"),
        ([0.5, 1.0], [0, 1], "predictions"),
        ([0, 1], [0.0, math.nan], "labels"),
        (np.zeros(0, dtype=complex), [], "predictions"),
    ],
)
def test_refuses_what_is_not_a_class(predictions: list[object], labels: list[object], named: str) -> None:
    for function in (
        metrics.per_class_recall,
        metrics.worst_class_accuracy,
        metrics.balanced_accuracy,
        metrics.standard_accuracy,
    ):
        with pytest.raises(InputError, match=named):
            function(np.array(predictions), labels=np.array(labels), num_classes=3)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_refuses_a_k_that_is_not_a_number_of_classes(k: int) -> None:
    with pytest.raises(InputError, match="k"):
        metrics.worst_k_accuracy(PREDICTIONS, labels=LABELS, num_classes=3, k=k)
    with pytest.raises(InputError, match="k"):
        Scores(np.array([3, 1, 1]), np.array([4, 2, 4])).worst_k(k)


@pytest.mark.parametrize(
    ("correct", "counts"), [([3, 1], [2, 1]), ([-1, 1], [2, 1]), ([1, 1, 1], [2, 1]), ([0, 0], [-1, 2])]
)
def test_scores_refuse_counts_that_cannot_be(correct: list[int], counts: list[int]) -> None:
    with pytest.raises(InputError):
        Scores(np.array(correct), np.array(counts))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_refuses_a_level_that_is_not_a_fraction(level: float) -> None:
    scores = Scores(np.array([3, 1]), np.array([4, 2]))
    with pytest.raises(InputError, match="level"):
        scores.wilson(level)
    with pytest.raises(InputError, match="level"):
        scores.intervals(level=level)

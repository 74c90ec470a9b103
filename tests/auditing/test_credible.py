from __future__ import annotations

import numpy as np
import pytest

from auditing.reference import chance_of_worst
from robustdistill import Scores
from robustdistill.auditing import worst


def scores(correct: list[int], counts: list[int]) -> Scores:
    return Scores(np.array(correct), np.array(counts))


@pytest.mark.parametrize(("correct", "counts"), [([6, 8, 3], [10, 10, 5]), ([40, 30], [50, 50])])
def test_probabilities_are_those_of_an_integral(correct: list[int], counts: list[int]) -> None:
    found = worst(scores(correct, counts), draws=40_000)
    np.testing.assert_allclose(found.probability, chance_of_worst(correct, counts), atol=0.012)
    assert found.probability.sum() == pytest.approx(1)


def test_equal_classes_share_the_probability() -> None:
    found = worst(scores([80] * 4, [100] * 4), draws=20_000)
    np.testing.assert_allclose(found.probability, 0.25, atol=0.015)
    assert len(found.candidates) == 4
    assert np.isinf(found.further).sum() >= 1 or found.further.max() > 1000


def test_a_clear_case_is_settled_and_needs_no_more_examples() -> None:
    found = worst(scores([20, 90, 95, 92], [100] * 4))
    assert found.settled
    assert found.candidates == (0,)
    assert found.probability[0] > 0.999
    assert found.further[0] == 0
    assert np.isnan(found.further[1:]).all()
    mean, low, high = found.lowest
    assert low < mean < high
    assert 0.12 < low < 0.2 < high < 0.31


def test_bad_luck_is_not_taken_for_a_bad_class() -> None:
    """Fifty classes, all as good as one another: the lowest recall observed is low by chance alone."""
    rng = np.random.default_rng(0)
    correct = rng.binomial(20, 0.8, size=50)
    found = worst(Scores(correct, np.full(50, 20)))
    unlucky = int(correct.argmin())
    assert correct[unlucky] / 20 <= 0.6
    assert found.probability[unlucky] < 0.5
    assert len(found.candidates) > 10
    assert found.expected[unlucky] > 0.7
    # The lowest recall of all is not as low as it looks.
    assert found.lowest[0] > correct[unlucky] / 20 + 0.1


def test_probabilities_are_honest() -> None:
    """Where it says 60 %, the class is the worst in about 60 % of worlds, drawn from a population it does not know."""
    rng = np.random.default_rng(1)
    claimed, true = [], []
    for _ in range(100):
        recalls = rng.beta(8, 3, size=8)
        found = worst(Scores(rng.binomial(40, recalls), np.full(8, 40)), draws=400)
        claimed.append(found.probability.max())
        true.append(found.probability.argmax() == recalls.argmin())
    assert abs(np.mean(claimed) - np.mean(true)) < 0.1
    assert 0.4 < np.mean(true) < 0.95


def test_candidates_hold_the_worst_class_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    held = []
    for _ in range(100):
        recalls = rng.beta(5, 2, size=10)
        counts = rng.integers(5, 80, size=10)
        found = worst(Scores(rng.binomial(counts, recalls), counts), draws=400)
        held.append(int(recalls.argmin()) in found.candidates)
    assert np.mean(held) > 0.9


def test_the_further_examples_settle_it_four_times_in_five() -> None:
    """Draws the two classes anew with as many more examples as advised."""
    rng = np.random.default_rng(3)
    now = worst(scores([60, 68, 95, 96, 97], [100] * 5), draws=20_000)
    assert now.candidates == (0, 1)
    more = int(now.further[1])
    assert 100 < more < 3000
    settled = []
    for _ in range(40):
        fresh = rng.binomial(more, now.expected[:2])
        then = worst(scores([60 + fresh[0], 68 + fresh[1], 95, 96, 97], [100 + more] * 2 + [100] * 3), draws=400)
        settled.append(then.probability[0] >= 0.95)
    assert 0.65 < np.mean(settled) < 0.99


def test_more_examples_need_fewer_more() -> None:
    few, many = (worst(scores([6 * n, 7 * n, 19 * n // 2], [10 * n] * 3), draws=8000) for n in (2, 8))
    assert few.further[1] > many.further[1]


def test_classes_without_examples_are_left_out() -> None:
    found = worst(scores([5, 0, 9], [10, 0, 10]), k=2)
    assert np.isnan(found.probability[1])
    assert np.nansum(found.probability) == pytest.approx(1)
    assert 1 not in found.candidates
    assert found.among_k[0] == 1


def test_among_the_k_lowest() -> None:
    found = worst(scores([10, 30, 90, 95, 99], [100] * 5), k=2)
    np.testing.assert_allclose(found.among_k, [1, 1, 0, 0, 0], atol=0.01)


def test_draws_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    first = worst(scores([5, 7, 9], [10] * 3), draws=1000)
    again = worst(scores([5, 7, 9], [10] * 3), draws=1000)
    np.testing.assert_array_equal(first.probability, again.probability)
    monkeypatch.setattr("robustdistill.auditing.credible._CELLS", 30)
    blocks = worst(scores([5, 7, 9], [10] * 3), draws=1000)
    np.testing.assert_allclose(blocks.probability, first.probability, atol=0.06)

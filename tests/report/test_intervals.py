from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from report.records import record, save
from report.reference import paired_bootstrap as slow_paired_bootstrap
from report.reference import t_probability
from robustdistill.errors import InputError
from robustdistill.experiments.journal import scan
from robustdistill.experiments.select import Group, choose
from robustdistill.metrics import Scores
from robustdistill.predictions import Predictions
from robustdistill.report import intervals


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423)])
def test_t_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert intervals.t_quantile(degrees) == pytest.approx(quantile, abs=1e-4)


@pytest.mark.parametrize("degrees", [3, 6, 11])
def test_t_quantiles_hold_the_level_by_integration(degrees: int) -> None:
    for level in (0.8, 0.95):
        assert t_probability(intervals.t_quantile(degrees, level), degrees) == pytest.approx(level, abs=1e-3)


def test_no_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        intervals.t_quantile(0)


def test_over_repeats_is_mean_and_t() -> None:
    values = [0.31, 0.35, 0.42, 0.30]
    found = intervals.over_repeats(values)
    assert found is not None
    half = 3.182446 * np.std(values, ddof=1) / math.sqrt(4)
    assert (found.value, found.low, found.high) == pytest.approx(
        (np.mean(values), np.mean(values) - half, np.mean(values) + half)
    )
    assert intervals.over_repeats([]) is None
    assert intervals.over_repeats([0.5]) == intervals.Interval(0.5, None, None, 1)


def group(root: Path, repeats: int = 2) -> Group:
    for repeat in range(repeats):
        save(root, record("teacher", repeat=repeat, epochs=1))
    return choose(scan(root)).groups[0]


def test_the_bootstrap_of_the_worst_one_is_that_of_the_worst_class(tmp_path: Path) -> None:
    found = group(tmp_path)
    by_scores = [
        Scores.from_dict(metrics.model_dump()).intervals(0.95, intervals.DRAWS)["worst_class"]
        for metrics in found.metrics("test")
    ]
    mean = tuple(np.mean(by_scores, axis=0))
    assert intervals.group_interval(found, "worst_class", "test") == pytest.approx(mean)
    assert intervals.group_interval(found, "worst_1", "test") == pytest.approx(mean)


def test_the_bootstrap_of_the_worst_k_lies_between_the_worst_class_and_the_mean(tmp_path: Path) -> None:
    found = group(tmp_path)
    ends = [intervals.group_interval(found, metric, "test") for metric in ("worst_class", "worst_3", "balanced")]
    assert all(ends)
    lows, highs = zip(*(end for end in ends if end), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)


def test_a_class_without_examples_has_no_bootstrap(tmp_path: Path) -> None:
    content = record("teacher", epochs=1)
    metrics = content["metrics"]["test"]
    metrics["correct"][0] = metrics["counts"][0] = 0
    metrics |= {"worst_class": None, "balanced": None}
    save(tmp_path, content)
    assert intervals.group_interval(choose(scan(tmp_path)).groups[0], "worst_class", "test") is None


def table(right: np.ndarray, labels: np.ndarray) -> Predictions:
    predicted = np.where(right, labels, (labels + 1) % 3)
    return Predictions(np.arange(len(labels)), predicted, "classes", ("a", "b", "c"), labels=labels)


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], (60, 40, 30))
    hard = rng.random(len(labels))
    return np.stack([hard < share for share in (0.5, 0.55, 0.7, 0.75)], axis=1), labels


@pytest.mark.parametrize(("metric", "k"), [("worst_class", 1), ("worst_2", 2), ("balanced", 3)])
def test_the_paired_bootstrap_is_its_slow_twin(outcomes: tuple[np.ndarray, np.ndarray], metric: str, k: int) -> None:
    right, labels = outcomes
    tables = [table(column, labels) for column in right.T]
    found = intervals.paired_bootstrap(tables[:2], tables[2:], metric, draws=4000)
    value, (low, high) = slow_paired_bootstrap(right, labels, draws=4000, seed=1, k=k)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)


def test_pairing_narrows_what_the_examples_leave_open(outcomes: tuple[np.ndarray, np.ndarray]) -> None:
    """The models err on the same hard examples, so the paired interval is narrower than two apart would be."""
    right, labels = outcomes
    first, second = table(right[:, 0], labels), table(right[:, 3], labels)
    paired = intervals.paired_bootstrap([first], [second], "balanced")
    assert paired.low is not None
    assert paired.high is not None
    alone = [one.evaluate().intervals()["balanced"] for one in (first, second)]
    assert paired.high - paired.low < math.hypot(*(high - low for low, high in alone))
    same = intervals.paired_bootstrap([first], [first], "worst_class")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_tables_that_do_not_fit_are_refused(outcomes: tuple[np.ndarray, np.ndarray]) -> None:
    right, labels = outcomes
    first = table(right[:, 0], labels)
    other = table(right[:, 0], np.roll(labels, 1))
    with pytest.raises(InputError, match="labels differ"):
        intervals.paired_bootstrap([first], [other], "worst_class")
    with pytest.raises(InputError, match="each repeat"):
        intervals.paired_bootstrap([first], [], "worst_class")
    unlabelled = Predictions(first.ids, first.scores, "classes", first.class_names)
    with pytest.raises(InputError, match="needs labels"):
        intervals.paired_bootstrap([unlabelled], [first], "worst_class")


def test_runs_are_paired_by_repeat_where_they_store_predictions(
    tmp_path: Path, outcomes: tuple[np.ndarray, np.ndarray]
) -> None:
    right, labels = outcomes
    for repeat in range(2):
        for number, objective in enumerate(("standard", "robust")):
            folder = save(tmp_path, record("teacher", objective=objective, repeat=repeat, epochs=1)).parent
            if repeat == 0:
                (folder / "predictions").mkdir()
                table(right[:, 3 * number], labels).write(folder / "predictions" / "test.npz")
    by_name = {one.objective: one for one in choose(scan(tmp_path)).groups}
    found = intervals.paired_groups(by_name["standard"], by_name["robust"], "balanced", "test")
    assert found is not None
    assert found.n == 1
    assert found.value > 0.1
    assert intervals.paired_groups(by_name["standard"], by_name["robust"], "balanced", "val") is None

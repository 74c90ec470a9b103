from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import robustdistill as rd
from auditing.reference import made_up, mcnemar
from robustdistill.auditing.comparison import holm
from robustdistill.errors import InputError


def pair(n: int = 400, classes: int = 5) -> tuple[rd.Predictions, rd.Predictions]:
    """The second is noisier but leans to the last class."""
    first = made_up(n, classes)
    noise = np.random.default_rng(9).normal(size=first.scores.shape) * 0.7
    noise[:, -1] += 1.5
    return first, replace(first, scores=first.scores + noise)


def test_figures_and_outcomes_are_those_of_each_table() -> None:
    first, second = pair()
    found = rd.compare(first, second, names=("a", "b"))
    one, other = first.evaluate(), second.evaluate()
    for name, change in found.measures.items():
        values = (one.worst_k(2), other.worst_k(2)) if name == "worst_k" else (getattr(one, name), getattr(other, name))
        assert (change.first, change.second) == pytest.approx(values)
        assert change.difference == pytest.approx(values[1] - values[0])
        assert change.low <= change.high
    right = first.predicted == first.labels, second.predicted == second.labels
    for index, line in enumerate(found.classes):
        mine = first.labels == index
        assert line.only_first == (mine & right[0] & ~right[1]).sum()
        assert line.only_second == (mine & right[1] & ~right[0]).sum()
        assert line.p_value == pytest.approx(mcnemar(line.only_first, line.only_second))
        assert line.low <= line.difference <= line.high
    assert found.classes[-1].difference > 0
    assert found.classes[-1].clear
    assert found.sorted()[-1].name == "class 4"
    assert found.as_dict()["measures"]["balanced"]["clear"] == found.measures["balanced"].clear


def test_the_bootstrap_is_paired_and_within_classes() -> None:
    """Its spread is that of resampling whole examples, each with what both classifiers make of it."""
    first, second = pair()
    found = rd.compare(first, second, draws=3000)
    rng = np.random.default_rng(0)
    right = np.stack([first.predicted == first.labels, second.predicted == second.labels])
    members = [np.flatnonzero(first.labels == index) for index in range(5)]
    drawn = []
    for _ in range(600):
        recalls = np.array([right[:, rng.choice(rows, len(rows))].mean(axis=1) for rows in members])
        drawn.append([np.diff(recalls.min(axis=0))[0], np.diff(recalls.mean(axis=0))[0]])
    for name, values in zip(("worst_class", "balanced"), np.array(drawn).T, strict=True):
        change = found.measures[name]
        np.testing.assert_allclose([change.low, change.high], np.quantile(values, [0.025, 0.975]), atol=0.025)
        assert change.better == pytest.approx((values > 0).mean() + (values == 0).mean() / 2, abs=0.05)


def test_a_classifier_against_itself_has_not_changed() -> None:
    table = made_up(100)
    found = rd.compare(table, table)
    for change in found.measures.values():
        assert (change.difference, change.low, change.high, change.better) == (0, 0, 0, 0.5)
        assert not change.clear
    assert all(line.adjusted == 1 for line in found.classes)


def test_swapping_the_two_turns_every_sign() -> None:
    first, second = pair(200)
    there, back = rd.compare(first, second), rd.compare(second, first)
    for name in there.measures:
        assert back.measures[name].difference == pytest.approx(-there.measures[name].difference)
    assert [line.adjusted for line in there.classes] == pytest.approx([line.adjusted for line in back.classes])


def test_rows_are_joined_by_id_and_classes_by_name() -> None:
    first, second = pair(200)
    moved = second.match_classes(second.class_names[::-1]).rows(np.random.default_rng(0).permutation(200))
    assert rd.compare(first, moved).as_dict() == rd.compare(first, second).as_dict()


def test_labels_may_be_in_either_and_must_agree() -> None:
    first, second = pair(50)
    expected = rd.compare(first, second).as_dict()
    assert rd.compare(replace(first, labels=None), second).as_dict() == expected
    assert rd.compare(first, replace(second, labels=None)).as_dict() == expected
    with pytest.raises(InputError, match="neither of the two has any"):
        rd.compare(replace(first, labels=None), replace(second, labels=None))
    labels = second.labels.copy()
    labels[7] = (labels[7] + 1) % 5
    with pytest.raises(InputError, match=r"labels of the two must agree; 1 differ, first id 'row 7'"):
        rd.compare(first, replace(second, labels=labels))


def test_different_ids_are_refused_or_left_out_aloud() -> None:
    first, second = pair(50)
    fewer = second.rows(np.arange(2, 50))
    with pytest.raises(InputError, match=r"2 are only in the first, 0 only in the second \(such as 'row 0'"):
        rd.compare(first, fewer)
    found = rd.compare(first, fewer, common=True)
    assert found.rows == 48
    assert "48 ids" in found.notes[0]
    strangers = replace(second, ids=np.array([f"other {i}" for i in range(50)]))
    with pytest.raises(InputError, match="no id is in both"):
        rd.compare(first, strangers, common=True)
    with pytest.raises(InputError, match="ids of the two must be of one kind"):
        rd.compare(first, replace(second, ids=np.arange(50)))


def test_row_numbers_in_the_place_of_ids_are_pointed_out() -> None:
    first, second = (replace(table, ids=np.arange(50)) for table in pair(50))
    assert "row numbers" in rd.compare(first, second).notes[0]


def test_a_class_without_examples_leaves_figures_unknown() -> None:
    first, second = pair(100)
    kept = first.labels != 1
    found = rd.compare(first.rows(kept), second.rows(kept))
    assert math.isnan(found.measures["worst_class"].difference)
    assert not math.isnan(found.measures["standard"].difference)
    assert "class 1" in found.notes[-1]


def test_holm_by_hand() -> None:
    assert holm(np.array([0.04, 0.001, 0.02, 0.5])).tolist() == pytest.approx([0.08, 0.004, 0.06, 0.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_between_the_raw_and_bonferroni(values: list[float]) -> None:
    raw = np.array(values)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()

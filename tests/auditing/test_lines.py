from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robustdistill as rd
from auditing.reference import calibration_error, cell, made_up
from robustdistill.auditing import Line
from robustdistill.auditing.tallies import tally
from robustdistill.errors import InputError


def assert_line(line: Line, expected: dict[str, object]) -> None:
    for key in ("count", "correct", "predicted"):
        assert getattr(line, key) == expected[key], key
    for key in ("precision", "confidence", "calibration_error"):
        assert getattr(line, key) == pytest.approx(expected[key], nan_ok=True, rel=1e-6), key
    mistakes = expected["mistakes"]
    assert isinstance(mistakes, dict)
    assert all(mistakes[name] == count for name, count in line.mistaken_for)
    counts = [count for _, count in line.mistaken_for]
    assert counts == sorted(mistakes.values(), reverse=True)[:3]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_every_line_is_what_the_definitions_say(kind: str) -> None:
    table = made_up(300, groups=True, kind=kind)
    found = rd.audit(table, draws=50)
    for line in found.classes.lines:
        assert_line(line, cell(table, line.name, None))
    assert found.groups is not None
    assert [line.name for line in found.groups.lines] == ["9", "10", "north", "south"]
    for line in found.groups.lines:
        assert_line(line, cell(table, None, line.name))
    assert found.cells is not None
    assert len(found.cells.lines) == 16
    for line in found.cells.lines:
        assert_line(line, cell(table, line.name, line.group))
    assert sum(line.count for line in found.cells.lines) == len(table)


def test_class_wise_calibration_is_over_all_examples() -> None:
    table = made_up(200)
    chances = table.probabilities()
    for index, line in enumerate(rd.audit(table, draws=50).classes.lines):
        expected = calibration_error(chances[:, index].tolist(), (table.labels == index).tolist())
        assert line.class_calibration_error == pytest.approx(expected, rel=1e-9)


def test_overall_calibration_log_loss_and_brier() -> None:
    table = made_up(200)
    found, chances = rd.audit(table, draws=50), table.probabilities()
    right = (table.predicted == table.labels).tolist()
    assert found.confidence == pytest.approx(chances.max(axis=1).mean())
    assert found.calibration_error == pytest.approx(calibration_error(chances.max(axis=1).tolist(), right))
    assert found.calibration is not None
    at_label = chances[np.arange(200), table.labels]
    assert found.calibration.log_loss == pytest.approx(-np.log(at_label).mean())
    assert found.calibration.brier == pytest.approx(((chances - np.eye(4)[table.labels]) ** 2).sum(axis=1).mean())


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made_up(100)
    whole = rd.audit(table, draws=50).as_dict()
    monkeypatch.setattr("robustdistill.predictions.CELLS", 28)
    parts = rd.audit(table, draws=50).as_dict()
    assert parts["calibration"] == pytest.approx(whole["calibration"])
    for one, other in zip(whole["classes"], parts["classes"], strict=True):
        assert one["calibration_error"] == pytest.approx(other["calibration_error"])
        assert one["class_calibration_error"] == pytest.approx(other["class_calibration_error"])


@settings(max_examples=15)
@given(st.permutations(range(4)), st.integers(0, 99))
def test_the_order_of_rows_and_classes_does_not_matter(order: list[int], seed: int) -> None:
    table = made_up(60, seed=seed)
    moved = table.match_classes([table.class_names[index] for index in order])
    moved = moved.rows(np.random.default_rng(seed).permutation(len(table)))
    one, other = ({line.name: line for line in rd.audit(t, draws=50).classes.lines} for t in (table, moved))
    for name, line in one.items():
        for key in ("count", "correct", "predicted", "recall", "interval"):
            assert getattr(other[name], key) == pytest.approx(getattr(line, key))


def test_predicted_classes_have_no_calibration() -> None:
    found = rd.audit(made_up(kind="classes"), draws=50)
    assert found.calibration is None
    assert math.isnan(found.confidence)
    assert math.isnan(found.classes.lines[0].confidence)
    assert found.classes.lines[0].precision > 0
    assert any("calibration" in note for note in found.notes)


def test_measures_are_those_of_scores() -> None:
    table = made_up(300, classes=6)
    found, scores = rd.audit(table, worst_k=3), table.evaluate()
    assert found.k == 3
    assert found.values() == {
        "worst_class": scores.worst_class,
        "worst_k": scores.worst_k(3),
        "balanced": scores.balanced,
        "standard": scores.standard,
    }
    assert (found.measures["balanced"].low, found.measures["balanced"].high) == scores.intervals()["balanced"]
    low, high = found.measures["worst_k"].low, found.measures["worst_k"].high
    assert low < scores.worst_k(3) < high
    assert rd.audit(table, draws=50).k == 2
    assert rd.audit(made_up(60, classes=3), draws=50).k is None


def test_a_class_without_examples_is_unknown_unless_it_is_left_out() -> None:
    table = made_up(200)
    table = table.rows(table.labels != 2)
    found = rd.audit(table, draws=50)
    assert found.absent == ("class 2",)
    assert math.isnan(found.values()["worst_class"])
    assert math.isnan(found.values()["worst_k"])
    assert found.values()["standard"] > 0
    assert any("class 2" in note for note in found.notes)
    kept = rd.audit(table, draws=50, leave_out_absent=True)
    assert kept.values()["worst_class"] == min(line.recall for line in kept.classes.lines if line.count)
    assert kept.left_out


def test_confusions_are_by_share() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    predicted = [1, 1, 0, 0, 2, 1, 2, 2]
    table = rd.Predictions(range(8), predicted, "classes", ("a", "b", "c"), labels)
    assert rd.audit(table, draws=50).confusions() == [("a", "b", 2, 0.5), ("b", "c", 1, 0.5)]


def test_what_cannot_be_audited_is_refused() -> None:
    table = made_up(50)
    unlabelled = rd.Predictions(table.ids, table.scores, "logits", table.class_names)
    with pytest.raises(InputError, match="an audit needs labels"):
        rd.audit(unlabelled)
    with pytest.raises(InputError, match=r"worst_k must lie in 1\.\.4, got 5"):
        rd.audit(table, worst_k=5)
    mixed = rd.Predictions(
        table.ids, table.scores, "logits", table.class_names, table.labels, None, ["val", "test"] * 25
    )
    with pytest.raises(InputError, match="holds 2: test, val; choose with split="):
        rd.audit(mixed)
    assert rd.audit(mixed.split("val"), draws=50).rows == 25
    monkey = rd.Predictions(table.ids, table.scores, "logits", table.class_names, table.labels, table.ids)
    assert len(tally(monkey).groups) == 50


def test_absurdly_many_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made_up(50)
    monkeypatch.setattr("robustdistill.auditing.tallies.MOST_CELLS", 100)
    by_id = rd.Predictions(table.ids, table.scores, "logits", table.class_names, table.labels, table.ids)
    with pytest.raises(InputError, match="groups must be few, got 50 of them"):
        rd.audit(by_id)

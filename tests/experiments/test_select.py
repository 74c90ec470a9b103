from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from report.records import record
from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Group, Selection, choose, estimate, measure


def run(
    temperature: float, repeat: int, val: tuple[float, float], test: float = 0.5, role: str = "student", **settings: Any
) -> Record:
    """A record with a given worst and balanced accuracy on validation and worst on test."""
    content = record(role, temperature=temperature, repeat=repeat, epochs=1, **settings)
    content["metrics"]["val"] |= {"worst_class": val[0], "balanced": val[1]}
    content["metrics"]["test"] |= {"worst_class": test}
    return Record.model_validate(content)


def only(selection: Selection) -> Group:
    (group,) = selection.groups
    return group


def test_estimate_is_mean_and_standard_error() -> None:
    values = [0.2, 0.4, 0.9]
    found = estimate(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    assert found.n == 3


def test_one_repeat_has_no_standard_error_and_none_has_no_estimate() -> None:
    single = estimate([0.5])
    assert single is not None
    assert single.error is None
    assert estimate([]) is None


def test_the_best_mean_over_repeats_on_validation_wins() -> None:
    # One lucky repeat at T = 1 has the highest single figure; the mean decides.
    runs = [run(1.0, 0, (0.9, 0.9)), run(1.0, 1, (0.1, 0.9)), run(3.0, 0, (0.6, 0.7)), run(3.0, 1, (0.6, 0.7))]
    group = only(choose(runs))
    assert group.temperature == 3.0
    assert [item.repeat for item in group.records] == [0, 1]
    assert {pair[0] for pair in group.candidates} == {1.0, 3.0}


def test_test_results_never_enter_the_choice() -> None:
    runs = [run(1.0, 0, (0.6, 0.7), test=0.0), run(3.0, 0, (0.5, 0.9), test=1.0)]
    assert only(choose(runs)).temperature == 1.0


def test_ties_go_to_balanced_accuracy_then_to_the_lower_temperature() -> None:
    assert only(choose([run(1.0, 0, (0.5, 0.6)), run(3.0, 0, (0.5, 0.7))])).temperature == 3.0
    assert only(choose([run(5.0, 0, (0.5, 0.6)), run(3.0, 0, (0.5, 0.6))])).temperature == 3.0


def test_a_temperature_with_fewer_repeats_does_not_compete() -> None:
    selection = choose([run(1.0, 0, (0.99, 0.99)), run(3.0, 0, (0.5, 0.6)), run(3.0, 1, (0.5, 0.6))])
    assert only(selection).temperature == 3.0
    assert "fewer repeats" in selection.rule


def test_a_run_without_validation_is_chosen_last() -> None:
    blind = run(1.0, 0, (0.9, 0.9)).model_dump(by_alias=True)
    blind["metrics"]["val"] = None
    undefined = run(5.0, 0, (math.nan, 0.9))
    assert only(choose([Record.model_validate(blind), undefined, run(3.0, 0, (0.1, 0.2))])).temperature == 3.0


def test_pairs_of_temperatures_compete_where_the_teacher_labels_validation() -> None:
    labelled = {"objective": "robust", "labels": "teacher"}
    runs = [
        run(3.0, 0, (0.4, 0.5), validation_temperature=3.0, **labelled),
        run(3.0, 0, (0.6, 0.5), validation_temperature=0.1, **labelled),
    ]
    group = only(choose(runs))
    assert (group.temperature, group.validation_temperature) == (3.0, 0.1)
    assert len(group.candidates) == 2


def test_groups_are_apart_by_role_objectives_and_validation_labels() -> None:
    runs = [
        run(1.0, 0, (0.5, 0.5), role="teacher", objective="robust"),
        run(1.0, 0, (0.5, 0.5), objective="robust", labels="teacher"),
        run(1.0, 0, (0.5, 0.5), objective="robust", labels="one-hot"),
        run(1.0, 0, (0.5, 0.5), objective="robust", labels="one-hot", teacher_objective="robust"),
        run(1.0, 0, (0.5, 0.5), objective="balanced"),
        run(1.0, 0, (0.5, 0.5), objective="balanced", method="ada_margin"),
    ]
    kinds = {
        (g.role, g.teacher_objective, g.student_objective, g.validation_labels, g.method) for g in choose(runs).groups
    }
    assert kinds == {
        ("teacher", "robust", None, "one-hot", "margin"),
        ("student", "standard", "robust", "teacher", "margin"),
        ("student", "standard", "robust", "one-hot", "margin"),
        ("student", "robust", "robust", "one-hot", "margin"),
        ("student", "standard", "balanced", None, "margin"),
        ("student", "standard", "balanced", None, "ada_margin"),
    }


def test_students_of_differently_trained_teachers_are_apart() -> None:
    short = run(1.0, 0, (0.5, 0.5), role="teacher")
    long = Record.model_validate(record("teacher", repeat=1, epochs=1, recipe={"epochs": 99}))
    students = []
    for repeat, teacher in enumerate((short, long)):
        content = run(1.0, repeat, (0.5, 0.5)).model_dump(by_alias=True)
        content["spec"]["distillation"]["teacher"] = teacher.hash
        students.append(Record.model_validate(content))
    together = [group for group in choose(students).groups if group.role == "student"]
    apart = [group for group in choose([short, long, *students]).groups if group.role == "student"]
    assert len(together) == 1
    assert len(apart) == 2


def test_the_rule_is_a_sentence_and_says_where_nothing_was_selected() -> None:
    selected = choose([run(1.0, 0, (0.6, 0.7)), run(3.0, 0, (0.5, 0.9))]).rule
    assert "worst-class accuracy on the validation split" in selected
    assert "Test results took no part" in selected
    assert "nothing was selected" in choose([run(1.0, 0, (0.6, 0.7))]).rule


def test_the_worst_metric_in_use_may_be_worst_k() -> None:
    steady, uneven = record(temperature=1.0, classes=4, epochs=1), record(temperature=3.0, classes=4, epochs=1)
    for content, correct in ((steady, [50, 50, 50, 50]), (uneven, [40, 80, 90, 90])):
        share = np.array(correct) / 90
        content["metrics"]["val"] |= {"correct": correct, "worst_class": share.min(), "balanced": share.mean()}
    runs = [Record.model_validate(steady), Record.model_validate(uneven)]
    assert only(choose(runs)).temperature == 1.0
    assert only(choose(runs, worst="worst_2")).temperature == 3.0
    assert runs[1].metrics.val is not None
    assert measure(runs[1].metrics.val, "worst_2") == pytest.approx(120 / 180)


@pytest.mark.parametrize("metric", ["balanced", "worst_", "worst_x", "best"])
def test_an_unknown_worst_metric_is_refused(metric: str) -> None:
    with pytest.raises(InputError, match="worst"):
        choose([], worst=metric)
    found = run(1.0, 0, (0.5, 0.5)).metrics.val
    assert found is not None
    if metric != "balanced":
        with pytest.raises(InputError, match=metric):
            measure(found, metric)


@pytest.mark.parametrize(
    ("scorers", "said"),
    [
        (("last", "last"), "The last iterate of each run is its model."),
        (("averaged", "averaged"), "The mean of the logits of a run's iterates, at most 16 of them, is its model."),
        (("last", "averaged"), "where scorer=averaged"),
    ],
)
def test_the_rule_says_what_the_model_of_a_run_is(scorers: tuple[str, str], said: str) -> None:
    records = []
    for repeat, scorer in enumerate(scorers):
        content = record(repeat=repeat)
        content["spec"]["scorer"] = scorer
        records.append(Record.model_validate(content))
    assert said in choose(records).rule

"""Every claim with made-up runs that confirm it, refute it and leave it undecided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.records import record, save
from robustdistill.experiments.journal import Record, scan
from robustdistill.experiments.select import choose
from robustdistill.predictions import Predictions
from robustdistill.report import claims
from robustdistill.report.claims import Ledger, Verdict
from robustdistill.report.panels import Panel, panels

Content = dict[str, Any]


def run(
    role: str, value: float, repeat: int, *, val: float | None = None, balanced: float = 0.7, **settings: Any
) -> Content:
    """A run with this worst-class accuracy on test, and on validation the same unless told."""
    content = record(role, repeat=repeat, epochs=1, classes=2, **settings)
    content["metrics"]["test"] |= {"worst_class": value, "balanced": balanced}
    content["metrics"]["val"] |= {"worst_class": value if val is None else val, "balanced": balanced}
    return content


def panel(contents: Sequence[Content]) -> Panel:
    (found,) = panels(choose([Record.model_validate(content) for content in contents]))
    return found


def judged(contents: Sequence[Content], name: str) -> Verdict:
    found = claims.ledger(panel(contents))
    return next(verdict for verdict in found.verdicts if verdict.claim.name == name)


def students(values: Sequence[float], **settings: Any) -> list[Content]:
    return [run("student", value, repeat, **settings) for repeat, value in enumerate(values)]


def teachers(values: Sequence[float], **settings: Any) -> list[Content]:
    return [run("teacher", value, repeat, **settings) for repeat, value in enumerate(values)]


@pytest.mark.parametrize(
    ("robust", "plain", "outcome"),
    [
        ((0.50, 0.52, 0.51), (0.30, 0.33, 0.31), "confirmed"),
        ((0.30, 0.33, 0.31), (0.50, 0.52, 0.51), "refuted"),
        ((0.30, 0.60, 0.41), (0.40, 0.42, 0.41), "undecided"),
        ((0.90,), (0.10,), "undecided"),
    ],
)
def test_the_best_combination_is_robust(robust: tuple[float, ...], plain: tuple[float, ...], outcome: str) -> None:
    contents = students(robust, objective="robust", labels="teacher") + students(plain, objective="balanced")
    found = judged(contents, "robust-is-best")
    assert found.outcome == outcome
    assert found.interval is not None
    assert found.interval.value == pytest.approx(np.mean(robust) - np.mean(plain))


def test_a_robust_teacher_is_enough_and_validation_picks() -> None:
    contents = students((0.5, 0.52, 0.51), teacher_objective="robust", val=0.6)
    contents += students((0.9, 0.91, 0.92), objective="robust", val=0.3)
    contents += students((0.3, 0.31, 0.33), val=0.2)
    found = judged(contents, "robust-is-best")
    assert found.outcome == "confirmed"
    assert "Robust teacher → standard student" in found.reason


def correlated(own: dict[str, tuple[float, ...]], of_students: dict[str, tuple[float, ...]]) -> Verdict:
    contents = []
    for objective, values in own.items():
        contents += teachers(values, objective=objective)
        contents += students(of_students[objective], teacher_objective=objective)
    return judged(contents, "teacher-does-not-predict")


OWN = {"standard": (0.1, 0.11, 0.12), "balanced": (0.4, 0.42, 0.41), "robust": (0.6, 0.61, 0.63)}


def test_a_teacher_s_worst_class_that_predicts_refutes() -> None:
    same = {name: tuple(value - 0.02 + 0.001 * k for k, value in enumerate(values)) for name, values in OWN.items()}
    found = correlated(OWN, same)
    assert found.outcome == "refuted"
    assert found.interval is not None
    assert found.interval.high is not None
    assert found.interval.high <= 1


def test_a_teacher_s_worst_class_that_misleads_confirms() -> None:
    other = {"standard": (0.50, 0.51, 0.52), "balanced": (0.41, 0.42, 0.40), "robust": (0.2, 0.22, 0.21)}
    found = correlated(OWN, other)
    assert found.outcome == "confirmed"
    x = [OWN[name][0] for name in OWN]
    y = [other[name][0] for name in OWN]
    assert found.interval is not None
    assert found.interval.n == 3
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(found.interval.value, abs=0.02)


def test_correlations_that_disagree_leave_it_open() -> None:
    mixed = {"standard": (0.1, 0.5, 0.3), "balanced": (0.3, 0.3, 0.2), "robust": (0.5, 0.1, 0.31)}
    assert correlated(OWN, mixed).outcome == "undecided"
    two = {name: OWN[name] for name in ("standard", "robust")}
    assert "at least three teachers" in correlated(two, OWN).reason


def test_only_kinds_of_students_that_all_teachers_have_are_compared() -> None:
    """The robust teacher alone has a very good robust student, which says nothing of the teachers."""
    same = {name: tuple(0.5 - value / 2 + 0.001 * k for k, value in enumerate(values)) for name, values in OWN.items()}
    contents = []
    for objective, values in OWN.items():
        contents += teachers(values, objective=objective) + students(same[objective], teacher_objective=objective)
    contents += students((0.95, 0.96, 0.97), teacher_objective="robust", objective="robust")
    assert judged(contents, "teacher-does-not-predict").outcome == "confirmed"


def test_one_fixed_teacher_serves_all_repeats() -> None:
    contents = []
    for objective, value in (("standard", 0.1), ("balanced", 0.4), ("robust", 0.6)):
        teacher = run("teacher", value, 0, objective=objective)
        contents.append(teacher)
        for repeat, each in enumerate((0.5, 0.52, 0.51 + value / 10)):
            student = run("student", each - (0.5 + 0.1 * repeat) * value**2, repeat, teacher_objective=objective)
            student["spec"]["distillation"]["teacher"] = teacher["hash"]
            contents.append(student)
    found = judged(contents, "teacher-does-not-predict")
    assert found.interval is not None
    assert found.interval.n == 3
    assert found.outcome == "confirmed"


@pytest.mark.parametrize(
    ("teacher", "one_hot", "outcome"),
    [
        ((0.50, 0.52, 0.51), (0.50, 0.521, 0.512), "confirmed"),
        ((0.50, 0.52, 0.51), (0.60, 0.63, 0.615), "refuted"),
        ((0.50, 0.52, 0.51), (0.50, 0.50, 0.55), "undecided"),
        ((0.50,), (0.40,), "undecided"),
    ],
)
def test_one_hot_validation_labels(teacher: tuple[float, ...], one_hot: tuple[float, ...], outcome: str) -> None:
    contents = students(teacher, objective="robust", labels="teacher")
    contents += students(one_hot, objective="robust", labels="one-hot")
    assert judged(contents, "one-hot-not-needed").outcome == outcome


def test_a_repeat_that_lacks_a_pair_does_not_count() -> None:
    contents = students((0.5, 0.52, 0.51), objective="robust", labels="teacher")
    contents += students((0.5, 0.53), objective="robust", labels="one-hot")
    found = judged(contents, "one-hot-not-needed")
    assert found.interval is not None
    assert found.interval.n == 2


def test_a_repeat_with_one_of_two_pairs_does_not_count() -> None:
    contents = []
    for teacher, one_hot in (("standard", (0.5, 0.53)), ("robust", (0.9,))):
        contents += students((0.5, 0.52), objective="robust", labels="teacher", teacher_objective=teacher)
        contents += students(one_hot, objective="robust", labels="one-hot", teacher_objective=teacher)
    found = judged(contents, "one-hot-not-needed")
    assert found.interval is not None
    assert (found.interval.n, found.interval.value) == (1, pytest.approx(-0.2))


def small(
    student: Sequence[float], balanced: float, teacher: Sequence[float] = (0.50, 0.51, 0.52), parameters: int = 10
) -> Verdict:
    contents = teachers(teacher, objective="robust", balanced=0.70)
    # Beaten by the other teacher on both: not on the front, so beating it proves nothing.
    contents += teachers((0.1, 0.1, 0.1), objective="standard", balanced=0.3)
    mine = students(student, objective="robust", teacher_objective="robust", balanced=balanced)
    for repeat, content in enumerate(mine):
        content["parameters"] = parameters
        content["metrics"]["test"]["balanced"] += 0.001 * repeat
    return judged(contents + mine, "small-beats-big")


def test_a_small_student_beats_its_bigger_teacher() -> None:
    found = small((0.60, 0.62, 0.615), 0.75)
    assert found.outcome == "confirmed"
    assert found.interval is not None
    assert found.interval.value == pytest.approx(0.051)  # the smaller gain of each repeat is the balanced one


def test_a_small_student_that_loses_on_one_axis_refutes() -> None:
    assert small((0.60, 0.62, 0.615), 0.6).outcome != "confirmed"
    assert small((0.40, 0.42, 0.405), 0.75).outcome == "refuted"


def test_a_small_student_near_its_teacher_is_undecided() -> None:
    assert small((0.50, 0.55, 0.51), 0.75).outcome == "undecided"
    assert "not smaller" in small((0.9, 0.91, 0.93), 0.9, parameters=10**9).reason


def shifted(root: Path, gaps: Sequence[float], students_gap: float = 0.0) -> Ledger:
    """Teachers whose post-shift, fitted on validation, falls by about these gaps on test."""
    for repeat, gap in enumerate(gaps):
        content = run("teacher", 0.2, repeat, objective="standard", val=0.2)
        folder = save(root, content).parent
        for split, share in (("val", 0.9), ("test", 0.9 - gap)):
            _write(folder / "predictions" / f"{split}.npz", share)
        save(root, run("student", 0.5, repeat, objective="robust", val=0.5 + students_gap + 0.001 * repeat))
    (found,) = panels(choose(scan(root)))
    return claims.ledger(found)


def _write(path: Path, share: float, each: int = 200) -> None:
    """Two classes, each right with this share and so far apart that a shift moves nothing."""
    path.parent.mkdir(exist_ok=True)
    labels = np.repeat([0, 1], each)
    wrong = np.tile(np.arange(each) >= round(share * each), 2)
    predicted = np.where(wrong, 1 - labels, labels)
    logits = np.where(np.arange(2) == predicted[:, None], 3.0, -3.0)
    names = ("class 0", "class 1")
    Predictions(np.arange(2 * each), logits, "logits", names, labels=labels).write(path)


@pytest.mark.parametrize(
    ("gaps", "outcome"),
    [((0.2, 0.21, 0.22), "confirmed"), ((-0.05, -0.06, -0.055), "refuted"), ((0.2, -0.1, 0.1), "undecided")],
)
def test_post_shift_over_fits(gaps: tuple[float, ...], outcome: str, tmp_path: Path) -> None:
    found = shifted(tmp_path, gaps)
    verdict = found.verdicts[-1]
    assert verdict.claim.name == "post-shift-over-fits"
    assert verdict.outcome == outcome
    row = next(gap for gap in found.gaps if gap.name.endswith("post-shifted"))
    assert row.interval.value == pytest.approx(np.mean(gaps), abs=0.006)


def test_a_gap_that_the_students_have_too_is_not_post_shift_s(tmp_path: Path) -> None:
    verdict = shifted(tmp_path, (0.1, 0.11, 0.12), students_gap=0.3).verdicts[-1]
    assert verdict.outcome == "refuted"
    assert verdict.interval is not None
    assert verdict.interval.value == pytest.approx(0.11 - 0.301, abs=0.006)


def test_without_stored_predictions_post_shift_is_not_judged() -> None:
    found = judged(teachers((0.1, 0.2)) + students((0.1, 0.2), objective="robust"), "post-shift-over-fits")
    assert found.outcome == "undecided"
    assert "not stored" in found.reason


def test_nothing_is_decided_by_one_repeat_nor_without_test(tmp_path: Path) -> None:
    once = claims.ledger(
        panel(teachers((0.5,), objective="robust") + students((0.9,), objective="robust") + students((0.1,)))
    )
    assert {verdict.outcome for verdict in once.verdicts} == {"undecided"}
    untested = students((0.5, 0.6, 0.7), objective="robust") + students((0.1, 0.2, 0.3))
    for content in untested:
        del content["metrics"]["test"]
    assert {verdict.reason for verdict in claims.ledger(panel(untested)).verdicts} == {"No run was evaluated on test."}


def test_repeats_that_agree_to_the_last_digit_say_nothing_of_a_spread() -> None:
    found = claims.verdict(claims.CLAIMS[0], [0.25, 0.25, 0.25], "A against B")
    assert found.outcome == "undecided"
    assert "no spread is known" in found.reason


def test_the_threshold_s_side_is_each_claim_s_own() -> None:
    outcomes = {claim.name: claims.verdict(claim, [0.9, 0.91, 0.92], "x").outcome for claim in claims.CLAIMS}
    assert outcomes.pop("teacher-does-not-predict") == "refuted"
    assert set(outcomes.values()) == {"confirmed"}

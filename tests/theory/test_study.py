from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from report.records import record, save
from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.theory import gaussian_mixture
from robustdistill.theory.study import PREDICTORS, correlate, good_teachers

NAMES = tuple(f"class {index}" for index in range(4))
NOISE = {"standard": 0.2, "balanced": 0.6, "robust": 1.2}


def runs(root: Path, *, repeats: int = 3, predictions: bool = True, split: str = "val") -> Path:
    """Teachers that get worse from objective to objective and repeat to repeat, and students that follow them."""
    problem = gaussian_mixture([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], np.ones(4), cells=20)
    instances, labels = problem.sample(400, seed=0)
    common = {"class_names": NAMES, "epochs": 1}
    for objective, level in NOISE.items():
        for repeat in range(repeats):
            noise = level + 0.15 * repeat
            teacher = record("teacher", objective=objective, repeat=repeat, **common)
            teacher["train_counts"] = [100] * 4
            folder = save(root, teacher).parent
            rng = np.random.default_rng([repeat, len(objective)])
            logits = np.log(problem.posteriors[instances]) + noise * rng.normal(size=(400, 4))
            if predictions:
                Predictions(np.arange(400), logits, "logits", NAMES, labels).write(
                    folder / "predictions" / f"{split}.npz"
                )
            for student, kind in (("robust", "one-hot"), ("robust", "teacher"), ("balanced", "one-hot")):
                content = record(
                    objective=student,
                    labels=kind,
                    teacher_objective=objective,
                    repeat=repeat,
                    temperature=1.0,
                    **common,
                )
                content["metrics"]["test"]["worst_class"] = 0.9 - 0.3 * noise
                save(root, content)
    return root


def test_fitness_that_predicts_is_found_to(tmp_path: Path) -> None:
    lines: list[str] = []
    cells = good_teachers(runs(tmp_path), draws=100, progress=lines.append)
    assert [cell.name for cell in cells] == [
        "digits-lt, convnet-32 → convnet-16, one-hot validation, 1 epochs of digits-lt",
        "digits-lt, convnet-32 → convnet-16, teacher validation, 1 epochs of digits-lt",
    ]
    assert len(lines) == 9
    for cell in cells:
        assert {point.students for point in cell.points} == {1}
        found = cell.correlations["estimate, mean"]
        assert (found.points, found.teachers) == (9, 9)
        assert found.value < -0.9
        assert found.low <= found.value <= found.high < -0.7
        assert cell.within["estimate, mean"].value < -0.6
        assert set(cell.correlations) == set(PREDICTORS)


def test_students_trained_otherwise_are_a_comparison_of_their_own(tmp_path: Path) -> None:
    root = runs(tmp_path, repeats=1)
    for objective in NOISE:
        for rate in (0.01, 0.02):
            recipe = {"learning_rate": rate}
            content = record(
                objective="robust", teacher_objective=objective, class_names=NAMES, epochs=1, temperature=1.0
            )
            content["spec"]["recipe"] |= recipe
            content["hash"] = content["name"] = f"{int(100 * rate):06d}{content['hash'][:6]}"
            save(root, content)
    names = [cell.name for cell in good_teachers(root, draws=100)]
    assert len(names) == 4
    assert sum("(settings " in name for name in names) == 3  # one-hot at three learning rates


def test_students_over_groups_are_left_out(tmp_path: Path) -> None:
    root = runs(tmp_path, repeats=1)
    before = good_teachers(root, draws=100)
    for objective in NOISE:
        content = record(objective="robust", teacher_objective=objective, class_names=NAMES, epochs=1, temperature=1.0)
        content["spec"]["groups"], content["group_names"] = "group", ["north", "south"]
        content["hash"] = content["name"] = f"{objective}-over-groups"
        save(root, content)
    assert [[point.students for point in cell.points] for cell in good_teachers(root, draws=100)] == [
        [point.students for point in cell.points] for cell in before
    ]


def test_a_lone_teacher_has_no_second_model(tmp_path: Path) -> None:
    root = runs(tmp_path, repeats=1)
    for path in root.glob("*/predictions/val.npz"):
        if "balanced" in (path.parent.parent / "record.json").read_text().partition('"method"')[0]:
            continue
        path.unlink()
    (cell, _) = good_teachers(root, draws=100)
    assert len(cell.points) == 1
    assert np.isnan(cell.points[0].predictors["estimate, mean"])
    assert np.isfinite(cell.points[0].predictors["upper bound, worst class"])
    assert np.isnan(cell.correlations["upper bound, worst class"].value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions/val.npz.*12 runs, 0 of them"):
        good_teachers(runs(tmp_path / "a", repeats=1, predictions=False))
    with pytest.raises(InputError, match="not a folder"):
        good_teachers(tmp_path / "nowhere")
    assert good_teachers(runs(tmp_path / "b", repeats=1, split="test"), split="test", draws=100)


def test_spearman_is_scipys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, 15).astype(float), rng.normal(size=15).round(1)
        found = correlate(x, y, [str(index) for index in range(15)], draws=10)
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_the_interval_covers_and_resamples_teachers_not_points() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    names = [str(index) for index in range(30)]
    alone = correlate(x, y, names)
    assert alone.low < alone.value < alone.high
    # Ten copies of each point are no new teachers: the interval must not shrink.
    copies = correlate(np.repeat(x, 10), np.repeat(y, 10), np.repeat(names, 10).tolist())
    assert copies.teachers == 30
    assert copies.points == 300
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_groups_take_out_what_lies_between_them() -> None:
    """Between groups the relation rises, within each it falls: Simpson's paradox."""
    x = np.concatenate([np.arange(5.0), 10 + np.arange(5.0)])
    y = np.concatenate([5 - np.arange(5.0), 25 - np.arange(5.0)])
    names = [str(index) for index in range(10)]
    assert correlate(x, y, names, draws=50).value > 0.3
    assert correlate(x, y, names, groups=["a"] * 5 + ["b"] * 5, draws=50).value == pytest.approx(-1.0)


def test_what_does_not_vary_has_no_correlation() -> None:
    found = correlate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], ["a", "b", "c"], draws=20)
    assert np.isnan([found.value, found.low, found.high]).all()
    few = correlate([1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 4.0], ["a", "b", "c", "d"])
    assert few.value == pytest.approx(0.8)
    assert np.isnan([few.low, few.high]).all()  # four teachers have no interval
    with pytest.raises(InputError, match="one length"):
        correlate([1.0], [1.0, 2.0], ["a"])
    with pytest.raises(InputError, match="level"):
        correlate([1.0], [1.0], ["a"], level=1.0)

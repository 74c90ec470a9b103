from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.paper.runs import Recalls, figure, finished, noisy, predictions, table
from robustdistill.experiments.grid import Job
from robustdistill.experiments.paper.results import CellResult, TableResult, figure_result, table_result
from robustdistill.postshift import PostShift


def _cell(result: TableResult, name: str, column: str, student: str | None = None) -> CellResult:
    return next(
        found
        for found in result.cells
        if found.cell.row.name == name and found.cell.column == column and student in (None, found.cell.student)
    )


def test_a_cell_is_the_mean_at_the_temperature_that_validation_picks() -> None:
    """By hand, from the recalls of every job: temperature by the mean worst class on validation, result on test."""
    plan = table(1, "cifar10-lt", repeats=3)
    result = table_result(plan, finished(plan.jobs, noisy))
    for found in result.cells:
        if found.cell.row.method == "post-shift":
            continue
        by_pair: dict[tuple[float, float | None], list[Job]] = {}
        for job in found.cell.jobs:
            by_pair.setdefault((job.temperature, job.validation_temperature), []).append(job)
        on_val = {pair: np.mean([min(noisy(job)[0]) for job in jobs]) for pair, jobs in by_pair.items()}
        balanced = {pair: np.mean([noisy(job)[0] for job in jobs]) for pair, jobs in by_pair.items()}
        best = max(on_val, key=lambda pair: (round(on_val[pair], 9), balanced[pair]))  # Ties by balanced accuracy.
        test = [noisy(job)[1] for job in by_pair[best]]
        ours, average = found.worst.ours, found.average.ours
        assert ours is not None
        assert average is not None
        assert found.validation is not None
        assert ours.mean == pytest.approx(np.mean([min(recalls) for recalls in test]))
        assert ours.error == pytest.approx(np.std([min(recalls) for recalls in test], ddof=1) / np.sqrt(3))
        assert average.mean == pytest.approx(np.mean(test))
        assert found.validation.mean == pytest.approx(on_val[best])
        assert found.gap == pytest.approx(found.validation.mean - ours.mean)
        if found.cell.row.method == "none":
            assert (found.chosen, found.others) == (None, ())
        else:
            labelled = found.cell.row.labels == "teacher"
            assert found.chosen == (best[0], (best[1] or best[0]) if labelled else None)
            assert len(found.others) == (5 if labelled else 2)
        assert (found.done, found.planned) == (len(found.cell.jobs), len(found.cell.jobs))


def test_the_papers_numbers_are_those_of_the_cell() -> None:
    plan = table(1, "cifar10-lt", repeats=3)
    result = table_result(plan, finished(plan.jobs, noisy))
    found = _cell(result, "Robust student (teacher val)", "balanced")
    assert found.worst.printed is not None
    assert found.worst.printed.text == "75.56 ± 0.19"
    assert found.worst.ours is not None
    assert found.worst.difference == pytest.approx(found.worst.ours.mean - 0.7556)
    assert result.cell("resnet56", 5, 1) is found
    assert all(one.printed is not None for one in result.cells)


def test_a_stand_in_is_not_compared() -> None:
    plan = table(1, "digits-lt", "tiny", repeats=2)
    result = table_result(plan, finished(plan.jobs, noisy))
    assert all(one.worst.printed is not None for one in result.cells)
    assert all(one.worst.difference is None and one.worst.overlap is None for one in result.cells)


def test_other_runs_of_the_journal_take_no_part() -> None:
    plan = table(2, "cifar10", repeats=2)
    mine = finished(plan.jobs, noisy)
    first = {job: mine[job] for job in table(2, "cifar10", repeats=1).jobs}
    result = table_result(table(2, "cifar10", repeats=1), first)
    estimates = [one.worst.ours for one in result.cells if one.worst.ours]
    assert {estimate.n for estimate in estimates} == {1}


def test_post_shift_of_stored_predictions(tmp_path: Path) -> None:
    """Found on the teacher's validation predictions, evaluated on its test predictions, over the retrained teachers."""
    plan = table(1, "cifar10-lt", repeats=3)
    records = finished(plan.jobs, noisy, tmp_path)
    result = table_result(plan, records)
    worst, gaps = [], []
    for job in _cell(result, "Post-shift", "balanced").cell.jobs:
        val, test = (predictions(values, seed=job.seed) for values in noisy(job))
        shift = PostShift().fit(val)
        worst.append(min(np.mean(shift.predict(test)[test.labels == y] == y) for y in (0, 1)))
        on_val = min(np.mean(shift.predict(val)[val.labels == y] == y) for y in (0, 1))
        gaps.append(on_val - worst[-1])
    found = _cell(result, "Post-shift", "balanced")
    assert found.worst.ours is not None
    assert found.worst.ours.mean == pytest.approx(np.mean(worst))
    assert (found.worst.ours.n, found.done) == (3, 3)
    assert found.gap == pytest.approx(np.mean(gaps))
    assert found.chosen is None


def test_post_shift_without_predictions_is_missing() -> None:
    plan = table(1, "cifar10-lt", repeats=2)
    found = _cell(table_result(plan, finished(plan.jobs, noisy)), "Post-shift", "robust")
    assert (found.worst.ours, found.done, found.planned) == (None, 0, 2)


def test_unfinished_runs(tmp_path: Path) -> None:
    plan = table(6, "cifar10", repeats=2)
    records = finished(plan.jobs, noisy)
    lost = next(job for job in plan.jobs if job.teacher and job.objective == "standard" and job.temperature == 3.0)
    del records[lost]
    result = table_result(plan, records)
    found = _cell(result, "Standard student", lost.teacher.objective if lost.teacher else "")
    assert (found.done, found.planned) == (5, 6)
    assert found.worst.ours is not None
    assert found.worst.ours.n == 2
    assert (3.0, None) not in (found.chosen, *found.others)
    assert all(one.worst.ours is None for one in table_result(plan, {}).cells)


def test_the_tables_own_worst_metric() -> None:
    """Table 4 prints and chooses by the mean of the 10 lowest recalls."""

    def recalls(job: Job) -> Recalls:
        rng = np.random.default_rng(abs(hash((job.temperature, job.seed, job.objective, job.method))) % 2**32)
        return (np.round(rng.uniform(0, 1, 200), 3).tolist(), np.round(rng.uniform(0, 1, 200), 3).tolist())

    plan = table(4, "tinyimagenet-lt", repeats=1)
    result = table_result(plan, finished(plan.jobs, recalls))
    found = _cell(result, "Balanced student", "robust")
    jobs = found.cell.jobs
    best = max(jobs, key=lambda job: np.mean(sorted(recalls(job)[0])[:10]))
    assert found.chosen is not None
    assert found.chosen[0] == best.temperature
    assert found.worst.ours is not None
    assert found.worst.ours.mean == pytest.approx(np.mean(sorted(recalls(best)[1])[:10]))


def test_the_best_cell_of_each_panel_is_marked() -> None:
    plan = table(7, "imagenet", repeats=1)
    plan = replace(plan, setup=replace(plan.setup, worst="worst_class"))
    result = table_result(plan, finished(plan.jobs, noisy))
    for student in ("resnet34", "resnet18"):
        panel = [one for one in result.cells if one.cell.student == student and one.worst.ours]
        highest = max(one.worst.ours.mean for one in panel if one.worst.ours)
        assert [one.worst.ours.mean == highest for one in panel if one.worst.ours] == [one.best for one in panel]
        assert sum(one.best for one in panel) == 1


@pytest.mark.parametrize("number", [1, 4])
def test_points_of_a_figure(number: int) -> None:
    """Figure 1 shows the chosen temperature, figure 4 all of them, with the teacher's labels on validation."""
    plan = figure(number, "cifar10-lt", repeats=2, alphas=(0.5, 1.0))
    result = figure_result(plan, finished(plan.jobs, noisy))
    teachers = [point for point in result.points if point.student is None]
    assert [point.teacher for point in teachers] == ["standard", "tradeoff:0.5", "robust"]
    pairs = {(job.temperature, job.validation_temperature) for job in plan.students["standard", "robust"]}
    students = 9 if number == 1 else 3 * (3 + 2 * 6)
    assert len(pairs) == (3 if number == 1 else 6)
    assert len(result.shown) == 3 + students
    chosen = [point for point in result.points if point.student is not None and point.chosen]
    assert len(chosen) == 9
    for point in result.points:
        if point.student is None:
            jobs: list[Job] = list(plan.teachers[point.teacher])
        else:
            of_pair = plan.students[point.teacher, point.student]
            jobs = [job for job in of_pair if (job.temperature, job.validation_temperature) == point.temperatures]
            on_val = {
                pair: np.mean(
                    [min(noisy(job)[0]) for job in of_pair if (job.temperature, job.validation_temperature) == pair]
                )
                for pair in {(job.temperature, job.validation_temperature) for job in of_pair}
            }
            assert point.chosen == (on_val[point.temperatures] == max(on_val.values()))
        assert point.standard.mean == pytest.approx(np.mean([np.mean(noisy(job)[1]) for job in jobs]))
        assert point.worst.mean == pytest.approx(np.mean([min(noisy(job)[1]) for job in jobs]))
        assert point.worst.n == 2

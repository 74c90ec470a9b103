"""Grids over groups, from a table with a column of them to the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.grid import DataSource, Grid, specs
from robustdistill.experiments.journal import scan
from robustdistill.experiments.plan import Plan
from robustdistill.experiments.tasks import finished, load_data, tasks
from robustdistill.report import tables

MODEL = "experiments.test_group_grids:scorer"


def scorer(num_classes: int) -> nn.Module:
    return nn.Linear(2, num_classes)


def birds(path: Path, count: int = 1200, column: bool = True) -> Path:
    """Wrens sing high and gulls low; the ground agrees with 92 % of them, so that a scorer may go by the ground."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, count)
    ground = np.where(rng.random(count) < 0.92, label, 1 - label)
    features = {"song": 2.0 * label - 1 + rng.normal(size=count), "backdrop": 2.0 * ground - 1}
    names = {"label": np.array(["wren", "gull"])[label], "ground": np.array(["land", "water"])[ground]}
    pq.write_table(pa.table(features | (names if column else {"label": names["label"]})), path)
    return path


def grid(path: Path, **changes: Any) -> Grid:
    settings: dict[str, Any] = {
        "data": DataSource(f"parquet:{path}", group_column="ground"),
        "teachers": (MODEL,),
        "students": (MODEL,),
        "recipe": rd.Recipe(epochs=8, batch_size=64, learning_rate=0.1, every=4, step_size=0.3, weight_decay=0.0),
        "teacher_objectives": ("standard", "robust"),
        "student_objectives": ("standard", "robust"),
        "validation_labels": ("one-hot",),
        "repeats": 2,
        "groups": "class-group",
        **changes,
    }
    return Grid(**settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Path]:
    """A grid over classes and one over groups within classes, run into one folder."""
    folder = tmp_path_factory.mktemp("birds")
    plan = grid(birds(folder / "birds.parquet"))
    for each in (plan, replace(plan, groups="class")):
        outcomes = run_all(each.jobs(), folder / "runs")
        assert [outcome.error for outcome in outcomes] == [None] * 12
    return plan, folder / "runs"


def test_runs_keep_their_scores_by_group(whole: tuple[Grid, Path]) -> None:
    plan, root = whole
    records, data = {record.hash: record for record in scan(root)}, load_data(plan.data)
    assert len(records) == 24
    for task in tasks(plan.jobs(), root):
        record, run = records[task.hash], rd.Run.load(task.folder, model=MODEL)
        assert record.spec.groups == "class-group"
        assert record.name == task.job.name
        assert "by-class-group" in record.name
        for metrics, part in ((record.metrics.val, data.val), (record.metrics.test, data.test)):
            assert metrics is not None
            assert metrics.groups is not None
            expected = rd.evaluate(run, part, groups="class-group")
            assert dict(zip(metrics.groups.names, metrics.groups.correct, strict=True)) == dict(
                zip(expected.class_names or (), expected.correct.tolist(), strict=True)
            )
            assert metrics.groups.worst_group == expected.worst_class
        assert finished(task) is not None
        # A teacher's tables have the groups, so that combinations can be compared example by example.
        if task.job.teacher is None:
            assert set(rd.Predictions.read(task.folder / "predictions/test.npz").groups) == {"land", "water"}


def test_the_report_has_a_table_for_each_and_the_worst_group_gains(whole: tuple[Grid, Path]) -> None:
    _, root = whole
    (classes, _), (groups, found) = tables.build_all(scan(root))
    assert (classes.over, classes.worst, groups.over, groups.worst) == (
        *("class", "worst_class", "class-group", "worst_group"),
    )
    assert found.worst_name == "worst-group accuracy"
    assert len(classes.records) == len(groups.records) == 12
    plain, robust = groups.plain, groups.best_robust
    assert plain is not None
    assert robust is not None
    before, after = groups.estimate(plain), groups.estimate(robust)
    assert before is not None
    assert after is not None
    assert (before.n, after.n) == (2, 2)
    assert after.mean > before.mean + 0.1
    # Over classes nothing is to be gained: the two classes are alike.
    assert all(abs(cell.worst.mean - 0.9) < 0.06 for cell in tables.build(classes).cells if cell.worst)


def test_a_run_that_was_tested_by_class_only_is_not_finished(whole: tuple[Grid, Path], tmp_path: Path) -> None:
    plan, _ = whole
    job = plan.jobs()[0]
    (task,) = tasks([job], tmp_path)
    data = load_data(plan.data)
    settings = {"objective": job.objective, "recipe": job.recipe, "seed": job.seed, "threads": 1, "progress": False}
    run = rd.fit(MODEL, data.train, data.val, groups=job.groups, out=task.folder, **settings)
    assert run.spec.hash == task.hash
    run.test = rd.evaluate(run, data.test)
    run.save(task.folder)
    assert finished(task) is None
    (outcome,) = run_all([job], tmp_path)
    assert outcome.error is None
    assert finished(task) is not None


def test_stacked_runs_are_scored_by_group(whole: tuple[Grid, Path], tmp_path: Path) -> None:
    plan, root = whole
    jobs = [job for job in plan.jobs() if job.teacher is None]
    assert [outcome.error for outcome in run_all(jobs, tmp_path, replicas=4)] == [None] * 4
    alone = {record.hash: record for record in scan(root)}
    for record in scan(tmp_path):
        assert record.environment["replicas"] == 4
        ours, theirs = (found.metrics.test.groups for found in (record, alone[record.hash]) if found.metrics.test)
        np.testing.assert_allclose(ours.correct, theirs.correct, atol=2)


def test_runs_over_classes_are_those_that_they_were(tmp_path: Path) -> None:
    """Groups that are the classes' are no part of a run's identity, with a group column or without."""
    plan = grid(birds(tmp_path / "birds.parquet"), repeats=1)
    data = load_data(plan.data)
    hashes = {
        groups: {spec.hash for spec in specs(replace(plan, groups=groups).jobs(), data).values()}
        for groups in ("class", "group", "class-group")
    }
    assert len(set.union(*hashes.values())) == 3 * 6
    by_class = replace(plan, groups="class").jobs()[0]
    common = {"recipe": by_class.recipe, "threads": 1, "progress": False}
    assert rd.fit(MODEL, data.train, data.val, seed=0, **common).spec.hash in hashes["class"]


def test_what_has_no_groups_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    plan = grid(birds(tmp_path / "birds.parquet", column=False), data=DataSource(f"parquet:{tmp_path}/birds.parquet"))
    with pytest.raises(InputError, match=r"has no group column.*name it by group_column= \(--group-column\)"):
        run_all(plan.jobs(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": "country"}, "unknown groups 'country'"),
        ({"methods": ("weighted", "group-dro")}, "groups have no effect on method 'group-dro'"),
        ({"methods": ("dkd",)}, "groups have no effect on method 'dkd'"),
    ],
)
def test_what_cannot_be_over_groups_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        grid(tmp_path / "birds.parquet", **changes)


def test_a_plan_has_them(tmp_path: Path) -> None:
    content = {"data": {"name": "parquet:birds.parquet", "group_column": "ground"}, "groups": "group"}
    plan = Plan.of(content)
    assert {job.groups for job in plan.grid().jobs()} == {"group"}
    assert "groups: group" in plan.text()
    assert "groups" not in Plan.of({"data": "digits-lt"}).text()
    with pytest.raises(InputError, match=r"plan: groups: .*got 'country'"):
        Plan.of({**content, "groups": "country"})

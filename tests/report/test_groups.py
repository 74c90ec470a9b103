"""Reports of runs over groups: tables of their own, scored by the worst group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsed import Page
from report.records import GROUPS, STUDENTS, journal, panel_of, record, save
from robustdistill import report
from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record, scan, table
from robustdistill.experiments.select import choose, lowest, measure, worst_over
from robustdistill.metrics import Scores
from robustdistill.predictions import Predictions
from robustdistill.report import claims, findings, intervals, means, page, plots, tables


def of(**settings: Any) -> Record:
    return Record.model_validate(record(**{"epochs": 1, "groups": "group", **settings}))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three grids in one folder: over classes, over groups, and over groups within classes."""
    root = tmp_path_factory.mktemp("mixed")
    for groups in ("class", "group", "class-group"):
        journal(root, temperatures=(1.0, 3.0), repeats=2, epochs=3, groups=groups)
    return root


def test_each_has_a_table_of_its_own_with_its_own_metric(mixed: Path, tmp_path: Path) -> None:
    records = scan(mixed)
    built = tables.build_all(records)
    assert [(panel.title.partition("convnet-16")[2], panel.worst) for panel, _ in built] == [
        ("", "worst_class"),
        (", by group", "worst_group"),
        (", by group within each class", "worst_group"),
    ]
    for panel, found in built:
        assert {one.spec.groups for one in panel.records} == {panel.over}
        assert len(found.cells) == 3 * (1 + len(STUDENTS))
        for cell in found.cells:
            tested = cell.group.metrics("test")
            counted = tested if panel.over == "class" else [metrics.groups for metrics in tested if metrics.groups]
            values = [np.divide(counts.correct, counts.counts).min() for counts in counted]
            assert cell.worst is not None
            assert (cell.worst.n, cell.worst.mean) == (2, pytest.approx(np.mean(values)))
    # What is over classes reads as if the others were not there.
    alone = tables.build_all([one for one in records if one.spec.groups == "class"])
    assert tables.markdown(built[0][1]) == tables.markdown(alone[0][1])
    rows = tables.cells(built)
    assert {(row["groups"], row["worst_metric"]) for row in rows} == {
        *(("class", "worst_class"), ("group", "worst_group"), ("class-group", "worst_group"))
    }
    flat = table(records)
    runs = 2 * 3 * (1 + 2 * len(STUDENTS))
    assert flat.groupby("groups")["test_worst_group"].count().to_dict() == {
        "class": 0,
        "class-group": runs,
        "group": runs,
    }


def test_the_temperature_is_chosen_by_the_worst_group() -> None:
    runs = []
    for temperature, by_class, by_group in ((1.0, 0.9, 0.2), (3.0, 0.1, 0.6)):
        content = record(temperature=temperature, epochs=1, groups="group")
        content["metrics"]["val"]["worst_class"] = by_class
        content["metrics"]["val"]["groups"]["worst_group"] = by_group
        runs.append(Record.model_validate(content))
    chosen = choose(runs)
    assert chosen.groups[0].temperature == 3.0
    assert "highest mean over repeats of worst-group accuracy on the validation split" in chosen.rule
    assert choose([*runs, of(groups="class")]).rule.count("worst-group accuracy or worst-class accuracy") == 1


def test_students_of_teachers_over_classes_and_over_groups_are_no_repeats_of_one_another() -> None:
    teachers = [of(role="teacher", groups=groups) for groups in ("class", "group")]
    students = []
    for repeat, teacher in enumerate(teachers):
        content = record(repeat=0, epochs=1, groups="group")
        content["spec"]["distillation"]["teacher"] = teacher.hash
        students.append(Record.model_validate(content | {"hash": f"{repeat:012x}", "name": f"student {repeat}"}))
    groups = [group for group in choose([*teachers, *students]).groups if group.role == "student"]
    assert [len(group.records) for group in groups] == [1, 1]
    built = tables.build_all([*teachers, *students])
    labels = [row.label for panel, found in built if panel.student_model for row in found.rows]
    assert [label.partition("[")[2] for label in labels if "Student" in label] == [
        *("teacher.groups = class]", "teacher.groups = group]")
    ]


@pytest.mark.parametrize(
    ("groups", "worst", "metric", "k", "by_group"),
    [
        ("class", "worst_class", "worst_class", 1, False),
        ("class", "worst_3", "worst_3", 3, False),
        ("group", "worst_class", "worst_group", 1, True),
        ("class-group", "worst_3", "worst_3_groups", 3, True),
    ],
)
def test_metrics_of_groups(groups: str, worst: str, metric: str, k: int, by_group: bool) -> None:
    assert worst_over(groups, worst) == metric
    assert lowest(metric) == (k, by_group)
    found = of(groups=groups).metrics.val
    assert found is not None
    counts = found.groups if by_group and found.groups else found
    assert measure(found, metric) == pytest.approx(np.sort(np.divide(counts.correct, counts.counts))[:k].mean())
    if by_group:
        assert np.isnan(measure(found.model_copy(update={"groups": None}), metric))


def test_a_page_of_runs_over_groups(mixed: Path, tmp_path: Path) -> None:
    found = Page(report.write(mixed, tmp_path / "out"))
    assert found.balanced
    assert "What distillation does to the worst class or group, in 3 comparisons" in found.text
    for text in ("Worst-group accuracy against balanced accuracy", "Accuracy of each group", "Every group in numbers"):
        assert found.text.count(text) == 2
    assert found.text.count("Every class in numbers") == 1
    assert all(found.text.count(name) >= 2 for name in GROUPS)
    assert found.text.count("These runs are over groups, the claims are about classes.") == 2 * len(claims.CLAIMS)
    plain = Page(report.write(journal(tmp_path / "plain", repeats=1, epochs=1), tmp_path / "page"))
    assert "group" not in plain.text.lower()


def test_figures_show_the_groups(mixed: Path) -> None:
    panel = next(panel for panel, _ in tables.build_all(scan(mixed)) if panel.over == "class-group")
    for name, draw in plots.FIGURES.items():
        figure = draw(panel)
        assert figure is not None, name
        shown = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_xticklabels())]
        if name in ("recalls", "multipliers"):
            assert set(GROUPS) <= {text.partition("\n")[0] for text in shown}
    trace = means.mean_multipliers(panel.best_robust) if panel.best_robust is not None else None
    assert trace is not None
    np.testing.assert_allclose(trace, [[0.1, 0.2, 0.2, 0.5]] * 3)
    assert "worst group right" in findings.finding(panel).headline


def test_a_group_that_test_lacks_is_unknown_in_its_place(tmp_path: Path) -> None:
    for temperature in (1.0, 3.0):
        content = record(temperature=temperature, epochs=1, groups="group")
        groups = content["metrics"]["test"]["groups"]
        groups |= {key: groups[key][1:] for key in ("names", "correct", "counts")}
        save(tmp_path / "runs", content)
    panel = panel_of(tmp_path / "runs")
    metrics = panel.groups[0].metrics("test")[0]
    assert means.unit_scores(metrics, panel).counts.tolist() == [0, 60, 60, 60]
    found = Page(report.write(tmp_path / "runs", tmp_path / "out"))
    assert found.balanced
    assert intervals.group_interval(panel.groups[0], "worst_group", "test") is not None


def test_more_of_the_worst_than_there_are_groups_are_refused(mixed: Path, tmp_path: Path) -> None:
    assert page.make(page.read(mixed), tmp_path, worst="worst_4").tables[1][0].worst == "worst_4_groups"
    with pytest.raises(InputError, match="worst_1 to worst_4, as there are 4 groups, got 'worst_5'"):
        page.make(page.read(mixed), tmp_path, worst="worst_5")


def test_records_whose_groups_do_not_fit_are_no_records(tmp_path: Path) -> None:
    for change in ({"group_names": None}, {"group_train_counts": [1, 2]}):
        with pytest.raises(ValueError, match="group_names"):
            Record.model_validate(record(groups="group") | change)
    content = record(groups="group")
    content["metrics"]["test"]["groups"]["names"] = ["north"]
    with pytest.raises(ValueError, match="1 entries in names but 4 in counts"):
        Record.model_validate(content)


@pytest.mark.parametrize("over", ["group", "class-group"])
def test_the_paired_bootstrap_over_groups_that_are_the_classes(over: str) -> None:
    rng = np.random.default_rng(0)
    labels, names = np.repeat([0, 1, 2], (60, 40, 30)), np.array(["a", "b", "c"])
    groups = names[labels] if over == "group" else np.full(len(labels), "all")
    first, second = (
        Predictions(
            np.arange(len(labels)), np.where(rng.random(len(labels)) < share, labels, (labels + 1) % 3), "classes",
            ("a", "b", "c"), labels, groups,
        )
        for share in (0.6, 0.7)
    )  # fmt: skip
    by_class = intervals.paired_bootstrap([first], [second], "worst_class")
    assert intervals.paired_bootstrap([first], [second], "worst_group", over=over) == by_class
    bare = [Predictions(one.ids, one.scores, "classes", one.class_names, labels) for one in (first, second)]
    with pytest.raises(InputError, match="needs tables with groups"):
        intervals.paired_bootstrap(bare[:1], bare[1:], "worst_group", over=over)


def test_the_paired_difference_is_that_of_the_worst_groups() -> None:
    rng = np.random.default_rng(1)
    labels, sides = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    names = np.array(["land", "water"])[sides]
    drawn = [np.where(rng.random(300) < 0.8 - 0.3 * (labels == sides) * shift, labels, 1 - labels) for shift in (0, 1)]
    pair = [Predictions(np.arange(300), scores, "classes", ("gull", "wren"), labels, names) for scores in drawn]
    for over, cells, count in (("group", sides, 2), ("class-group", 2 * labels + sides, 4)):
        worst = [
            Scores.by_group(
                scores, labels=labels, groups=cells, num_classes=2, group_names=list(map(str, range(count)))
            ).worst_class
            for scores in drawn
        ]
        found = intervals.paired_bootstrap(pair[:1], pair[1:], "worst_group", over=over)
        assert found.value == pytest.approx(worst[1] - worst[0])

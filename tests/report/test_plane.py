from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.records import journal, panel_of, record, save
from robustdistill.report import fronts, plane
from robustdistill.report.panels import Panel
from robustdistill.report.sections import VARIABLES


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    return panel_of(journal(tmp_path_factory.mktemp("runs"), temperatures=(3.0,)))


coordinates = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=12))
def test_the_front_is_what_no_point_dominates(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(p != point and p[0] >= point[0] and p[1] >= point[1] for p in points)

    assert fronts.pareto(points) == sorted({point for point in points if not beaten(point)})


def test_teachers_students_and_others_are_families_with_fronts_of_their_own(tmp_path: Path) -> None:
    journal(tmp_path, repeats=2, temperatures=(3.0,), epochs=1)
    save(tmp_path, record("teacher", teacher_model="convnet-16", method="group-dro", objective="robust", epochs=1))
    save(tmp_path, record(method="ada-margin", epochs=1))
    found = fronts.families(panel_of(tmp_path))
    assert [(family.name, len(family.points)) for family in found] == [
        ("convnet-32 teachers", 3),
        ("convnet-16 students", 12),
        ("convnet-16 students, other methods", 1),
        ("convnet-16 without a teacher", 1),
    ]
    for family in found:
        own = [(point.x.mean, point.y.mean) for point in family.points]
        assert list(family.front) == fronts.pareto(own)


def test_every_point_names_its_combination_its_figures_and_its_runs(full: Panel) -> None:
    markup = str(plane.interactive(full, "x", VARIABLES))
    labels = re.findall(r'class="pt[^"]*"[^>]*aria-label="([^"]*)"', markup)
    assert len(labels) == 15
    for group in full.groups:
        said = plane.words(full, group)
        assert said in labels
        assert all(run.name in said for run in group.records)
        assert "n = 3" in said
        assert "±" in said
    assert markup.count("<title>") == 15
    assert markup.count('class="bar"') == 15


def test_points_lie_where_their_means_are(full: Panel) -> None:
    """Higher means further up and further right, in the order of the figures."""
    markup = str(plane.interactive(full, "x", VARIABLES))
    places = {
        label: (float(x), float(y))
        for x, y, label in re.findall(r'data-x="([^"]*)" data-y="([^"]*)"[^>]*aria-label="([^"]*)"', markup)
    }
    points = [point for family in fronts.families(full) for point in family.points]
    by_x = sorted(points, key=lambda point: point.x.mean)
    xs = [places[plane.words(full, point.group)][0] for point in by_x]
    assert xs == sorted(xs)
    by_y = sorted(points, key=lambda point: -point.y.mean)
    ys = [places[plane.words(full, point.group)][1] for point in by_y]
    assert ys == sorted(ys)


def test_without_a_known_accuracy_there_is_no_plane(tmp_path: Path) -> None:
    content = record("teacher", epochs=1)
    content["metrics"]["test"] |= {"worst_class": None, "balanced": None}
    save(tmp_path, content)
    found = panel_of(tmp_path)
    assert not plane.interactive(found, "x", VARIABLES)


def test_equal_points_and_extremes_are_drawn(tmp_path: Path) -> None:
    for repeat in range(2):
        for objective, value in (("standard", 0.0), ("robust", 1.0)):
            content = record("teacher", objective=objective, repeat=repeat, epochs=1)
            content["metrics"]["test"] |= {"worst_class": value, "balanced": 0.5}
            save(tmp_path, content)
    markup = str(plane.interactive(panel_of(tmp_path), "x", VARIABLES))
    assert "nan" not in markup
    assert "100 %" in markup

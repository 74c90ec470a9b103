from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.records import journal, panel_of, record, save
from robustdistill.report import plots
from robustdistill.report.panels import Panel

# Names that other software would read as formulas, tags, references, or that no bundled font can draw.
HOSTILE = [
    "$\\frac",
    "<script>alert(1)</script>",
    "a & b",
    "]]>",
    "猫",
    "tab\tnew\nline\x07",
    "",
    "x" * 300,
    "-->",
    "$$",
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    return panel_of(journal(tmp_path_factory.mktemp("runs"), temperatures=(3.0,)))


@pytest.mark.parametrize("name", plots.FIGURES)
def test_figures_are_drawn_and_written_with_text_as_text(full: Panel, name: str, tmp_path: Path) -> None:
    figure = plots.FIGURES[name](full)
    assert figure is not None
    svg, png = plots.save(figure, tmp_path, name)
    text = svg.read_text()
    ElementTree.fromstring(text)
    assert "<text" in text
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_same_records_give_the_same_bytes(full: Panel, tmp_path: Path) -> None:
    written = []
    for folder in ("a", "b"):
        figure = plots.plane(full)
        assert figure is not None
        written.append([path.read_bytes() for path in plots.save(figure, tmp_path / folder, "plane")])
    assert written[0] == written[1]


def test_nothing_global_is_left_behind(full: Panel) -> None:
    before = dict(matplotlib.rcParams)
    for draw in plots.FIGURES.values():
        draw(full)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", plots.FIGURES)
def test_hostile_class_names_are_only_text(name: str, tmp_path: Path) -> None:
    figure = plots.FIGURES[name](
        panel_of(journal(tmp_path / "runs", class_names=HOSTILE, repeats=1, teachers=("standard", "robust")))
    )
    assert figure is not None
    svg, _ = plots.save(figure, tmp_path, name)
    text = svg.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert "<script" not in text


@pytest.mark.parametrize("classes", [2, 10, 25, 100, 300])
def test_any_number_of_classes_is_drawn(classes: int, tmp_path: Path) -> None:
    objectives = ("standard", "robust")
    runs = journal(tmp_path, classes=classes, repeats=1, epochs=3, teachers=objectives, temperatures=(3.0,))
    found = panel_of(runs)
    for name in ("recalls", "multipliers"):
        figure = plots.FIGURES[name](found)
        assert figure is not None
        svg, _ = plots.save(figure, tmp_path, name)
        assert svg.stat().st_size < 250_000


def test_teachers_alone_and_one_repeat_are_drawn(tmp_path: Path) -> None:
    found = panel_of(journal(tmp_path / "runs", students=(), temperatures=(), repeats=1))
    for name, draw in plots.FIGURES.items():
        figure = draw(found)
        assert figure is not None
        plots.save(figure, tmp_path, name)


def test_a_figure_without_its_runs_is_none(tmp_path: Path) -> None:
    content = record("teacher", objective="standard")
    content["history"] = []
    save(tmp_path, content)
    found = panel_of(tmp_path)
    assert plots.traces(found) is None
    assert plots.curves(found) is None


def test_error_bars_are_standard_errors(full: Panel) -> None:
    assert full.plain is not None
    found = full.estimate(full.plain)
    assert found is not None
    values = [metrics.worst_class for metrics in full.plain.metrics("test")]
    assert found.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_recalls_are_sorted_from_head_to_tail(full: Panel) -> None:
    figure = plots.recalls(full)
    assert figure is not None
    counts = [int(label.get_text().split("\n")[1]) for label in figure.axes[0].get_xticklabels()]
    assert counts == sorted(counts, reverse=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_spread_labels_keep_their_order_and_distance(heights: list[float]) -> None:
    placed = plots.spread(heights, gap=0.085, ceiling=1.0)
    order = np.argsort(-np.array(heights), kind="stable")
    gaps = -np.diff(np.array(placed)[order])
    assert (gaps >= 0.085 - 1e-9).all()
    assert min(placed) >= -1e-9
    assert max(placed) <= 1 + 1e-9

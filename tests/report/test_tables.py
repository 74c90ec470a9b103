from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from report.records import journal, record, save
from robustdistill import methods
from robustdistill.experiments.journal import Record, scan
from robustdistill.report import tables
from robustdistill.report.panels import METHODS, Panel
from robustdistill.report.tables import ResultTable


def built(root: Path, **settings: Any) -> tuple[Panel, ResultTable]:
    (found,) = tables.build_all(scan(root), **settings)
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Panel, ResultTable]:
    return built(journal(tmp_path_factory.mktemp("runs"), temperatures=(3.0,)))


def test_the_layout_is_that_of_table_1(full: tuple[Panel, ResultTable]) -> None:
    _, table = full
    assert table.columns == ("standard", "balanced", "robust")
    assert [row.label for row in table.rows] == [
        "Teacher (no distillation)",
        "Student: standard",
        "Student: balanced",
        "Student: robust (teacher validation labels)",
        "Student: robust (one-hot validation labels)",
    ]
    assert all(cell is not None for row in table.rows for cell in row.cells)
    assert table.repeats == "n = 3"


def test_a_cell_is_the_mean_and_standard_error_in_percent(full: tuple[Panel, ResultTable]) -> None:
    _, table = full
    cell = table.rows[1].cells[0]
    assert cell is not None
    values = np.array([100 * metrics.worst_class for metrics in cell.group.metrics("test")])
    above, below = tables.cell_lines(cell)
    assert above == f"{values.mean():.1f} ± {values.std(ddof=1) / np.sqrt(3):.1f}"
    assert below.startswith("(")
    assert below.endswith(")")


def test_only_the_highest_worst_class_mean_is_best(full: tuple[Panel, ResultTable]) -> None:
    _, table = full
    best = [cell for cell in table.cells if cell.best]
    assert len(best) == 1
    assert best[0].worst is not None
    assert best[0].worst.mean == max(cell.worst.mean for cell in table.cells if cell.worst)


def test_the_earlier_method_is_named_in_a_footnote(full: tuple[Panel, ResultTable]) -> None:
    _, table = full
    marked = [
        (row.label, column) for row in table.rows for column, cell in enumerate(row.cells) if cell and cell.marked
    ]
    assert marked == [("Student: robust (one-hot validation labels)", 0)]
    assert any("Narasimhan & Menon 2021" in note for note in table.notes)


def test_one_repeat_has_no_plus_minus(tmp_path: Path) -> None:
    _, table = built(journal(tmp_path, repeats=1, temperatures=(3.0,)))
    assert "±" not in "".join(tables.cell_lines(table.cells[0]))
    assert table.repeats == "n = 1"
    assert any("n = 1" in note for note in table.notes)


def test_uneven_repeats_are_said_in_the_cells(tmp_path: Path) -> None:
    journal(tmp_path, repeats=2, temperatures=(3.0,))
    save(tmp_path, record("teacher", objective="standard", repeat=7))
    _, table = built(tmp_path)
    assert table.repeats == "n = 2 to 3"
    text = tables.markdown(table)
    assert "n = 3" in text
    assert "n = 2" in text


def test_missing_cells_stay_empty(tmp_path: Path) -> None:
    save(tmp_path, record("teacher", objective="robust"))
    save(tmp_path, record(teacher_objective="standard", objective="standard"))
    _, table = built(tmp_path)
    assert table.columns == ("standard", "robust")
    assert [[cell is not None for cell in row.cells] for row in table.rows] == [[False, True], [True, False]]
    tables.markdown(table)
    tables.latex(table)


def test_a_sole_cell_is_not_best(tmp_path: Path) -> None:
    save(tmp_path, record("teacher"))
    assert not any(cell.best for cell in built(tmp_path)[1].cells)


def test_validation_figures_are_named_so_where_nothing_was_tested(tmp_path: Path) -> None:
    _, table = built(journal(tmp_path, tested=False, repeats=1))
    assert table.split_name == "validation"
    assert any("No run was evaluated on test" in note for note in table.notes)


def test_a_run_without_test_in_a_tested_table_says_so(tmp_path: Path) -> None:
    save(tmp_path, record("teacher", objective="standard"))
    save(tmp_path, record("teacher", objective="robust", tested=False))
    assert "not evaluated" in tables.markdown(built(tmp_path)[1])


def test_combinations_that_would_share_a_cell_get_rows_named_by_the_difference(tmp_path: Path) -> None:
    save(tmp_path, record("teacher"))
    save(tmp_path, record("teacher", recipe={"batch_size": 256}))
    labels = [row.label for row in built(tmp_path)[1].rows]
    assert sorted(labels) == [
        "Teacher (no distillation) [recipe.batch_size = 256]",
        "Teacher (no distillation) [recipe.batch_size = 32]",
    ]


def test_data_sets_and_architectures_get_tables_of_their_own(tmp_path: Path) -> None:
    journal(tmp_path, repeats=1, temperatures=(3.0,))
    journal(tmp_path, repeats=1, temperatures=(3.0,), data="cifar10-lt")
    journal(tmp_path, repeats=1, temperatures=(3.0,), student_model="convnet-8")
    save(tmp_path, record("teacher", teacher_model="convnet-8", objective="robust"))
    found = tables.build_all(scan(tmp_path))
    assert [panel.title for panel, _ in found] == [
        "cifar10-lt, convnet-32 → convnet-16",
        "digits-lt, convnet-32 → convnet-16",
        "digits-lt, convnet-32 → convnet-8",
    ]
    labels = [row.label for row in found[2][1].rows]
    assert labels[:2] == ["Teacher (no distillation)", "Student’s architecture (no distillation)"]


def test_other_methods_and_trade_offs_follow_the_paper_s_rows(tmp_path: Path) -> None:
    save(tmp_path, record(objective="tradeoff:0.5", labels="teacher"))
    save(tmp_path, record(method="ada-margin:scale=2.0"))
    save(tmp_path, record(objective="robust"))
    save(tmp_path, record("teacher", method="group-dro", objective="robust"))
    assert [row.label for row in built(tmp_path)[1].rows] == [
        "Group DRO (no distillation)",
        "Student: robust (one-hot validation labels)",
        "Student: trade-off α = 0.5 (teacher validation labels)",
        "AdaMargin, scale=2.0, student: standard",
    ]


def test_markdown_marks_the_best_and_escapes(tmp_path: Path) -> None:
    journal(tmp_path, repeats=2, data="npz:a|b*<i>", temperatures=(3.0,))
    text = tables.markdown(built(tmp_path)[1])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    assert sum(line.count("**") for line in lines) == 2
    assert "<i>" not in text
    assert "npz:a\\|b\\*&lt;i&gt;" in text


def test_the_terminal_table_takes_markup_in_names_as_text(tmp_path: Path) -> None:
    journal(tmp_path, repeats=1, data="[bold]x[/nonsense]", temperatures=(3.0,))
    console = Console(width=120, file=io.StringIO())
    console.print(tables.terminal(built(tmp_path)[1]))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "[bold]x[/nonsense]" in shown
    assert "Student: balanced" in shown


def test_csv_has_a_line_for_each_cell_in_percent(full: tuple[Panel, ResultTable]) -> None:
    lines = list(csv.DictReader(io.StringIO(tables.csv_text([full]))))
    assert len(lines) == 15
    assert {line["n"] for line in lines} == {"3"}
    assert sum(line["best"] == "True" for line in lines) == 1
    plain = next(li for li in lines if (li["teacher_objective"], li["student_objective"]) == ("standard", "standard"))
    values = [100 * metrics.worst_class for metrics in full[1].rows[1].cells[0].group.metrics("test")]  # type: ignore[union-attr]
    assert float(plain["worst_mean_percent"]) == pytest.approx(np.mean(values), abs=1e-4)
    assert plain["temperature"] == "3.0"


def test_latex_escapes_and_marks_the_best(tmp_path: Path) -> None:
    journal(tmp_path, repeats=2, temperatures=(3.0,), data="a_b&c%")
    text = tables.latex(built(tmp_path)[1])
    assert text.count(r"\textbf{") == 1
    assert r"$\pm$" in text
    assert "±" not in text


def test_an_undefined_accuracy_is_a_dash_and_never_best(tmp_path: Path) -> None:
    content = record("teacher", objective="robust")
    content["metrics"]["test"] |= {"worst_class": None, "balanced": None}
    save(tmp_path, content)
    for objective in ("standard", "balanced"):
        save(tmp_path, record("teacher", objective=objective))
    ((_, table),) = tables.build_all(scan(tmp_path))
    assert tables.cell_lines(table.rows[0].cells[2])[0] == "–"
    assert [cell.best for cell in table.cells].count(True) == 1


def test_classes_that_differ_on_one_data_set_are_refused(tmp_path: Path) -> None:
    runs = [Record.model_validate(record("teacher", class_names=names)) for names in (["a", "b"], ["b", "a"])]
    with pytest.raises(ValueError, match="one list of classes"):
        tables.build_all(runs)


def test_methods_are_called_what_their_cards_call_them() -> None:
    assert {name: method.card.title for name, method in methods.known().items()} == METHODS

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from experiments.paper.runs import figure, finished, noisy, table
from robustdistill.experiments.paper import page, texts, writers
from robustdistill.experiments.paper.results import FigureResult, TableResult, figure_result, table_result


@pytest.fixture(scope="module")
def result() -> TableResult:
    plan = table(1, "cifar10-lt", repeats=2)
    return table_result(plan, finished(plan.jobs, noisy))


@pytest.fixture(scope="module")
def stand_in() -> TableResult:
    plan = table(1, "digits-lt", "tiny", repeats=2)
    return table_result(plan, finished(plan.jobs, noisy))


@pytest.fixture(scope="module")
def points() -> FigureResult:
    plan = figure(2, "digits-lt", "tiny", repeats=2, alphas=(0.0, 1.0))
    return figure_result(plan, finished(plan.jobs, noisy))


def test_markdown_has_the_papers_layout(result: TableResult) -> None:
    text = writers.markdown(result)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in rows[2 : 2 + len(result.plan.layout.rows)]]
    assert names == [
        *("No distillation", "Post-shift", "AdaMargin", "Standard student", "Balanced student"),
        *("Robust student (teacher val)", "Robust student (one-hot val)"),
    ]
    assert rows[0] == "| | standard teacher | balanced teacher | robust teacher |"
    cell = rows[2 + 5].split("|")[3]
    found = result.cell("resnet56", 5, 1)
    assert found.worst.ours is not None
    assert f"{100 * found.worst.ours.mean:.2f} ± " in cell
    assert "paper: 75.56 ± 0.19 (80.81 ± 0.08)" in cell
    assert texts.signed(found.worst.difference) in cell
    assert result.rule in text


def test_csv_has_every_figure_of_every_cell(result: TableResult) -> None:
    rows = list(csv.DictReader(io.StringIO(writers.csv_text(writers.table_rows(result)))))
    assert len(rows) == 21
    row = next(r for r in rows if r["row"].endswith("(teacher val)") and r["teacher_objective"] == "balanced")
    found = result.cell("resnet56", 5, 1)
    assert found.worst.ours is not None
    assert float(row["worst_mean"]) == pytest.approx(100 * found.worst.ours.mean, abs=1e-4)
    assert (row["worst_paper"], row["worst_paper_error"], row["worst_paper_n"]) == ("75.56", "0.19", "10")
    assert float(row["worst_difference"]) == pytest.approx(float(row["worst_mean"]) - 75.56, abs=2e-4)
    assert row["overlap"] == str(found.worst.overlap)
    shift = next(r for r in rows if r["method"] == "post-shift")
    assert (shift["worst_mean"], shift["worst_n"], shift["overlap"]) == ("", "0", "")


def test_latex_is_escaped_and_balanced(result: TableResult) -> None:
    text = writers.latex(result)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 * len(result.plan.layout.rows)
    assert all(line.count(" & ") == 3 for line in rows)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "±" not in body
    assert not re.search(r"(?<!\\)[%_#]", body)
    assert r"\footnotesize paper: 75.56 $\pm$ 0.19 (80.81 $\pm$ 0.08)" in body


def test_two_panels_for_imagenet() -> None:
    plan = table(7, "imagenet", "tiny", repeats=1)
    result = table_result(plan, {})
    panels = list(writers.panels(result))
    assert [student for student, _, _ in panels] == ["resnet34", "resnet18"]
    assert "resnet14 → resnet8" in panels[1][1]
    assert panels[1][2][0][1][0].worst.printed is not None
    assert "24.43 ± 0.00" in writers.markdown(result)
    assert "20.64 ± 0.24" in writers.markdown(result)


def test_a_stand_in_says_so_first(stand_in: TableResult) -> None:
    said = " ".join(texts.lede(stand_in))
    assert "The paper has no numbers for digits-lt" in said
    assert "orientation only" in said
    assert "in place of cifar10-lt" in texts.headline(stand_in)
    assert "overlaps with the paper" not in texts.headline(stand_in)
    markdown = writers.markdown(stand_in)
    for change in stand_in.plan.setup.changes:
        assert f"| {change.what} | {change.paper} | {change.here} |" in markdown


def test_the_headline_counts_overlaps(result: TableResult) -> None:
    judged = [cell.worst.overlap for cell in result.cells if cell.worst.overlap is not None]
    assert len(judged) == 18  # all but post-shift, which has no predictions here
    assert f"overlaps with the paper’s in {sum(judged)} of 18 cells" in texts.headline(result)


def test_nothing_is_claimed_of_no_runs() -> None:
    plan = table(5, "cifar10", "tiny")
    empty = table_result(plan, {})
    assert texts.headline(empty) == "Table 5 on cifar10: no run is finished yet."
    assert "0 of 6 results are in (2 failed)" in " ".join(texts.lede(empty, failed=2))
    nothing = figure_result(figure(1, "digits-lt", "tiny"), {})
    assert "no run is finished yet" in texts.headline(nothing)


def test_group_dro_has_one_column() -> None:
    plan = table(5, "cifar10-lt", repeats=2)
    text = writers.markdown(table_result(plan, finished(plan.jobs, noisy)))
    assert "| | No teacher |" in text
    assert "paper: 59.93 ± 0.59 (74.39 ± 0.17)" in text
    assert "η = 0.01" in text


@pytest.mark.parametrize("pair", [(3.0, None), (3.0, 3.0)])
def test_temperatures_for_people(pair: tuple[float, float | None]) -> None:
    assert texts.temperatures(pair) == "3"
    assert texts.temperatures((3.0, 0.1)) == "3, validation 0.1"
    assert texts.temperatures(None) == "–"


def test_the_terminal_shows_ours_and_the_papers(result: TableResult) -> None:
    console = Console(width=160, file=io.StringIO(), force_terminal=False)
    for each in writers.terminal(result):
        console.print(each)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "paper 75.56±0.19" in text
    assert "Robust student (one-hot val)" in text


def test_files_of_a_table(result: TableResult, tmp_path: Path) -> None:
    plan = result.plan
    records = list(finished(plan.jobs, noisy).values())
    failures = [page.Failure("student_<x>", "OSError: <disk> & more")]
    path = page.write(result, tmp_path, failures=failures, records=records, command="robustdistill reproduce table1")
    assert path == tmp_path / "index.html"
    names = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")}
    assert names >= {"comparison.html", "comparison.md", "comparison.csv", "comparison.tex"}
    assert names >= {"figures/table1-resnet56.png", "figures/table1-resnet56.svg"}
    alone, whole = (tmp_path / name for name in ("comparison.html", "index.html"))
    for text in (alone.read_text(encoding="utf-8"), whole.read_text(encoding="utf-8")):
        assert "75.56 ± 0.19" in text
        assert "OSError: &lt;disk&gt; &amp; more" in text
        assert "<disk>" not in text
        assert not re.search(r'(src|href)="https?:', text)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
    assert "&lt;slow &amp; steady&gt;" in alone.read_text(encoding="utf-8")
    assert alone.read_text(encoding="utf-8").count("<h1") == 1
    assert whole.read_text(encoding="utf-8").count("<h1") == 1


def test_files_of_a_figure(points: FigureResult, tmp_path: Path) -> None:
    path = page.write(points, tmp_path)
    assert path == tmp_path / "comparison.html"
    text = path.read_text(encoding="utf-8")
    assert "All temperatures are shown" in text
    assert "teacher balanced → student robust, T = 3" in text
    assert (tmp_path / "figures/figure2.svg").read_text(encoding="utf-8").count("<svg") == 1
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 + 9 * 2  # three teachers, and their students at two temperatures
    assert sum(row["chosen"] == "True" for row in rows) == 3 + 9
    assert text.count("<tr>") >= len(rows)


def test_the_chosen_temperature_alone_in_figure_1() -> None:
    plan = figure(1, "digits-lt", "tiny", repeats=1, alphas=(0.0, 1.0))
    found = figure_result(plan, finished(plan.jobs, noisy))
    assert len(found.shown) == 3 + 9
    assert len(found.points) == 3 + 18

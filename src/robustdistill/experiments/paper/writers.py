"""A comparison as Markdown, LaTeX, CSV, plain values and a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from robustdistill.experiments.paper import texts
from robustdistill.experiments.paper.compare import INTERVALS, Beside
from robustdistill.experiments.paper.plan import TablePlan
from robustdistill.experiments.paper.results import CellResult, FigureResult, TableResult
from robustdistill.experiments.select import Estimate, metric_name
from robustdistill.report.escaping import latex_text, markdown_text, spreadsheet


def panels(result: TableResult) -> Iterator[tuple[str, str, list[tuple[str, list[CellResult]]]]]:
    """The paper's panels, one for each student: its architecture, a caption, and rows of a label and their cells."""
    layout = result.plan.layout
    for student in layout.students:
        rows = [
            (row.name, [result.cell(student, index, column) for column in range(len(layout.columns))])
            for index, row in enumerate(layout.rows)
        ]
        yield student, caption(result.plan, student), rows


def caption(plan: TablePlan, student: str) -> str:
    """What a panel shows."""
    layout, setup = plan.layout, plan.setup
    model = setup.students[layout.students.index(student)]
    undistilled = f" ({setup.teacher_repeats} without distillation)" if setup.teacher_repeats != setup.repeats else ""
    models = model if layout.columns == ("",) else f"{setup.teacher} → {model}"
    return (
        f"{texts.title(plan)}, {models}: {metric_name(setup.worst)} ({layout.average} accuracy) on test, percent,"
        f" mean ± standard error, n = {setup.repeats}{undistilled}"
    )


def headings(plan: TablePlan) -> list[str]:
    """The columns' names."""
    return [f"{column} teacher" if column else "No teacher" for column in plan.layout.columns]


def lines(found: CellResult) -> dict[str, str]:
    """The lines of a cell: ours and the paper's, worst metric and average, and how they differ."""
    short = f" [n = {found.done}]" if found.done < found.planned and found.worst.ours is not None else ""
    difference = texts.signed(found.worst.difference) if found.worst.difference is not None else ""
    return {
        "worst": texts.plus_minus(found.worst.ours) + short,
        "average": f"({texts.plus_minus(found.average.ours)})" if found.average.ours is not None else "",
        "paper_worst": found.worst.printed.text if found.worst.printed else "",
        "paper_average": f"({found.average.printed.text})" if found.average.printed else "",
        "difference": ", ".join(part for part in (difference, texts.overlap(found)) if part),
    }


def markdown(result: TableResult, failed: int = 0) -> str:
    """The table in the paper's layout, what differs from the paper, and how to read it."""
    parts = [f"# {markdown_text(texts.headline(result))}", *map(markdown_text, texts.lede(result, failed))]
    for _, text, rows in panels(result):
        head = "| | " + " | ".join(headings(result.plan)) + " |"
        table = [f"**{markdown_text(text)}**", "", head, "|---|" + "---:|" * len(result.plan.layout.columns)]
        table += [
            f"| {markdown_text(label)} | " + " | ".join(map(_markdown_cell, cells)) + " |" for label, cells in rows
        ]
        parts.append("\n".join(table))
    parts += [markdown_text(result.rule), markdown_text(INTERVALS)]
    return "\n\n".join([*parts, *_settings_markdown(result)]) + "\n"


def figure_markdown(result: FigureResult, failed: int = 0) -> str:
    """The points of a figure as a table."""
    parts = [f"# {markdown_text(texts.headline(result))}", *map(markdown_text, texts.lede(result, failed))]
    table = ["| Point | Standard accuracy | Worst-class accuracy | Chosen |", "|---|---:|---:|---|"]
    for point in result.shown:
        values = f"{texts.plus_minus(point.standard)} | {texts.plus_minus(point.worst)}"
        table.append(f"| {markdown_text(texts.point_name(point))} | {values} | {'yes' if point.chosen else ''} |")
    parts += ["\n".join(table), markdown_text(result.rule)]
    return "\n\n".join([*parts, *_settings_markdown(result)]) + "\n"


def _settings_markdown(result: TableResult | FigureResult) -> list[str]:
    setup = result.plan.setup
    changed = ["| What | Paper | Here |", "|---|---|---|"]
    changed += [f"| {' | '.join(map(markdown_text, (c.what, c.paper, c.here)))} |" for c in setup.changes]
    said = [f"- {markdown_text(text)}" for text in texts.choices(result.plan.layout, setup)]
    differs = ["## What differs from the paper", "\n".join(changed) if setup.changes else "Nothing that it prints."]
    return [*differs, "## Where the paper is silent", "\n".join(said)]


def _markdown_cell(found: CellResult) -> str:
    texts_of = {key: markdown_text(text) for key, text in lines(found).items()}
    ours = f"**{texts_of['worst']}**" if found.best else texts_of["worst"]
    paper = f"paper: {texts_of['paper_worst']} {texts_of['paper_average']}" if texts_of["paper_worst"] else ""
    return "<br>".join(
        part for part in (f"{ours} {texts_of['average']}".strip(), paper, texts_of["difference"]) if part
    )


def latex(result: TableResult) -> str:
    """A booktabs tabular for each panel: ours, the average below, and the paper's in smaller type."""
    found = []
    for _, text, rows in panels(result):
        columns = len(result.plan.layout.columns)
        part = [f"% {latex_text(text)}", rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
        part.append(" & " + " & ".join(map(latex_text, headings(result.plan))) + r" \\ \midrule")
        for label, cells in rows:
            of_cells = [{key: latex_text(value) for key, value in lines(cell).items()} for cell in cells]
            worst = [
                rf"\textbf{{{values['worst']}}}" if cell.best else values["worst"]
                for cell, values in zip(cells, of_cells, strict=True)
            ]
            paper = [rf"\footnotesize paper: {v['paper_worst']} {v['paper_average']}" for v in of_cells]
            part.append(f"{latex_text(label)} & " + " & ".join(worst) + r" \\")
            part.append(" & " + " & ".join(values["average"] for values in of_cells) + r" \\")
            part.append(" & " + " & ".join(paper) + r" \\")
        found.append("\n".join([*part, r"\bottomrule", r"\end{tabular}"]))
    notes = [*texts.lede(result), result.rule, INTERVALS, *_changes(result)]
    return "\n\n".join(found) + "\n" + "".join(f"% {latex_text(note)}\n" for note in notes)


def _changes(result: TableResult | FigureResult) -> list[str]:
    return [f"{change.what}: {change.here} (paper: {change.paper})" for change in result.plan.setup.changes]


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as CSV; what is not known is empty."""
    return spreadsheet(list(rows[0]) if rows else [], rows)


def table_rows(result: TableResult) -> list[dict[str, Any]]:
    """A dict for each cell, accuracies in percent."""
    layout, setup = result.plan.layout, result.plan.setup
    found = []
    for one in result.cells:
        cell = one.cell
        row: dict[str, Any] = {"table": layout.number, "data": setup.data.name, "paper_data": layout.data}
        row |= {"scale": setup.scale, "teacher": setup.teacher}
        row |= {"student": setup.students[layout.students.index(cell.student)], "paper_student": cell.student}
        row |= {"row": cell.row.name, "method": cell.row.method, "teacher_objective": cell.column}
        row |= {"student_objective": cell.row.objective, "validation_labels": cell.row.labels}
        row |= {"temperature": one.chosen[0] if one.chosen else None}
        row |= {"validation_temperature": one.chosen[1] if one.chosen else None}
        row |= {"runs_done": one.done, "runs_planned": one.planned, "best": one.best, "worst_metric": setup.worst}
        row |= _beside("worst", one.worst) | {"overlap": one.worst.overlap}
        row |= {"average_metric": layout.average, **_beside("average", one.average)}
        row |= {"validation_worst": _points(_mean(one.validation)), "validation_gap": _points(one.gap)}
        found.append(row)
    return found


def figure_rows(result: FigureResult) -> list[dict[str, Any]]:
    """A dict for each point of every temperature, accuracies in percent."""
    found = []
    for point in result.points:
        row: dict[str, Any] = {"figure": result.plan.layout.number, "data": result.plan.setup.data.name}
        row |= {"teacher_objective": point.teacher, "student_objective": point.student}
        row |= {"temperature": point.temperatures[0] if point.temperatures else None}
        row |= {"validation_temperature": point.temperatures[1] if point.temperatures else None}
        row |= {
            "chosen": point.chosen,
            **_estimate("standard", point.standard),
            **_estimate("worst_class", point.worst),
        }
        row |= {"validation_worst": _points(_mean(point.validation))}
        found.append(row)
    return found


def terminal(result: TableResult) -> list[RichTable]:
    """A table for each panel, for a `rich.console.Console`."""
    found = []
    for _, text, rows in panels(result):
        table = RichTable(title=Text(text), title_justify="left")
        table.add_column("")
        for name in headings(result.plan):
            table.add_column(Text(name), justify="right")
        for label, cells in rows:
            table.add_row(Text(label), *map(_terminal_cell, cells), end_section=True)
        found.append(table)
    return found


def _terminal_cell(found: CellResult) -> Text:
    values = lines(found)
    text = Text(values["worst"], style="bold green" if found.best else "")
    for part in (
        values["average"],
        values["paper_worst"] and f"paper {values['paper_worst'].replace(' ', '')}",
        values["difference"],
    ):
        if part:
            text.append(f"\n{part}", style="not bold dim")
    return text


def _beside(name: str, both: Beside) -> dict[str, Any]:
    paper = both.printed
    return {
        **_estimate(name, both.ours),
        f"{name}_paper": _points(paper.mean if paper else None),
        f"{name}_paper_error": _points(paper.error if paper else None),
        f"{name}_paper_n": paper.n if paper else None,
        f"{name}_difference": _points(both.difference),
        f"{name}_difference_error": _points(both.difference_error),
    }


def _estimate(name: str, found: Estimate | None) -> dict[str, Any]:
    mean, error, n = (found.mean, found.error, found.n) if found else (None, None, 0)
    return {f"{name}_mean": _points(mean), f"{name}_error": _points(error), f"{name}_n": n}


def _mean(found: Estimate | None) -> float | None:
    return found.mean if found else None


def _points(fraction: float | None) -> float | None:
    """Percent to four decimals."""
    return None if fraction is None or fraction != fraction else round(100 * fraction, 4)

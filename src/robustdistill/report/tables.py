"""The main table, laid out like Table 1 of the paper: teacher objectives across, students down.

A cell holds the worst-class accuracy and, in parentheses, the balanced accuracy: means over repeats ± standard error.
This is where fractions become percent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Estimate, Group, choose
from robustdistill.report.escaping import latex_text, markdown_text, spreadsheet
from robustdistill.report.numbers import capital, plus_minus
from robustdistill.report.panels import (
    LABEL_ORDER,
    Panel,
    earlier_method,
    objective_name,
    objective_order,
    panels,
    row_name,
    worst_name,
)
from robustdistill.shown import in_line

_SOURCE = "Narasimhan & Menon 2021"
_TEACHER, _STUDENT = 0, 1


@dataclass(frozen=True)
class Cell:
    """One combination. `marked` carries the footnote of the earlier method, `best` the highest mean of the worst."""

    group: Group
    worst: Estimate | None
    balanced: Estimate | None
    best: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Row:
    """A kind of student, or the teachers; one cell or None for each column."""

    label: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class ResultTable:
    """What the writers below print.

    Attributes:
        columns: the teacher objectives, for people.
        repeats: "n = 3", or the range where cells differ.
        notes: the sentences below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    worst_name: str
    split_name: str
    repeats: str
    notes: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        return [cell for row in self.rows for cell in row.cells if cell is not None]


def build(panel: Panel) -> ResultTable:
    """The table of one panel. Two combinations that would share a cell get rows of their own, named by what differs."""
    columns = sorted({group.teacher_objective for group in panel.groups}, key=lambda name: objective_order(name or "~"))
    placed = _placed(panel)
    means = [found.mean for group in panel.groups if (found := panel.estimate(group)) and found.mean == found.mean]
    best = max(means, default=None)
    rows = []
    for label, groups in placed.items():
        cells = [
            Cell(
                group,
                worst := panel.estimate(group),
                panel.estimate(group, "balanced"),
                # Two cells may be best together; a sole cell is not best of anything.
                best=worst is not None and len(means) > 1 and worst.mean == best,
                marked=earlier_method(group),
            )
            if (group := groups.get(column))
            else None
            for column in columns
        ]
        rows.append(Row(label, tuple(cells)))
    counts = sorted({cell.worst.n for row in rows for cell in row.cells if cell and cell.worst})
    repeats = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    names = tuple(objective_name(column) for column in columns)
    notes = _notes(panel, counts, [cell for row in rows for cell in row.cells if cell])
    return ResultTable(panel.title, names, tuple(rows), worst_name(panel), panel.split_name, repeats, notes)


def build_all(records: Iterable[Record], worst: str = "worst_class") -> list[tuple[Panel, ResultTable]]:
    """The tables of a journal, from its records: grouped, temperatures chosen on validation, laid out."""
    return [(panel, build(panel)) for panel in panels(choose(records, worst))]


def cell_lines(cell: Cell | None, uneven: bool = False) -> tuple[str, str]:
    """The two lines of a cell in plain text: "71.2 ± 0.9" and "(85.3 ± 0.2)"; `uneven` adds the cell's n."""
    if cell is None:
        return "", ""
    if cell.worst is None:
        return "not evaluated", ""
    count = f" [n = {cell.worst.n}]" if uneven else ""
    return plus_minus(cell.worst) + ("*" if cell.marked else ""), f"({plus_minus(cell.balanced)}){count}"


def uneven(table: ResultTable) -> bool:
    """Whether cells have different numbers of repeats, so that each must say its own."""
    return len({cell.worst.n for cell in table.cells if cell.worst}) > 1


def markdown(table: ResultTable) -> str:
    """A Markdown table with its notes; the best worst-class accuracy is bold."""
    lines = [f"**{markdown_text(_caption(table))}**", ""]
    lines.append("| | " + " | ".join(f"{markdown_text(name)} teacher" for name in table.columns) + " |")
    lines.append("|---|" + "---:|" * len(table.columns))
    each = uneven(table)
    for row in table.rows:
        cells = []
        for cell in row.cells:
            above, below = (markdown_text(line) for line in cell_lines(cell, each))
            above = f"**{above}**" if cell and cell.best else above
            cells.append(f"{above}<br>{below}" if below else above)
        lines.append(f"| {markdown_text(row.label)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(markdown_text(note) + "  " for note in table.notes)]).rstrip() + "\n"


def terminal(table: ResultTable) -> RichTable:
    """The same for a terminal; print it with a `rich.console.Console`."""
    result = RichTable(
        title=Text(in_line(_caption(table))), caption=Text("\n".join(table.notes)), caption_justify="left"
    )
    result.add_column("")
    for name in table.columns:
        result.add_column(Text(f"{in_line(name)}\nteacher"), justify="right")
    each = uneven(table)
    for row in table.rows:
        cells = []
        for cell in row.cells:
            above, below = cell_lines(cell, each)
            text = Text(above, style="bold green" if cell and cell.best else "")
            cells.append(text.append(f"\n{below}", style="not bold dim") if below else text)
        result.add_row(Text(in_line(row.label)), *cells, end_section=row is table.rows[0])
    return result


def latex(table: ResultTable) -> str:
    """A booktabs tabular, two lines a row."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines.append(" & " + " & ".join(latex_text(name) for name in table.columns) + r" \\ \midrule")
    each = uneven(table)
    for row in table.rows:
        pairs = [[latex_text(line) for line in cell_lines(cell, each)] for cell in row.cells]
        above = [
            rf"\textbf{{{top}}}" if cell and cell.best else top for cell, (top, _) in zip(row.cells, pairs, strict=True)
        ]
        lines.append(f"{latex_text(row.label)} & " + " & ".join(above) + r" \\")
        lines.append(" & " + " & ".join(below for _, below in pairs) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {latex_text(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def csv_text(found: Sequence[tuple[Panel, ResultTable]]) -> str:
    """One line a cell, all panels, accuracies in percent to four decimals; for spreadsheets and other plots."""
    return spreadsheet(_CSV_COLUMNS, cells(found))


def cells(found: Sequence[tuple[Panel, ResultTable]]) -> list[dict[str, Any]]:
    """A dict for each cell of each table: the columns of the CSV."""
    return [
        _csv_row(panel, row.label, cell)
        for panel, table in found
        for row in table.rows
        for cell in row.cells
        if cell is not None
    ]


_CSV_COLUMNS = [
    *("data", "teacher_model", "student_model", "groups"),
    *("row", "role", "method", "teacher_objective", "student_objective"),
    *("validation_labels", "temperature", "validation_temperature", "split", "n", "worst_metric"),
    *("worst_mean_percent", "worst_standard_error_percent", "balanced_mean_percent", "balanced_standard_error_percent"),
    *("standard_mean_percent", "standard_standard_error_percent", "validation_worst_mean_percent", "best"),
]


def _csv_row(panel: Panel, label: str, cell: Cell) -> dict[str, Any]:
    group = cell.group
    shared = ("role", "method", "teacher_objective", "student_objective", "validation_labels")
    row: dict[str, Any] = {key: getattr(group, key) for key in (*shared, "temperature", "validation_temperature")}
    row |= {"data": panel.data.name, "teacher_model": panel.teacher_model, "student_model": panel.student_model}
    row |= {"groups": panel.over, "row": label, "split": panel.split_name}
    row |= {"worst_metric": panel.worst, "best": cell.best}
    row["n"] = cell.worst.n if cell.worst else 0
    standard = panel.estimate(group, "standard")
    for name, found in (("worst", cell.worst), ("balanced", cell.balanced), ("standard", standard)):
        if found is not None:
            row[f"{name}_mean_percent"] = f"{100 * found.mean:.4f}"
            row[f"{name}_standard_error_percent"] = "" if found.error is None else f"{100 * found.error:.4f}"
    validation = group.estimate(panel.worst, "val")
    row["validation_worst_mean_percent"] = "" if validation is None else f"{100 * validation.mean:.4f}"
    return row


def _placed(panel: Panel) -> dict[str, dict[str | None, Group]]:
    """Row label -> column -> group, in the order of the paper's rows."""
    rows: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(panel.groups, key=lambda group: _row_order(group, panel)):
        rows[row_name(group, panel)].append(group)
    placed: dict[str, dict[str | None, Group]] = defaultdict(dict)
    for label, groups in rows.items():
        varying = _varying(groups)
        for group in groups:
            detail = ", ".join(f"{key} = {group.settings.get(key)}" for key in varying)
            placed[f"{label} [{detail}]" if detail else label][group.teacher_objective] = group
    return placed


def _varying(groups: Sequence[Group]) -> list[str]:
    """The settings by which groups that would fill one cell differ."""
    columns: dict[str | None, list[Group]] = defaultdict(list)
    for group in groups:
        columns[group.teacher_objective].append(group)
    return sorted(
        {
            key
            for rivals in columns.values()
            for key in {key for rival in rivals for key in rival.settings}
            if len({repr(rival.settings.get(key)) for rival in rivals}) > 1
        }
    )


def _row_order(group: Group, panel: Panel) -> tuple[Any, ...]:
    if group.role == "teacher":
        return _TEACHER, group.model != panel.teacher_model, group.method != "margin", group.method
    order = (objective_order(group.objective), LABEL_ORDER.get(group.validation_labels, len(LABEL_ORDER)))
    return _STUDENT, group.method != "margin", group.method, order


def _notes(panel: Panel, counts: Sequence[int], cells: Sequence[Cell]) -> tuple[str, ...]:
    worst = worst_name(panel)
    notes = [
        f"{capital(worst)} on {panel.split_name} in percent; below it, in parentheses, balanced accuracy. "
        + ("Best in bold." if any(cell.best for cell in cells) else "")
    ]
    if panel.split == "val":
        notes.append(
            "No run was evaluated on test yet: these are validation figures, which selection has already used."
        )
    if counts and counts[-1] > 1:
        notes.append(
            "Mean ± standard error over repeats (s/√n, s with n − 1)"
            + (", no ± where n = 1." if counts[0] == 1 else ".")
        )
    elif counts:
        notes.append("One repeat (n = 1): no spread is known.")
    if any(cell.marked for cell in cells):
        notes.append(f"* {_SOURCE}: standard teacher, robust student with one-hot validation labels.")
    return tuple(note.strip() for note in notes)


def _caption(table: ResultTable) -> str:
    return f"{table.title}: {table.worst_name} (balanced accuracy) on {table.split_name}, percent, {table.repeats}"

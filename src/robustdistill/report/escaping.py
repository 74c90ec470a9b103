"""Other people's text in Markdown, LaTeX and spreadsheets: shown as it is, on one line, never obeyed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from robustdistill.shown import in_line


def markdown_text(text: str) -> str:
    """`text` as a cell of a Markdown table that shows it as it is."""
    text = in_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)


def latex_text(text: str) -> str:
    """`text` as LaTeX that shows it as it is: no command of its author's is run."""
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "→": r"$\to$",
        "−": "--",
        "√": r"$\sqrt{\,}$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "‹": r"$\langle$",
        "›": r"$\rangle$",
    }
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in in_line(text))


def spreadsheet(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV with a line of headings; None is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def spreadsheet_cell(value: object) -> object:
    """A value of a CSV cell that a spreadsheet shows: text that would be a formula gets an apostrophe before it.

    >>> spreadsheet_cell("=cmd|'/C calc'!A0"), spreadsheet_cell("-1.5"), spreadsheet_cell(-1.5)
    ("'=cmd|'/C calc'!A0", '-1.5', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = in_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

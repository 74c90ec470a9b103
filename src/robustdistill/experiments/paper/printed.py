"""The numbers that the paper prints, as data."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from robustdistill.experiments.paper.layouts import layout

SOURCE = "paper_tables.csv"


@dataclass(frozen=True)
class Printed:
    """A printed mean and standard error as fractions in [0, 1], over `n` repeats; `text` has the digits as printed."""

    mean: float
    error: float | None
    n: int
    text: str


@dataclass(frozen=True)
class PrintedCell:
    """One cell of a table: its worst metric, and below it the average."""

    worst: Printed
    average: Printed
    note: str


# Table, data set, teacher, student, method, teacher's objective, student's objective, validation labels.
Key = tuple[int, str, str, str, str, str, str, str]


@cache
def cells() -> dict[Key, PrintedCell]:
    """Every cell of Tables 1-8 by what it is of; parts that do not apply are empty."""
    lines = files(__package__).joinpath(SOURCE).read_text(encoding="utf-8").splitlines()
    found: dict[Key, PrintedCell] = {}
    for row in csv.DictReader(lines):
        table, data = int(row["table"]), row["dataset"]
        plan = layout(table, data)
        n = plan.teacher_repeats if row["method"] in ("none", "post-shift") else plan.repeats
        key = (
            *(table, data, row["teacher"], row["student"], row["method"]),
            *(row["teacher_objective"], row["student_objective"], row["validation_labels"]),
        )
        found[key] = PrintedCell(
            _printed(row["worst"], row["worst_error"], n),
            _printed(row["average"], row["average_error"], n),
            row["note"],
        )
    return found


def _printed(mean: str, error: str, n: int) -> Printed:
    text = f"{mean} ± {error}" if error else mean
    return Printed(float(mean) / 100, float(error) / 100 if error else None, n, text)

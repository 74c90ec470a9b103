"""A comparison as files: the report of its runs with the comparison in it, and the comparison alone in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from robustdistill import pages
from robustdistill.experiments.journal import Record
from robustdistill.experiments.paper import drawing, texts, writers
from robustdistill.experiments.paper.compare import INTERVALS
from robustdistill.experiments.paper.plan import counts
from robustdistill.experiments.paper.results import FigureResult, TableResult
from robustdistill.experiments.select import metric_name
from robustdistill.report import plots
from robustdistill.report.numbers import capital
from robustdistill.report.page import ExtraSection, write_records
from robustdistill.report.sections import embedded


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Picture:
    """A figure of the page; `alt` says in words what it shows."""

    title: str
    caption: str
    alt: str
    markup: Markup
    file: str


def write(
    result: TableResult | FigureResult,
    out: Path,
    *,
    failures: Sequence[Failure] = (),
    records: Sequence[Record] = (),
    command: str | None = None,
) -> Path:
    """Writes index.html, the report of the runs with the comparison in it, and comparison.html, .md, .csv and .tex.

    Args:
        result: what was measured.
        out: made where it does not exist. Pictures go to its figures/.
        failures: of its runs.
        records: of its runs; without any there is no report.
        command: that makes it again.

    Returns:
        The path of index.html, written last; of comparison.html where there are no records.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = _texts(result, len(failures))
    for name, text in files.items():
        pages.write(out / name, text)
    pictures = _pictures(result, out)
    common: dict[str, Any] = {
        "failures": failures,
        "seconds": sum(record.seconds for record in records if record.seconds),
        "files": list(files),
    }
    alone = fragment(result, pictures, alone=True, command=command, environment=_environment_of(records), **common)
    page = pages.render(
        _environment(), "comparison.html.j2", scripts=("sort.js.j2",), title=texts.title(result.plan), main=alone
    )
    pages.write(out / "comparison.html", page)
    if not records:
        return out / "comparison.html"
    part = ExtraSection("Beside the paper", fragment(result, pictures, **common), "paper")
    return write_records(records, out, worst=result.plan.setup.worst, extra_sections=[part])


def fragment(
    result: TableResult | FigureResult,
    pictures: Sequence[Picture],
    *,
    alone: bool = False,
    failures: Sequence[Failure] = (),
    seconds: float = 0.0,
    environment: Mapping[str, str] | None = None,
    command: str | None = None,
    files: Sequence[str] = (),
) -> Markup:
    """The comparison as a part of a page that has the report's style sheet and sorting script.

    Args:
        alone: whether it is all of the page: then it has the page's headline, command and environment too.
    """
    name = "table_part.html.j2" if isinstance(result, TableResult) else "figure_part.html.j2"
    values: dict[str, Any] = {
        "result": result,
        "setup": result.plan.setup,
        "headline": texts.headline(result),
        "lede": texts.lede(result, len(failures)),
        "choices": texts.choices(result.plan.layout, result.plan.setup),
        "pictures": pictures,
        "failures": failures,
        "runs": counts(result.plan),
        "seconds": seconds,
        "environment": environment,
        "command": command,
        "files": files,
        "intervals": INTERVALS,
        "worst_name": metric_name(result.plan.setup.worst),
        "texts": texts,
        "writers": writers,
        "alone": alone,
        "h": "h2" if alone else "h3",
    }
    return Markup(_environment().get_template(name).render(**values))


def _texts(result: TableResult | FigureResult, failed: int) -> dict[str, str]:
    if isinstance(result, FigureResult):
        rows = writers.figure_rows(result)
        return {"comparison.md": writers.figure_markdown(result, failed), "comparison.csv": writers.csv_text(rows)}
    return {
        "comparison.md": writers.markdown(result, failed),
        "comparison.csv": writers.csv_text(writers.table_rows(result)),
        "comparison.tex": writers.latex(result),
    }


def _pictures(result: TableResult | FigureResult, out: Path) -> list[Picture]:
    if isinstance(result, FigureResult):
        if not result.points:
            return []
        caption = (
            "Up is better for the weakest class, right on average. Means over repeats; bars are standard errors. "
            + ("All temperatures are shown." if result.plan.layout.all_temperatures else "The chosen temperature only.")
        )
        drawn = [(result.plan.layout.name, drawing.trade_off(result), texts.title(result.plan), caption)]
    else:
        drawn = [
            (
                f"{result.plan.layout.name}-{student}",
                drawing.beside(result, student),
                capital(f"{metric_name(result.plan.setup.worst)} of every cell"),
                f"{writers.caption(result.plan, student)}. Bars are 95 % intervals (Student’s t).",
            )
            for student in result.plan.layout.students
            if any(found.worst.ours is not None for found in result.cells if found.cell.student == student)
        ]
    pictures = []
    for name, figure, title, caption in drawn:
        svg, png = plots.save(figure, out / "figures", name)
        alt = f"{title}. {texts.headline(result)}"
        pictures.append(Picture(title, caption, alt, embedded(svg, png, name, alt), png.relative_to(out).as_posix()))
    return pictures


def _environment() -> Environment:
    # The report's own package has the style sheet and the sorting script, which both pages share.
    return pages.environment("robustdistill.experiments.paper", "robustdistill.report")


def _environment_of(records: Sequence[Record]) -> dict[str, str]:
    """Every value that a field of the environment takes over the runs, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record.environment.items():
            if value is not None and key != "date":
                found.setdefault(key, {})[str(value)] = None
    return {key: ", ".join(values) for key, values in found.items()}

"""The report as a page: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record, scan
from robustdistill.experiments.select import Group, choose
from robustdistill.metrics import Scores
from robustdistill.report import plots, tables
from robustdistill.report.findings import Finding, finding
from robustdistill.report.panels import Panel, pair_name, panels, percent, plus_minus, worst_name

# An SVG heavier than this is embedded as a picture where that is smaller.
_HEAVY = 250_000
_VARIABLES = {
    getattr(plots, name): f"--{'card' if name == 'PAPER' else name.lower()}"
    for name in ("INK", "MUTED", "GRID", "PAPER", "BLUE", "GREEN", "VERMILLION", "PURPLE", "ORANGE", "SKY")
}


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `alt` says in words what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    markup: Markup
    file: str


@dataclass(frozen=True)
class Section:
    """All that the page says about one panel."""

    slug: str
    panel: Panel
    finding: Finding
    table: tables.ResultTable
    pictures: tuple[Picture, ...]
    classes: list[dict[str, Any]]
    compared: list[str]
    chosen: list[dict[str, str]]
    settings: list[tuple[str, str, str]]


def write(records_root: str | Path, out: str | Path, *, worst: str = "worst_class") -> Path:
    """Writes index.html, figures/ (PNG and SVG), table.md, table.tex and table.csv below `out`.

    Args:
        records_root: a folder with finished runs at any depth.
        out: made where it does not exist.
        worst: "worst_class", or "worst_K" for the mean of the K lowest recalls; also what temperatures are chosen by.

    Returns:
        The path of index.html, written last.

    Raises:
        InputError: there is no finished run below `records_root`.
    """
    records = scan(records_root)
    if not records:
        raise InputError(
            f"records_root must hold finished runs, and no record.json was found below {str(records_root)!r}"
        )
    selection = choose(records, worst)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    built = [(panel, tables.build(panel)) for panel in panels(selection)]
    names = _names([panel for panel, _ in built])
    sections = [
        _section(panel, table, name, folder, len(built) > 1) for (panel, table), name in zip(built, names, strict=True)
    ]
    (folder / "table.md").write_text("\n".join(tables.markdown(table) for _, table in built), encoding="utf-8")
    (folder / "table.tex").write_text("\n".join(tables.latex(table) for _, table in built), encoding="utf-8")
    (folder / "table.csv").write_text(tables.csv_text(built), encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_render(sections, selection.rule, records), encoding="utf-8")
    return page


def _render(sections: list[Section], rule: str, records: list[Record]) -> str:
    environment = Environment(
        loader=PackageLoader("robustdistill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    return template.render(
        sections=sections,
        rule=rule,
        runs=len(records),
        seconds=sum(record.seconds for record in records if record.seconds),
        environment=_merged(record.environment for record in records),
        commands=list(dict.fromkeys(record.command for record in records if record.command))[:5],
        cell_lines=tables.cell_lines,
        uneven=tables.uneven,
        percent=percent,
        duration=_duration,
    )


def _names(found: list[Panel]) -> list[str]:
    """A distinct name for each panel that is safe as a folder and as an id."""
    names: list[str] = []
    for panel in found:
        plain = re.sub(r"[^a-z0-9]+", "-", panel.title.lower().replace("→", "to"))[:60].strip("-") or "panel"
        taken = sum(name == plain or name.startswith(f"{plain}--") for name in names)
        names.append(f"{plain}--{taken + 1}" if taken else plain)
    return names


def _section(panel: Panel, table: tables.ResultTable, slug: str, out: Path, several: bool) -> Section:
    folder = out / "figures" / slug if several else out / "figures"
    pictures = []
    for name, draw in plots.FIGURES.items():
        figure = draw(panel)
        if figure is None:
            continue
        svg, png = plots.save(figure, folder, name)
        title, caption, alt = _words(name, panel, table)
        markup = embedded(svg, png, f"{slug}-{name}", alt)
        pictures.append(Picture(name, title, caption, alt, markup, png.relative_to(out).as_posix()))
    shown = [group for group, _ in plots.compared(panel) if group.metrics(panel.split)]
    return Section(
        slug=slug,
        panel=panel,
        finding=finding(panel),
        table=table,
        pictures=tuple(pictures),
        classes=_classes(panel, shown),
        compared=[_short(panel, group) for group in shown],
        chosen=[_chosen(panel, group) for group in panel.students],
        settings=_settings(panel),
    )


def embedded(svg: Path, png: Path, prefix: str, alt: str) -> Markup:
    """A figure for inside the page: the SVG in the page's own colours, or the PNG where the SVG is the heavier one.

    Ids are prefixed, since those of two figures in one document would collide.
    """
    if svg.stat().st_size > _HEAVY and png.stat().st_size * 4 / 3 < svg.stat().st_size:
        data = base64.b64encode(png.read_bytes()).decode()
        return Markup('<img class="raster" src="data:image/png;base64,{}" alt="{}">').format(data, alt)
    text = svg.read_text(encoding="utf-8")
    view_box = re.search(r'viewBox="[^"]*"', text)
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    body = body[body.index(">") + 1 :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    opening = Markup('<svg role="img" aria-label="{}" {}>').format(alt, Markup(view_box[0] if view_box else ""))
    return opening + Markup(body)


def _words(name: str, panel: Panel, table: tables.ResultTable) -> tuple[str, str, str]:
    """Title, caption and alternative text of a figure."""
    names = " and ".join(pair_name(group) for group, _ in plots.compared(panel))
    worst = worst_name(panel)
    best = "; ".join(
        f"{pair_name(cell.group)}: {plus_minus(cell.worst)} percent, balanced {plus_minus(cell.balanced)} percent"
        for cell in sorted(table.cells, key=lambda cell: -(cell.worst.mean if cell.worst else -1.0))[:3]
    )
    lowest = "; ".join(
        f"{pair_name(group)}: lowest recall {percent(float(recall.min()))} percent, "
        f"class {panel.class_names[int(recall.argmin())]}"
        for group, _ in plots.compared(panel)
        if group.metrics(panel.split) and not np.isnan(recall := plots.mean_recall(group, panel)).any()
    )
    words: dict[str, Callable[[], tuple[str, str, str]]] = {
        "plane": lambda: (
            f"{worst[0].upper()}{worst[1:]} against balanced accuracy",
            "Up is better for the weakest class, right is better on average over classes. Each point is a mean over "
            "repeats and the bars are standard errors. A dashed line joins the points that no other beats on both, "
            "where there are several.",
            f"Scatter plot of {worst} against balanced accuracy on {panel.split_name}. Highest: {best}.",
        ),
        "recalls": lambda: (
            "Recall of each class",
            "Classes from the most training examples to the fewest; means over repeats. The dotted lines mark each "
            "model’s lowest class. It can lie above the worst-class accuracy of the table, which takes the lowest "
            "class of every repeat anew.",
            f"Recall of each class from head to tail for {names}. {lowest}.",
        ),
        "multipliers": lambda: (
            "Multipliers over training",
            "λ is the weight that the robust objective gives to each class; it starts equal (dotted) and grows where "
            f"the model errs on validation. Means over repeats; the classes that end highest are named, the rest grey. "
            f"The teacher comes first, then the students, best on validation first (at most {plots.TRACES} plots).",
            "Line plots of each class’s multiplier over epochs for the robust teacher and students.",
        ),
        "curves": lambda: (
            "Learning curves",
            "Accuracy on validation after each epoch; the bands are standard errors over repeats. No epoch is picked "
            "from these curves: the model is always the last one.",
            "Line plots of worst-class and balanced validation accuracy by epoch, standard against robust.",
        ),
    }
    return words[name]()


def _classes(panel: Panel, shown: list[Group]) -> list[dict[str, Any]]:
    """One row a class, head to tail: counts, and for each compared group its recall and Wilson interval."""
    columns = []
    for group in shown:
        found = group.metrics(panel.split)
        # The repeats share one test sample, so its size stays that of one: the interval is for the mean recall on it.
        mean = np.mean([metrics.correct for metrics in found], axis=0)
        scores = Scores(np.asarray(mean), np.asarray(found[0].counts, dtype=np.int64))
        columns.append((scores.per_class, scores.wilson()))
    tested = shown[0].metrics(panel.split)[0].counts if shown else []
    rows = []
    for index in plots.class_order(panel) if shown else []:
        cells = [
            {"recall": float(recall[index]), "low": float(interval[index, 0]), "high": float(interval[index, 1])}
            for recall, interval in columns
        ]
        change = cells[1]["recall"] - cells[0]["recall"] if len(cells) == 2 else None
        rows.append(
            {
                "name": panel.class_names[index],
                "train": panel.train_counts[index],
                "tested": tested[index],
                "cells": cells,
                "change": change,
            }
        )
    return rows


def _short(panel: Panel, group: Group) -> str:
    """A column heading; the finding above the table says which combination the best robust student is."""
    if group is panel.plain:
        return "Plain distillation"
    return "Best robust student" if group is panel.best_robust else pair_name(group)


def _chosen(panel: Panel, group: Group) -> dict[str, str]:
    on_validation, on_test = group.estimate(panel.worst, "val"), group.estimate(panel.worst, "test")
    compared = [pair for pair in group.candidates if pair != (group.temperature, group.validation_temperature)]
    gap = on_validation.mean - on_test.mean if on_validation and on_test else None
    return {
        "pair": pair_name(group),
        "temperature": _temperatures(group.temperature, group.validation_temperature),
        "others": ", ".join(_temperatures(*pair) for pair in compared) or "none",
        "n": str(len(group.records)),
        "validation": plus_minus(on_validation),
        "test": plus_minus(on_test),
        "gap": "–" if gap is None else f"{100 * gap:+.1f}".replace("-", "−"),
    }


def _temperatures(targets: float | None, validation: float | None) -> str:
    if targets is None:
        return "–"
    return f"{targets:g}" if validation is None or validation == targets else f"{targets:g} (validation {validation:g})"


def _settings(panel: Panel) -> list[tuple[str, str, str]]:
    """(setting, teachers' values, students' values), each value once."""
    teachers = _merged(_facts(record) for group in panel.teachers for record in group.records)
    students = _merged(_facts(record) for group in panel.students for record in group.records)
    return [(key, teachers.get(key, "–"), students.get(key, "–")) for key in dict.fromkeys([*teachers, *students])]


def _facts(record: Record) -> dict[str, Any]:
    spec = record.spec
    names = {"train": "training data’s fingerprint", "val": "validation data’s fingerprint"}
    data = {
        names.get(key, key.replace("_", " ")): value for key, value in spec.data.model_dump().items() if key != "name"
    }
    facts = {
        "data": spec.data.name,
        **data,
        "training examples": sum(record.train_counts),
        "classes": len(record.class_names),
        "model": spec.model,
        "parameters": record.parameters,
        "multipliers’ risk": spec.risk,
        **{
            "recipe" if key == "name" else key.replace("_", " "): value
            for key, value in spec.recipe.model_dump().items()
        },
        "seed": spec.seed,
        "threads": spec.threads,
    }
    if spec.distillation is not None:
        facts["teacher view"] = spec.distillation.teacher_view
    return facts


def _merged(found: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Every value that a key takes, in order of appearance; long lists are cut."""
    values: dict[str, list[str]] = defaultdict(list)
    for facts in found:
        for key, value in facts.items():
            text = (
                f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
            )
            if value is not None and text not in values[key]:
                values[key].append(text)
    return {key: ", ".join(kept[:8]) + (", …" if len(kept) > 8 else "") for key, kept in values.items() if kept}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"

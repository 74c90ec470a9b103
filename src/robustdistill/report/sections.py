"""What the page says about one panel: its tables and figures, ready for the template."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from robustdistill.experiments.journal import Record
from robustdistill.experiments.select import Estimate, Group, measure
from robustdistill.metrics import Scores
from robustdistill.report import means, plane, plots, style, tables
from robustdistill.report.claims import Ledger
from robustdistill.report.commands import Reproduction, reproduction
from robustdistill.report.findings import Finding, finding
from robustdistill.report.intervals import Interval, group_interval, over_repeats, paired_groups
from robustdistill.report.numbers import capital, percent, plus_minus, signed
from robustdistill.report.panels import Panel, pair_name, worst_name

# An SVG heavier than this is embedded as a picture where that is smaller.
_HEAVY = 250_000
# A bootstrap takes milliseconds, which adds up over thousands of combinations.
BOOTSTRAPPED = 20
VARIABLES = {
    getattr(style, name): f"--{'card' if name == 'PAPER' else name.lower()}"
    for name in ("INK", "MUTED", "GRID", "PAPER", "BLUE", "GREEN", "VERMILLION", "PURPLE", "ORANGE", "SKY")
}


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `alt` says in words what it shows; `files` are its PNG and SVG, relative to the page."""

    name: str
    title: str
    caption: str
    alt: str
    markup: Markup
    files: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """A line of the table of every combination: what was chosen, and how sure its figures are."""

    name: str
    temperature: str
    others: str
    n: int
    figures: tuple[tuple[str, str, float | None], ...]
    reproduction: Reproduction


@dataclass(frozen=True)
class Section:
    """All that the page says about one panel. `left_out` combinations are in the CSV only."""

    slug: str
    panel: Panel
    finding: Finding
    table: tables.ResultTable
    pictures: tuple[Picture, ...]
    classes: list[dict[str, Any]]
    compared: list[str]
    paired: str
    combinations: list[Combination]
    settings: list[tuple[str, str, str]]
    ledger: Ledger
    left_out: int


def section(
    panel: Panel,
    shown: Panel,
    *,
    slug: str,
    out: Path,
    folder: Path | None,
    by_hash: Mapping[str, Record],
    ledger: Ledger,
    budget: int,
) -> Section:
    """Draws the figures of a panel and gathers what is said beside them.

    Args:
        panel: with all of its groups.
        shown: the same with those that the page has room for.
        slug: distinct among sections, and safe as an id.
        out: the folder of the page.
        folder: for the figures; None draws none.
        by_hash: every record.
        ledger: of the claims.
        budget: bytes that one embedded figure may take.
    """
    compared = [group for group, _ in means.compared(shown) if group.metrics(shown.split)]
    table = tables.build(shown)
    return Section(
        slug=slug,
        panel=shown,
        finding=finding(panel),
        table=table,
        pictures=_pictures(shown, table, slug, out, folder, budget) if folder is not None else (),
        classes=_classes(shown, compared),
        compared=[_short(shown, group) for group in compared],
        paired=_paired(shown, compared),
        combinations=_combinations(shown, by_hash),
        settings=_settings(panel),
        ledger=ledger,
        left_out=len(panel.groups) - len(shown.groups),
    )


def _pictures(
    panel: Panel, table: tables.ResultTable, slug: str, out: Path, folder: Path, budget: int
) -> tuple[Picture, ...]:
    pictures = []
    for name, draw in plots.FIGURES.items():
        figure = draw(panel)
        if figure is None:
            continue
        svg, png = plots.save(figure, folder, name)
        title, caption, alt = _words(name, panel, table)
        if name == "plane":
            markup = plane.interactive(panel, slug, VARIABLES)
        else:
            markup = embedded(svg, png, f"{slug}-{name}", alt, budget)
        files = tuple(path.relative_to(out).as_posix() for path in (png, svg))
        pictures.append(Picture(name, title, caption, alt, markup, files))
    return tuple(pictures)


def embedded(svg: Path, png: Path, prefix: str, alt: str, budget: int = 1_000_000) -> Markup:
    """A figure for inside the page: the SVG in the page's own colours, or the PNG where the SVG is the heavier one.

    Ids are prefixed, since those of two figures in one document would collide. Where neither fits `budget` bytes, the
    words alone are left, and the files beside the page.
    """
    if min(svg.stat().st_size, png.stat().st_size * 4 / 3) > budget:
        return Markup('<p class="note">{} Too large to be part of this page: its files are below.</p>').format(alt)
    if svg.stat().st_size > _HEAVY and png.stat().st_size * 4 / 3 < svg.stat().st_size:
        data = base64.b64encode(png.read_bytes()).decode()
        return Markup('<img class="raster" src="data:image/png;base64,{}" alt="{}">').format(data, alt)
    text = svg.read_text(encoding="utf-8")
    view_box = re.search(r'viewBox="[^"]*"', text)
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    body = body[body.index(">") + 1 :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    opening = Markup('<svg role="img" aria-label="{}" {}>').format(alt, Markup(view_box[0] if view_box else ""))
    return opening + Markup(body)


def _words(name: str, panel: Panel, table: tables.ResultTable) -> tuple[str, str, str]:
    """Title, caption and alternative text of a figure."""
    recall = "recall" if panel.unit == "class" else "accuracy"
    names = " and ".join(pair_name(group, panel) for group, _ in means.compared(panel))
    worst = worst_name(panel)
    best = "; ".join(
        f"{pair_name(cell.group, panel)}: {plus_minus(cell.worst)} percent,"
        f" balanced {plus_minus(cell.balanced)} percent"
        for cell in sorted(table.cells, key=lambda cell: -(cell.worst.mean if cell.worst else -1.0))[:3]
    )
    lowest = "; ".join(
        f"{pair_name(group, panel)}: lowest {recall} "
        f"{percent(float(values.min()))} percent, {panel.unit} {panel.units[int(values.argmin())]}"
        for group, _ in means.compared(panel)
        if group.metrics(panel.split) and not np.isnan(values := means.mean_recall(group, panel)).any()
    )
    unit, units = panel.unit, {"class": "classes", "group": "groups"}[panel.unit]
    words: dict[str, Callable[[], tuple[str, str, str]]] = {
        "plane": lambda: (
            f"{capital(worst)} against balanced accuracy",
            f"Up is better for the weakest {unit}, right is better on average over classes. Each point is a mean over "
            "repeats and the bars are standard errors. A line joins, in each family, the points that no other of the "
            "family beats on both. Point at one, tap it, or go there with Tab and the arrow keys, to see its runs.",
            f"Scatter plot of {worst} against balanced accuracy on {panel.split_name}. Highest: {best}.",
        ),
        "recalls": lambda: (
            f"{recall.capitalize()} of each {unit}",
            f"{units.capitalize()} from the most training examples to the fewest; means over repeats. The dotted lines "
            f"mark each model’s lowest {unit}. It can lie above the {worst} of the table, which takes the lowest "
            f"{unit} of every repeat anew.",
            f"{recall.capitalize()} of each {unit} from head to tail for {names}. {lowest}.",
        ),
        "multipliers": lambda: (
            "Multipliers over training",
            f"λ is the weight that the robust objective gives to each {unit}; it starts equal (dotted) and grows where "
            f"the model errs on validation. Means over repeats; the {units} that end highest are named, the rest grey. "
            f"The teacher comes first, then the students, best on validation first (at most {plots.TRACES} plots).",
            f"Line plots of each {unit}’s multiplier over epochs for the robust teacher and students.",
        ),
        "curves": lambda: (
            "Learning curves",
            "Accuracy on validation after each epoch; the bands are standard errors over repeats. No epoch is picked "
            "from these curves: the model is always the last one.",
            f"Line plots of worst-{unit} and balanced validation accuracy by epoch, standard against robust.",
        ),
    }
    return words[name]()


def _classes(panel: Panel, shown: list[Group]) -> list[dict[str, Any]]:
    """One row a class (or group), head to tail: counts, and each compared combination's recall and Wilson interval."""
    columns = []
    for group in shown:
        found = [means.unit_scores(metrics, panel) for metrics in group.metrics(panel.split)]
        # The repeats share one test sample, so its size stays that of one: the interval is for the mean recall on it.
        mean = np.mean([scores.correct for scores in found], axis=0)
        scores = Scores(np.asarray(mean), found[0].counts)
        columns.append((scores.per_class, scores.wilson()))
    tested = means.unit_scores(shown[0].metrics(panel.split)[0], panel).counts.tolist() if shown else []
    rows = []
    for index in means.unit_order(panel) if shown else []:
        cells = [
            {"recall": float(recall[index]), "low": float(interval[index, 0]), "high": float(interval[index, 1])}
            for recall, interval in columns
        ]
        change = cells[1]["recall"] - cells[0]["recall"] if len(cells) == 2 else None
        rows.append(
            {
                "name": panel.units[index],
                "train": panel.unit_counts[index],
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
    return "Best robust student" if group is panel.best_robust else pair_name(group, panel)


def _combinations(panel: Panel, by_hash: Mapping[str, Record]) -> list[Combination]:
    ranked = sorted(panel.groups, key=lambda group: -panel.on_validation(group))[:BOOTSTRAPPED]
    return [_combination(panel, group, by_hash, bootstrap=group in ranked) for group in panel.groups]


def _combination(panel: Panel, group: Group, by_hash: Mapping[str, Record], *, bootstrap: bool) -> Combination:
    on_validation, on_test = group.estimate(panel.worst, "val"), group.estimate(panel.worst, "test")
    shown, balanced = panel.estimate(group), panel.estimate(group, "balanced")
    repeats = over_repeats(_known(group, panel)) if shown else None
    examples = group_interval(group, panel.worst, panel.split) if bootstrap and shown else None
    gap = on_validation.mean - on_test.mean if on_validation and on_test else None
    tried = [pair for pair in group.candidates if pair != (group.temperature, group.validation_temperature)]
    return Combination(
        name=pair_name(group, panel),
        temperature=_temperatures(group.temperature, group.validation_temperature),
        others=", ".join(_temperatures(*pair) for pair in tried),
        n=len(group.records),
        figures=(
            ("Validation", plus_minus(on_validation), _mean(on_validation)),
            ("Test", plus_minus(on_test), _mean(on_test)),
            ("95 % over repeats", _bounds(repeats), repeats.low if repeats else None),
            ("95 % over examples", _range(examples), examples[0] if examples else None),
            ("Balanced", plus_minus(balanced), _mean(balanced)),
            ("Gap", "–" if gap is None or gap != gap else f"{100 * gap:+.1f}".replace("-", "−"), gap),
        ),
        reproduction=reproduction(group, by_hash),
    )


def _known(group: Group, panel: Panel) -> list[float]:
    return [measure(metrics, panel.worst) for metrics in group.metrics(panel.split)]


def _mean(estimate: Estimate | None) -> float | None:
    return None if estimate is None else float(estimate.mean)


def _bounds(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "–"
    # An accuracy is in [0, 1], whatever the t distribution says.
    return _range((max(interval.low, 0.0), min(interval.high, 1.0)))


def _range(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def _paired(panel: Panel, compared: list[Group]) -> str:
    """The paired bootstrap of the two compared combinations, or why there is none, as a sentence."""
    if len(compared) < 2:
        return ""
    first, second = compared
    what = f"{_short(panel, second)} minus {_short(panel, first)[:1].lower()}{_short(panel, first)[1:]}"
    found = [
        (name, paired_groups(first, second, metric, panel.split))
        for metric, name in ((panel.worst, worst_name(panel)), ("balanced", "balanced accuracy"))
    ]
    known = [
        f"{name} {signed(interval.value)} points [{signed(interval.low)}, {signed(interval.high)}]"
        for name, interval in found
        if interval is not None and interval.low is not None and interval.high is not None
    ]
    if not known:
        return (
            f"Paired bootstrap of the two on the same {panel.split_name} examples: not available, because these runs "
            f"have no stored predictions (predictions/{panel.split}.npz in the run folders)."
        )
    n = next(interval.n for _, interval in found if interval is not None)
    return (
        f"{what} on the same {panel.split_name} examples, 95 % paired bootstrap over the examples, "
        f"n = {n}: {'; '.join(known)}."
    )


def _temperatures(targets: float | None, validation: float | None) -> str:
    if targets is None:
        return "–"
    return f"{targets:g}" if validation is None or validation == targets else f"{targets:g} (validation {validation:g})"


def _settings(panel: Panel) -> list[tuple[str, str, str]]:
    """(setting, teachers' values, students' values), each value once."""
    teachers = merged(_facts(record) for group in panel.teachers for record in group.records)
    students = merged(_facts(record) for group in panel.students for record in group.records)
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
        **({} if spec.groups == "class" else {"groups": spec.groups, "number of groups": len(record.units)}),
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


def merged(found: Iterable[dict[str, Any]]) -> dict[str, str]:
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

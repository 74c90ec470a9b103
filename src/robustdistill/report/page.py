"""The report as a page: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from robustdistill import pages
from robustdistill.errors import InputError
from robustdistill.experiments.journal import Record, scan
from robustdistill.experiments.select import choose
from robustdistill.report import claims, tables
from robustdistill.report.intervals import DRAWS
from robustdistill.report.numbers import percent
from robustdistill.report.panels import Panel, panels
from robustdistill.report.sections import BOOTSTRAPPED, Section, merged, section
from robustdistill.report.sections import embedded as embedded

# What keeps a page of ten thousand runs below 6 MB and 20 seconds: comparisons on it, combinations of all of them,
# comparisons with figures, and bytes of all embedded figures. table.csv has every comparison and combination.
_COMPARISONS, _SHOWN, _DRAWN, _FIGURE_BYTES = 60, 1000, 12, 3_500_000


@dataclass(frozen=True)
class ExtraSection:
    """Something more for the page, shown after the comparisons and before the claims.

    Attributes:
        title: a heading, plain text.
        html: the content; `Markup` says that whatever is in it was escaped. Plain text is escaped here.
        anchor: its id, of lower-case letters, digits and hyphens; also in the list of contents.
    """

    title: str
    html: Markup | str
    anchor: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.anchor):
            raise InputError(f"anchor must be lower-case letters, digits and hyphens, got {self.anchor!r}")


def write(
    records_root: str | Path,
    out: str | Path,
    *,
    worst: str = "worst_class",
    extra_sections: Sequence[ExtraSection] = (),
) -> Path:
    """Writes index.html, figures/ (PNG and SVG), table.md, table.tex and table.csv below `out`.

    Args:
        records_root: a folder with finished runs at any depth.
        out: made where it does not exist.
        worst: "worst_class", or "worst_K" for the mean of the K lowest recalls; also what temperatures are chosen by.
        extra_sections: more for the page, such as a comparison with published numbers.

    Returns:
        The path of index.html, written last.

    Raises:
        InputError: `records_root` is no folder, there is no finished run below it, or `worst` is no such metric.
    """
    return write_records(read(records_root), out, worst=worst, extra_sections=extra_sections)


def read(records_root: str | Path) -> list[Record]:
    """The records below a folder, as `write_records` wants them: histories are read when a figure needs one.

    Raises:
        InputError: `records_root` is no folder, or there is no finished run below it.
    """
    records = scan(records_root, histories=False)
    if not records:
        raise InputError(f"there must be finished runs below {str(records_root)!r}, and no record.json was found")
    return records


@dataclass(frozen=True)
class Written:
    """What `make` wrote, and what it found on the way.

    Attributes:
        page: the path of index.html.
        files: of the tables and figures.
        tables: each panel with its table; all of its combinations.
        ledgers: the panels on the page, each with the claims by its runs.
        rule: by which temperatures were chosen.
    """

    page: Path
    files: tuple[Path, ...]
    tables: tuple[tuple[Panel, tables.ResultTable], ...]
    ledgers: tuple[tuple[Panel, claims.Ledger], ...]
    rule: str


def write_records(
    records: Sequence[Record],
    out: str | Path,
    *,
    worst: str = "worst_class",
    extra_sections: Sequence[ExtraSection] = (),
) -> Path:
    """`write` for records that were read already; returns and raises the same."""
    return make(records, out, worst=worst, extra_sections=extra_sections).page


def make(
    records: Sequence[Record],
    out: str | Path,
    *,
    worst: str = "worst_class",
    extra_sections: Sequence[ExtraSection] = (),
) -> Written:
    """`write_records`, and what it found on the way.

    Raises:
        InputError: `out` is a file, two extra sections have one anchor, or `worst` is no such metric.
    """
    most, of = min((len(record.units), "classes" if record.spec.groups == "class" else "groups") for record in records)
    if worst.removeprefix("worst_").isdigit() and not 1 <= int(worst.removeprefix("worst_")) <= most:
        raise InputError(f"worst must be worst_1 to worst_{most}, as there are {most} {of}, got {worst!r}")
    selection = choose(records, worst)
    found = panels(selection)
    anchors = [extra.anchor for extra in extra_sections]
    if len({*anchors, *_OWN_IDS}) < len(anchors) + len(_OWN_IDS):
        raise InputError(f"anchors of extra_sections must be distinct and none of {sorted(_OWN_IDS)}, got {anchors}")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out must be a folder, and {str(folder)!r} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted(sorted(range(len(found)), key=lambda index: -len(found[index].records))[:_COMPARISONS])
    sections = _sections([found[index] for index in kept], records, folder, set(anchors))
    built = [(panel, tables.build(panel)) for panel in found]
    texts = {
        "table.md": "\n".join(tables.markdown(table) for _, table in built),
        "table.tex": "\n".join(tables.latex(table) for _, table in built),
        "table.csv": tables.csv_text(built),
        "index.html": _render(sections, len(found), selection.rule, records, extra_sections),
    }
    for name, text in texts.items():
        pages.write(folder / name, text)
    drawn = [folder / file for each in sections for picture in each.pictures for file in picture.files]
    return Written(
        page=folder / "index.html",
        files=(*(folder / name for name in texts if name != "index.html"), *drawn),
        tables=tuple(built),
        ledgers=tuple((found[index], each.ledger) for index, each in zip(kept, sections, strict=True)),
        rule=selection.rule,
    )


def _sections(found: list[Panel], records: Sequence[Record], out: Path, taken: set[str]) -> list[Section]:
    by_hash = {record.hash: record for record in records}
    drawn = sorted(range(len(found)), key=lambda index: -len(found[index].records))[:_DRAWN]
    sections = []
    for index, (panel, slug) in enumerate(zip(found, _names(found, taken), strict=True)):
        folder = out / "figures" / slug if len(found) > 1 else out / "figures"
        sections.append(
            section(
                panel,
                _cut(panel, max(12, _SHOWN // len(found))),
                slug=slug,
                out=out,
                folder=folder if index in drawn else None,
                by_hash=by_hash,
                ledger=claims.ledger(panel),
                budget=_FIGURE_BYTES // (3 * len(drawn)),
            )
        )
    return sections


def _cut(panel: Panel, most: int) -> Panel:
    """The panel with the groups that the page has room for: those that headlines name, then the best on validation."""
    if len(panel.groups) <= most:
        return panel
    named = (panel.plain, panel.best_robust, panel.teacher("standard"), panel.teacher("robust"))
    ranked = sorted(panel.groups, key=lambda group: -panel.on_validation(group))
    kept = set(list(dict.fromkeys([*(group for group in named if group), *ranked]))[:most])
    return replace(panel, groups=tuple(group for group in panel.groups if group in kept))


def _render(
    sections: list[Section], comparisons: int, rule: str, records: Sequence[Record], extra: Sequence[ExtraSection]
) -> str:
    outcomes = Counter(verdict.outcome for each in sections for verdict in each.ledger.verdicts)
    return pages.render(
        pages.environment("robustdistill.report"),
        "page.html.j2",
        scripts=("sort.js.j2", "plane.js.j2"),
        sections=sections,
        comparisons=comparisons,
        extra_sections=extra,
        rule=rule,
        claims=claims.CLAIMS,
        claims_rule=claims.RULE,
        outcomes=", ".join(f"{outcomes[name]} {name}" for name in ("confirmed", "refuted", "undecided")),
        threshold=claims.threshold_text,
        interval=claims.interval_text,
        runs=len(records),
        seconds=sum(record.seconds for record in records if record.seconds and record.seconds == record.seconds),
        environment=merged(_environment(record) for record in records),
        commands=list(dict.fromkeys(record.command for record in records if record.command))[:5],
        cell_lines=tables.cell_lines,
        uneven=tables.uneven,
        percent=percent,
        draws=DRAWS,
        bootstrapped=BOOTSTRAPPED,
        duration=_duration,
    )


_OWN_IDS = {"reading", "environment", "claims"}


def _names(found: list[Panel], taken: set[str]) -> list[str]:
    """A distinct name for each panel that is safe as a folder and as an id."""
    names: list[str] = []
    for panel in found:
        plain = re.sub(r"[^a-z0-9]+", "-", panel.title.lower().replace("→", "to"))[:60].strip("-") or "panel"
        plain = f"{plain}-runs" if plain in taken | _OWN_IDS else plain
        used = sum(name == plain or name.startswith(f"{plain}--") for name in names)
        names.append(f"{plain}--{used + 1}" if used else plain)
    return names


def _environment(record: Record) -> dict[str, Any]:
    """Where it ran; of the date the day, or a page of many runs would list every second."""
    facts = record.environment
    return {**facts, "date": str(facts["date"])[:10]} if facts.get("date") else facts


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"

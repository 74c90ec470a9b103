"""Text of a user's own in YAML and Markdown: shown as it is, never read as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from robustdistill.shown import in_line


class Verbatim(str):
    """Markdown that is meant as such."""

    __slots__ = ()


def escaped(value: object) -> str:
    """A value as Markdown text on one line; `Verbatim` stays as it is."""
    if isinstance(value, Verbatim):
        return value
    text = _one_line(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", text)


def code(value: object) -> Verbatim:
    """A value as inline code; not for tables, where a | in it would end the cell."""
    text = _one_line(str(value))
    fence = "`" * (1 + _longest_run(text))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Verbatim(f"{fence}{pad}{text}{pad}{fence}")


def block(text: str, language: str) -> Verbatim:
    """A fenced block of code."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return Verbatim(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def table(headings: Sequence[object], rows: Sequence[Sequence[object]], align: str) -> Verbatim:
    """A table, everything in it escaped; `align` has an l or r for each column."""
    rule = "|" + "|".join("---:" if side == "r" else "---" for side in align) + "|"
    lines = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in [headings, *rows]]
    return Verbatim("\n".join([lines[0], rule, *lines[1:]]))


def front_matter(fields: dict[str, Any], comment: str = "") -> Verbatim:
    """The YAML between the two rules at the top of a page."""
    text = yaml.safe_dump(_one_lined(fields), sort_keys=False, allow_unicode=True, width=2**20)
    return Verbatim(f"---\n{comment}{text}---")


def _one_lined(value: Any) -> Any:
    """Every text in it on one line: what YAML takes for a line break is more than what most readers do."""
    if isinstance(value, dict):
        return {_one_line(key): _one_lined(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_lined(item) for item in value]
    return _one_line(value) if isinstance(value, str) else value


def _one_line(text: str) -> str:
    """What cannot be seen is named, line breaks among it: two names that differ in it differ on the card."""
    return in_line(text).strip()


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)

"""Names that somebody means ill with, and what must be true of whatever shows them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

from markdown_it import MarkdownIt

from parsed import Page
from robustdistill.shown import in_line, shown

NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></title></svg></script><script>alert(3)//",
    "it's \"quoted\" & 'so' &lt;b&gt;",
    r"\input{/etc/passwd}\write18{id}^^5cinput",
    r"$\frac{$ 100 % of_it #1 ~^{}",
    "\u202egnp.exe",
    "\u200fright \u2067to left",
    "ze\u200bro wi\u00addth\u3164",
    "[bold red]loud[/bold red][/]",
    "\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b1m",
    "two\nlines\r\nproblem: none, all is as it should be\u2028three",
    "javascript:alert(4)",
    "[click](javascript:alert(5)) ![x](http://e/x.png) <http://e>",
    "=cmd|'/C calc'!A0",
    "@SUM(A1:A9)",
    "{{ 7 * 7 }}{% raw %}",
    "```\n# a heading",
    "a|b||c",
    "\x00nul",
)
# What a table of predictions admits as names: one with control characters is refused when it is read.
PRINTABLE = tuple(name for name in NAMES if not any(unicodedata.category(character) == "Cc" for character in name))
ONE = "".join(NAMES)  # where there is room for one only


def check_html(path: Path) -> Page:
    """Whole, with one script that its policy names, nothing from elsewhere, and every hostile name as mere text."""
    page = Page(path)
    assert shown(page.source) == page.source
    assert page.balanced
    (policy,) = [str(found["content"]) for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base", "form")]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert not re.match(r"\s*(javascript|data:text|https?|//)", attributes.get(name) or "")
    return page


def check_names(text: str, names: tuple[str, ...] = NAMES) -> None:
    """Every name is there to be read, whatever white space is between its words."""
    plain = " ".join(text.split())
    for name in names:
        assert any(" ".join(way(name).split()) in plain for way in (shown, in_line)), name


def check_svg(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert shown(source) == source
    for element in ET.fromstring(source).iter():
        assert not element.tag.endswith(("script", "foreignObject", "image"))
        assert not [name for name in element.attrib if name.lower().startswith("on")]


def check_markdown(text: str) -> str:
    """No HTML but line breaks and folds of our own, no link, no picture; returns what a reader sees."""
    assert shown(text) == text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    seen = []
    for token in tokens:
        if token.type == "html_block":
            assert re.fullmatch(
                r"</details>|<details><summary>[\w ,]+</summary>|<!-- [\w .,\"]+ -->", token.content.strip()
            )
        for child in token.children or []:
            assert child.type not in ("link_open", "image"), child
            assert child.type != "html_inline" or child.content == "<br>", child.content
            seen.append(child.content)
    return "".join(seen)


_COMMANDS = {
    *("begin", "end", "toprule", "midrule", "bottomrule", "textbf", "footnotesize", "pm", "alpha", "to", "sqrt"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "langle", "rangle"),
}


def check_latex(text: str) -> None:
    """Only commands that the writers use; braces, dollars and lines are theirs."""
    assert shown(text) == text
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= _COMMANDS
    plain = re.sub(r"\\[&%$#_{}\\,]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not set("~^#") & set(plain)
    for line in plain.splitlines():
        assert "%" not in line.removeprefix("%")


def check_csv(text: str) -> list[list[str]]:
    """No cell is a formula to a spreadsheet; returns the rows."""
    assert shown(text) == text
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "@", "\t")), cell
        assert not cell.startswith("-") or float(cell) <= 0
        assert "\n" not in cell
    return rows


def check_terminal(text: str) -> None:
    """Nothing that a terminal would obey, and no line that a name has begun."""
    assert shown(text) == text
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith(("problem: none", "# a heading"))]

"""Other people's text, made safe to look at: what moves a cursor, turns the direction of writing or cannot be seen.

Class names, paths and messages come from files that somebody else may have written. Pages, tables, cards, pictures and
terminals all show them through here. What markup means (`<`, `\\`, `|`, ...) is each format's own matter; this is about
the characters that no format shows: control characters, with which a name could repaint a terminal; those that reverse
what follows, with which "gnp.exe" reads "exe.png"; and those without any width, with which two names look alike.
"""

from __future__ import annotations

import re

# The two joiners are part of how some scripts are spelt and of many emoji: they stay between characters beyond ASCII.
_JOINERS = "\u200c\u200d"
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters; not tab and line feed
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0"  # soft hyphen, fillers, Arabic letter mark
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # no width, direction, line separators
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # lone halves, tags
)
_PATTERN = re.compile(
    f"[{_HIDDEN}]|(?<![^\\x00-\\x7f])[{_JOINERS}]|[{_JOINERS}](?![^\\x00-\\x7f])",
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LINES = re.compile("[\t\n]")


def shown(text: str) -> str:
    """`text` in which everything that cannot be seen is named instead; tabs and line feeds stay.

    Twice is the same as once. The brackets mean nothing in HTML, LaTeX, Markdown, CSV or a terminal.

    >>> shown("cat\\x1b[2J, \\u202egnp.exe")
    'cat‹U+001B›[2J, ‹U+202E›gnp.exe'
    """
    return _PATTERN.sub(_named, text)


def in_line(text: str) -> str:
    """The same on one line: tabs and line feeds are named too.

    >>> in_line("cat\\nall is well")
    'cat‹U+000A›all is well'
    """
    return _LINES.sub(_named, shown(text))


def is_plain(text: str) -> bool:
    """Whether a name has neither control characters nor lone surrogates, which do not survive every file format."""
    return _CONTROL.search(text) is None


def _named(found: re.Match[str]) -> str:
    return f"‹U+{ord(found[0]):04X}›"

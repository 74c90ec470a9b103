"""The errors that callers may want to catch, and how an unknown name is reported.

A message is one line of bounded length, whatever a library or a file has put into it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST = 1500  # characters of a message


class InputError(ValueError):
    """An argument, file or data set that cannot be used; the message names it, what was expected and what came."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class DivergedError(RuntimeError):
    """Training produced a loss or a risk that is not finite; the message says which setting to lower.

    Attributes:
        epoch: in which that was, counted from 1; None where it is not known.
        step: the first optimiser step that was bad, counted from 1 over the whole training, likewise.
        ids: of the examples in it whose loss was not finite; all of that step where none stands out.
    """

    def __init__(
        self, message: str, *, epoch: int | None = None, step: int | None = None, ids: Sequence[int] = ()
    ) -> None:
        super().__init__(_one_line(message))
        self.epoch, self.step, self.ids = epoch, step, tuple(ids)


class FolderTakenError(RuntimeError):
    """Another process works in the folder of a run; the message says which."""


class StaleStoreError(RuntimeError):
    """A stored result belongs to another model, data set or setting than the one asked for."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def unknown(kind: str, name: str, options: Iterable[str]) -> InputError:
    """The error for a `name` that is none of `options`, with the nearest one suggested.

    >>> unknown("objective", "rubust", ["robust", "balanced"])
    InputError("unknown objective 'rubust': did you mean 'robust'? (one of: balanced, robust)")
    """
    known = sorted(options)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"unknown {kind} {name!r}{hint} (one of: {', '.join(known)})")


def _one_line(message: str) -> str:
    line = re.sub(r"\s*[\r\n]+\s*", " ", message).strip()
    # What is wrong stands at the beginning, what to do at the end.
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 500]} ... {line[-490:]}"

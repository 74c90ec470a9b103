"""What the columns of a table of predictions are: scores of a class each, or a role such as the labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustdistill.errors import InputError, unknown
from robustdistill.predictions import Kind

# The form that is written; a table that has it is read by it alone.
_WRITTEN = re.compile(r"(?P<kind>logit|probability):(?P<name>.*)", re.DOTALL)
_ALSO_READ = re.compile(r"(?P<kind>logit|probability|prob|p)_(?P<name>.+)", re.DOTALL)
PREFIX: dict[Kind, str] = {"logits": "logit", "probabilities": "probability"}
# What a table may have besides scores.
ROLES = ("id", "label", "prediction", "group", "split")


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are: the kind of scores, column -> class name, and role -> column."""

    kind: Kind
    classes: dict[str, str]
    roles: dict[str, str]


def checked_roles(columns: Mapping[str, str]) -> dict[str, str]:
    """The argument `columns` of `Predictions.read`, with its mistakes refused."""
    for role in columns:
        if role not in (*ROLES, *PREFIX.values()):
            raise unknown("column", role, (*ROLES, *PREFIX.values()))
        if role in PREFIX.values() and columns[role].count("*") != 1:
            raise InputError(
                f"columns of {role} must be a name with one star that stands for the class, such as 'score_*', "
                f"got {columns[role]!r}"
            )
    if set(PREFIX.values()) <= columns.keys():
        raise InputError("columns must name those of logits or those of probabilities, got both")
    return dict(columns)


def layout_of(header: Sequence[str], columns: Mapping[str, str]) -> Layout:
    """What the columns of this header are, where `columns` calls some of them otherwise than usual."""
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise InputError(f"column names must be distinct; {repeated[0]!r} occurs more than once")
    for role in ROLES:
        if role in columns and columns[role] not in header:
            raise unknown(f"column for {role}", columns[role], header)
    roles = {role: columns.get(role, role) for role in ROLES if columns.get(role, role) in header}
    if not PREFIX.values() & columns.keys():
        kind, classes = _score_columns([name for name in header if name not in roles.values()], "prediction" in roles)
        return Layout(kind, classes, roles)
    kind = next(kind for kind, prefix in PREFIX.items() if prefix in columns)
    before, after = columns[PREFIX[kind]].split("*")
    shape = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    classes = {name: match[1] for name in header if name not in roles.values() and (match := shape.fullmatch(name))}
    if not classes:
        raise InputError(f"no column looks like {columns[PREFIX[kind]]!r}; got the columns {_shown(header)}")
    return Layout(kind, classes, roles)


def _score_columns(header: Sequence[str], predicted: bool) -> tuple[Kind, dict[str, str]]:
    """The kind of table that has these columns besides its roles, and the class name of each score column."""
    for form in (_WRITTEN, _ALSO_READ):
        matches = {name: match for name in header if (match := form.fullmatch(name))}
        kinds: set[Kind] = {"logits" if match["kind"] == "logit" else "probabilities" for match in matches.values()}
        if len(kinds) > 1:
            raise InputError("must have columns of logits or of probabilities, got both")
        if kinds:
            return kinds.pop(), {name: match["name"] for name, match in matches.items()}
    if predicted:
        return "classes", {}
    raise InputError(
        "must have a column for each class named 'logit:CLASS' or 'probability:CLASS', or a column 'prediction'; "
        f"got the columns {_shown(header)} (`audit` and `shift` take other names with --column, Predictions.read with "
        "its argument columns)"
    )


def _shown(header: Sequence[str]) -> str:
    return f"{', '.join(map(repr, header[:8])) or 'none'}{' ...' if len(header) > 8 else ''}"

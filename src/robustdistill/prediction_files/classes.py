"""Which class a label or a predicted class of a file is: by its name, or else by its index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.predictions import IntArray

# A whole number in its one usual spelling: "7", but not "07", which as an id would be another one.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
# Beyond this, a class index without a name is taken for a mistake, such as an id in the wrong column.
_MOST_UNNAMED_CLASSES = 1_000_000


def is_whole(text: str) -> bool:
    """Whether a text is a whole number of 64 bits as it would be written."""
    return _WHOLE.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def own_or_given(own: tuple[str, ...], given: Sequence[str] | None) -> tuple[str, ...]:
    """A file's own class names, unless they are just positions and there are others for them."""
    positions = tuple(map(str, range(len(own))))
    if given is not None and own == positions and len(given) == len(own) and set(given) != set(own):
        return tuple(given)
    return own


def seen_names(*columns: npt.NDArray[Any] | None) -> tuple[str, ...]:
    """Class names for predicted classes that come without any: those that occur, or 0..max where all are indices."""
    seen = sorted({str(value) for column in columns if column is not None for value in np.unique(column).tolist()})
    if all(_WHOLE.fullmatch(value) and not value.startswith("-") for value in seen):
        highest = max(map(int, seen), default=0)
        if highest >= _MOST_UNNAMED_CLASSES:
            raise InputError(
                f"class indices must be below {_MOST_UNNAMED_CLASSES} where classes have no names, got {highest}"
            )
        return tuple(map(str, range(max(highest + 1, 2))))
    return tuple(seen)


def class_indices(values: npt.NDArray[Any], names: Sequence[str], column: str) -> IntArray:
    """Indices (N,) from class names, or else from numbers. Whether they are in range is checked later."""
    index_of = {name: index for index, name in enumerate(names)}
    unique, inverse = _distinct(values)
    texts = [str(value) for value in unique]
    if all(text in index_of for text in texts):
        indices = [index_of[text] for text in texts]
    else:
        rows = {text: int(np.argmax(inverse == code)) for code, text in enumerate(texts)}
        neither = [text for text in texts if text not in index_of and not _WHOLE.fullmatch(text)]
        if neither:
            first = min(neither, key=rows.__getitem__)
            raise InputError(f"column {column!r}, row {rows[first]}: {unknown('class', first, names)}")
        mixed = [text for text in texts if not _WHOLE.fullmatch(text)]
        if mixed:
            number = next(text for text in texts if text not in index_of)
            raise InputError(
                f"column {column!r} must hold class names or class indices, got both: {mixed[0]!r} in row "
                f"{rows[mixed[0]]} and {number!r} in row {rows[number]}"
            )
        indices = [int(text) for text in texts]
    return np.array(indices, dtype=np.int64)[inverse]


def _distinct(values: npt.NDArray[Any]) -> tuple[list[Any], npt.NDArray[np.intp]]:
    """The distinct values, and the position among them of each. Texts are hashed, which is faster than sorting."""
    if values.dtype.kind != "U":
        unique, inverse = np.unique(values, return_inverse=True)
        return unique.tolist(), inverse.reshape(-1)
    position: dict[str, int] = {}
    codes = [position.setdefault(value, len(position)) for value in values.tolist()]
    return list(position), np.array(codes, dtype=np.intp)

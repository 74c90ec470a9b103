"""What the values of predictions must be: names, ids, class indices, texts and scores, each with its refusal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError
from robustdistill.shown import is_plain

FloatArray = npt.NDArray[np.floating[Any]]

# How far a row of probabilities may be from 1 in sum: room for half precision and for tables printed with four digits.
SUM_TOLERANCE = 1e-3
CELLS = 1 << 20  # scores of a block of rows that is worked on at once


def checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """At least two distinct names that can be printed."""
    names = tuple(str(name) for name in class_names)
    if isinstance(class_names, str) or len(names) < 2:
        raise InputError(f"class names must be a list of at least two, got {class_names!r}")
    if len(set(names)) != len(names):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        raise InputError(f"class names must be distinct; {listed(repeated)} occurs more than once")
    for name in names:
        if not name or not is_plain(name):
            raise InputError(f"class names must be printable and not empty, got {name!r}")
    return names


def checked_ids(ids: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """(N,) int64 or text; `name` begins the messages."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise InputError(f"{name} must have the shape (N,), got {array.shape}")
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} must be whole numbers or text, got {array.dtype}")
    return array.astype(np.int64)


def checked_indices(values: npt.ArrayLike, name: str, ids: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.int64]:
    """(N,) indices of classes, one for each of `ids`."""
    array = np.asarray(values)
    if array.shape != ids.shape or array.dtype.kind not in "iu":
        raise InputError(f"{name} must be class indices of shape {ids.shape}, got {array.dtype} {array.shape}")
    (row,) = _first((array < 0) | (array >= num_classes))
    if row is not None:
        raise InputError(f"{name} must lie in 0..{num_classes - 1}; row {row} (id {ids[row]}) has {array[row]}")
    return array.astype(np.int64)


def checked_texts(values: npt.ArrayLike, name: str, ids: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """(N,) texts, one for each of `ids`, none of them empty; whole numbers become text."""
    array = np.asarray(values)
    if array.shape != ids.shape or array.dtype.kind not in "iuUb":
        raise InputError(f"{name} must be text or whole numbers of shape {ids.shape}, got {array.dtype} {array.shape}")
    texts: npt.NDArray[np.str_] = array if array.dtype.kind == "U" else array.astype(str)
    (row,) = _first(texts == "")
    if row is not None:
        raise InputError(f"{name} must not be empty; row {row} (id {ids[row]}) has none")
    return texts


def checked_scores(scores: npt.ArrayLike, kind: str, ids: npt.NDArray[Any], class_names: tuple[str, ...]) -> FloatArray:
    """(N, C) logits or probabilities, as given where they are floating-point numbers."""

    def bad_value(row: int, column: int, rule: str) -> InputError:
        where = f"row {row} (id {ids[row]}), class {class_names[column]!r}"
        return InputError(f"{kind} {rule}; {where} is {array[row, column]}")

    array = np.asarray(scores)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{kind} must be numbers, got {array.dtype}")
    shape = (len(ids), len(class_names))
    if array.shape != shape:
        raise InputError(f"{kind} must be (N, C) = {shape} for {shape[0]} ids, got {array.shape}")
    array = array if array.dtype.kind == "f" else array.astype(np.float64)
    if place := first_cell(array, lambda block: ~np.isfinite(block)):
        raise bad_value(*place, "must be finite")
    if kind == "probabilities":
        if place := first_cell(array, lambda block: block < 0):
            raise bad_value(*place, "must not be negative")
        with np.errstate(over="ignore"):  # a sum that is infinite is not 1
            sums = array.sum(axis=1, dtype=np.float64)
        (row,) = _first(np.abs(sums - 1) > SUM_TOLERANCE)
        if row is not None:
            raise InputError(
                f"probabilities must sum to 1 (within {SUM_TOLERANCE:g}); row {row} (id {ids[row]}) "
                f"sums to {sums[row]:.6g}"
            )
    return array


def check_unique(ids: npt.NDArray[Any]) -> None:
    """Refuses ids of which one occurs twice."""
    if len(set(ids.tolist())) == len(ids):  # cheaper than sorting a million names
        return
    values, counts = np.unique(ids, return_counts=True)
    repeated = values[counts > 1]
    rows = np.flatnonzero(ids == repeated[0])
    raise InputError(
        f"ids must be unique; {len(repeated)} occur more than once: {listed(repeated.tolist())} "
        f"({repeated[0].item()!r} in rows {rows[0]} and {rows[1]})"
    )


def check_temperature(temperature: float) -> None:
    """Refuses what is no positive number."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature must be a positive number, got {temperature}")


def first_cell(scores: FloatArray, bad: Callable[[FloatArray], npt.NDArray[np.bool_]]) -> tuple[int, int] | None:
    """The place of the first bad score, looked for block by block."""
    rows = max(1, CELLS // max(1, scores.shape[1]))
    for start in range(0, len(scores), rows):
        row, column = _first(bad(scores[start : start + rows]))
        if row is not None:
            return start + row, column
    return None


def _first(mask: npt.NDArray[np.bool_]) -> tuple[Any, ...]:
    """The index of the first True, or Nones."""
    if not mask.any():
        return (None,) * mask.ndim
    return tuple(int(part) for part in np.unravel_index(int(mask.argmax()), mask.shape))


def listed(values: Sequence[Any], most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    shown = ", ".join(repr(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")

"""What somebody stored, as a `Source`: labels become class indices, inputs pictures or features of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.data.formats import Part, Source
from robustdistill.data.pictures import stack
from robustdistill.data.splits import IntArray
from robustdistill.errors import InputError

# The names that each part goes by, first come first served.
PART_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid", "dev"), "test": ("test",)}

RawParts = dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any] | None]]  # part name -> inputs, labels as stored


def source_of(
    where: str,
    parts: RawParts,
    class_names: tuple[str, ...] | None,
    groups: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Source:
    """Parts as stored to a `Source`: labels as integers, inputs of one shape."""
    inputs, labels = parts["train"]
    if len(inputs) == 0 or labels is None:
        raise InputError(f"{where}: train must hold labelled examples, got {len(inputs)} without any label")
    names = class_names or names_from(labels, where)
    made = {}
    for part, (x, y) in parts.items():
        if x.shape[1:] != inputs.shape[1:] or x.dtype != inputs.dtype:
            raise InputError(
                f"{where}: {part} inputs must be like train's, {inputs.dtype} {inputs.shape[1:]}, "
                f"got {x.dtype} {x.shape[1:]}"
            )
        if len(x) == 0:
            raise InputError(f"{where}: {part} holds no example")
        labelled = None if y is None else integers_of(y, names, f"{where}: {part}")
        made[part] = Part(x, labelled, groups=None if groups is None else groups[part])
    return Source(names, made["train"], made.get("val"), made.get("test"))


def names_from(labels: npt.NDArray[Any], where: str) -> tuple[str, ...]:
    """Class names that labels (N,) imply: the distinct texts, sorted, or "0".."C-1" up to the highest integer.

    Raises:
        InputError: an integer is not below N, hence no class.
    """
    if labels.dtype.kind not in "iub":
        return tuple(sorted({str(label) for label in labels.tolist()}))
    highest = int(labels.max())
    if highest >= len(labels):
        raise InputError(f"{where}: train must have every class 0..C-1; got label {highest} among {len(labels)} rows")
    return tuple(str(j) for j in range(highest + 1))


def integers_of(labels: npt.NDArray[Any], names: tuple[str, ...], where: str) -> IntArray:
    """(N,) int64 class indices of labels (N,), which are indices already or names of classes.

    Raises:
        InputError: they are neither.
    """
    if labels.ndim != 1:
        raise InputError(f"{where}: labels must be of shape (N,), got {labels.shape}")
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64)
    if labels.dtype.kind not in "UO" or not all(isinstance(label, str) for label in labels.tolist()):
        raise InputError(f"{where}: labels must be integers or text without gaps, got {labels.dtype}")
    index = {name: j for j, name in enumerate(names)}
    for row, label in enumerate(labels.tolist()):
        if label not in index:
            raise InputError(f"{where}: row {row} has the label {label!r}, which is no class of train")
    return np.array([index[label] for label in labels.tolist()], dtype=np.int64)


def pictures_or_features(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """uint8 (N, H, W[, channels]) with a channel axis, or floats as float32."""
    if array.ndim == 0:
        raise InputError(f"{where}: expected one for each example, (N, ...), got a single value")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which Examples refuses by row
            return array.astype(np.float32)
    if array.dtype != np.uint8:
        raise InputError(f"{where}: expected uint8 pictures or floating-point features, got {array.dtype}")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise InputError(f"{where}: uint8 pictures must be (N, H, W), (N, H, W, 1) or (N, H, W, 3), got {array.shape}")
    return array


def stack_parts(parts: Mapping[str, list[npt.NDArray[np.uint8]]]) -> dict[str, npt.NDArray[np.uint8]]:
    """Pictures of one size as arrays (N, H, W, channels), in colour where any of them is, in whatever part."""
    channels = max(picture.shape[2] for pictures in parts.values() for picture in pictures)
    return {part: stack(pictures, channels) for part, pictures in parts.items()}


def existing(target: str, kind: str, *, file: bool | None) -> Path:
    """The path after `kind:`; `file` says whether it must be a file (True), a folder (False) or either (None)."""
    path = Path(target).expanduser()
    expected = {True: "a file", False: "a folder", None: "a file or folder"}[file]
    if not target or not path.exists() or (file is not None and path.is_file() != file):
        what = "nothing there" if not path.exists() else "a folder" if path.is_dir() else "a file"
        raise InputError(f"{kind}:{target}: expected {expected} at {str(path.absolute())!r}, found {what}")
    return path

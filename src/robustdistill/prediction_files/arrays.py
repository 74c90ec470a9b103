"""Predictions as arrays in .npz files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from robustdistill.archives import check_expansion, damage_named
from robustdistill.errors import InputError
from robustdistill.prediction_files.classes import class_indices, seen_names
from robustdistill.predictions import KINDS, Predictions


def read_npz(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
    if columns:
        raise InputError(f"columns can be named in tables only; this file has arrays. Got {', '.join(columns)}")
    arrays = _npz_arrays(path, (*KINDS, "ids", "labels", "groups", "splits", "class_names"))
    kinds = [kind for kind in KINDS if kind in arrays]
    if len(kinds) != 1:
        raise InputError(f"must have exactly one of the arrays {', '.join(KINDS)}; got {', '.join(kinds) or 'none'}")
    (kind,) = kinds
    scores, labels = arrays[kind], arrays.get("labels")
    for name, array in ((kind, scores), ("labels", labels), ("class_names", arrays.get("class_names"))):
        axes = 2 if name == kind != "classes" else 1
        if array is not None and array.ndim != axes:
            raise InputError(f"array {name!r} must have the shape {('(N,)', '(N, C)')[axes - 1]}, got {array.shape}")
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].tolist())
    elif class_names is not None:
        names = tuple(class_names)
    elif kind == "classes":
        names = seen_names(scores, labels)
    else:
        names = tuple(map(str, range(scores.shape[1])))
    if kind == "classes" and scores.dtype.kind == "U":
        scores = class_indices(scores, names, "classes")
    if labels is not None and labels.dtype.kind == "U":
        labels = class_indices(labels, names, "labels")
    ids = arrays.get("ids", np.arange(len(scores)))
    return Predictions(ids, scores, kind, names, labels, arrays.get("groups"), arrays.get("splits"))


def _npz_arrays(path: Path, wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    with damage_named("npz"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        check_expansion(archive, path)
        arrays = {}
        for name in (name for name in wanted if name in archive):
            try:
                arrays[name] = archive[name]
            except ValueError as error:
                raise ValueError(f"array {name!r}: {error}") from error
        return arrays


def write_npz(predictions: Predictions, file: BinaryIO) -> None:
    arrays = {
        "ids": predictions.ids,
        predictions.kind: predictions.scores,
        "class_names": np.array(predictions.class_names),
    }
    for name in ("labels", "groups", "splits"):
        if (values := getattr(predictions, name)) is not None:
            arrays[name] = values
    np.savez(file, allow_pickle=False, **arrays)

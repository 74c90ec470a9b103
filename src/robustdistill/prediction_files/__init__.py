"""Files of predictions: .csv and .parquet tables, and .npz arrays. `Predictions.read` documents the layout.

`columns` finds out what the columns of a table are and `classes` what its labels and predicted classes are; `tables`
and `arrays` read and write with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from robustdistill.errors import InputError, unknown
from robustdistill.files import replacing
from robustdistill.prediction_files.arrays import read_npz, write_npz
from robustdistill.prediction_files.columns import checked_roles
from robustdistill.prediction_files.tables import read_csv, read_parquet, write_csv, write_parquet
from robustdistill.predictions import Predictions

AnyT = TypeVar("AnyT")


def read(path: Path, class_names: Sequence[str] | None = None, columns: Mapping[str, str] | None = None) -> Predictions:
    """`Predictions.read`."""
    reader = _by_ending(path, {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz})
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        predictions = reader(path, class_names, checked_roles(columns or {}))
        return predictions if class_names is None else predictions.match_classes(class_names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(predictions: Predictions, path: Path) -> Path:
    """`Predictions.write`."""
    writer = _by_ending(path, {".csv": write_csv, ".parquet": write_parquet, ".npz": write_npz})
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer(predictions, file)
    return path


def _by_ending(path: Path, options: Mapping[str, AnyT]) -> AnyT:
    if path.suffix.lower() not in options:
        raise unknown("ending of a predictions file", path.name, [f"*{ending}" for ending in options])
    return options[path.suffix.lower()]

"""Tables of predictions in .csv and .parquet files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from robustdistill.archives import check_table, damage_named, text_array
from robustdistill.errors import InputError
from robustdistill.prediction_checks import first_cell
from robustdistill.prediction_files.classes import class_indices, is_whole, own_or_given, seen_names
from robustdistill.prediction_files.columns import PREFIX, Layout, layout_of
from robustdistill.predictions import IntArray, Predictions

_TEXTS = ("group", "split")
# What messages of `Predictions` begin with, and the role of the column that they are about.
_PARTS = {"ids": "id", "labels": "label", "predicted classes": "prediction", "groups": "group", "splits": "split"}
_BATCH = 8192  # rows of a table that are decoded at once
_NAMES_KEY = b"robustdistill.class_names"
# How pyarrow says where a CSV file is wrong; its rows count the header, so they are the file's lines.
_CSV_PLACE = re.compile(r"(In CSV column #(?P<column>\d+): )?(CSV parse error: )?(Row #(?P<line>\d+): )?")


def read_csv(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"must be a UTF-8 text file of comma-separated values ({error})") from error
    layout = layout_of(header, columns)
    texts = list(layout.roles.values())
    types = {name: pa.float64() for name in layout.classes} | {name: pa.string() for name in texts}
    try:
        table = arrow_csv.read_csv(
            path,
            # One thread, so that errors carry the line.
            read_options=arrow_csv.ReadOptions(use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise InputError(_csv_problem(str(error), header)) from error
    scores = np.empty((table.num_rows, len(layout.classes)))
    for index, name in enumerate(layout.classes):
        scores[:, index] = table[name].to_numpy()
    text: dict[str, npt.NDArray[Any]] = {
        role: text_array(table[name].to_pylist(), f"column {name!r}") for role, name in layout.roles.items()
    }
    if "id" in text and len(text["id"]) and all(map(is_whole, text["id"].tolist())):
        text["id"] = text["id"].astype(np.int64)
    for role in ("label", *_TEXTS):
        if role in text:
            _require_all_or_none(text[role] == "", layout.roles[role], none=role == "label")
            if role == "label" and (text[role] == "").all():
                del text[role]
    return _assemble(layout, scores, text, table.num_rows, class_names)


def _csv_problem(message: str, header: Sequence[str]) -> str:
    place = cast("re.Match[str]", _CSV_PLACE.match(message))
    line, column = place["line"], place["column"]
    where = [f"line {line} (row {int(line) - 2})"] if line else []
    if column and int(column) < len(header):
        where.append(f"column {header[int(column)]!r}")
    return ": ".join([", ".join(where) or "not a table", message[place.end() :]])


def read_parquet(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
    from pyarrow import parquet

    with damage_named("parquet"):
        # So a file is decoded page by page: its scores are in memory once, and not also packed as they lie in it.
        file = parquet.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
        header = file.schema_arrow.names
    layout = layout_of(header, columns)
    check_table(file.metadata.num_rows, len(layout.classes) + len(layout.roles), path)
    with damage_named("parquet"):
        table = file.read(columns=list(layout.roles.values()))
        table.validate(full=True)
        stored = (file.schema_arrow.metadata or {}).get(_NAMES_KEY)
        names = class_names if stored is None else [str(name) for name in json.loads(stored)]
    values: dict[str, npt.NDArray[Any]] = {}
    for role, name in layout.roles.items():
        column = table[name]
        if role == "label" and column.null_count == len(column):
            continue
        _require_all_or_none(column.is_null().to_numpy(), name, none=role == "label")
        values[role] = _numbers_or_text(column, name)
    rows = file.metadata.num_rows
    scores = _parquet_scores(file, list(layout.classes), rows)
    return _assemble(layout, scores, values, rows, names)


def _parquet_scores(file: Any, names: list[str], rows: int) -> npt.NDArray[Any]:
    """(rows, C) the score columns in their common precision, decoded batch by batch."""
    import pyarrow as pa

    types = [file.schema_arrow.field(name).type for name in names]
    for name, kind in zip(names, types, strict=True):
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise InputError(f"column {name!r} must hold numbers, got {kind}")
    common = np.result_type(*(kind.to_pandas_dtype() for kind in types)) if names else np.dtype(np.float64)
    with damage_named("parquet"):
        scores = np.empty((rows, len(names)), dtype=common)
    start, batches = 0, iter(file.iter_batches(batch_size=_BATCH, columns=names) if names else ())
    while True:
        with damage_named("parquet"):
            batch = next(batches, None)
            if batch is None:
                break
            batch.validate(full=True)
            # By name: a file's own order may be another one, and so may that of what is asked for.
            found = [batch.column(name) for name in names]
        for index, column in enumerate(found):
            if column.null_count:
                row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise InputError(f"column {names[index]!r} must have a value in every row; row {row} has none")
            scores[start : start + len(batch), index] = column.to_numpy(zero_copy_only=False)
        start += len(batch)
    if names and start != rows:
        raise InputError(f"not a whole parquet file (it says {rows} rows and has {start})")
    return scores


def _numbers_or_text(values: Any, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_integer(values.type):
        return cast("npt.NDArray[Any]", values.to_numpy()).astype(np.int64)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return text_array(values.to_pylist(), f"column {name!r}")
    raise InputError(f"column {name!r} must hold whole numbers or text, got {values.type}")


def _require_all_or_none(missing: npt.NDArray[np.bool_], name: str, *, none: bool) -> None:
    rows = np.flatnonzero(missing)
    if 0 < len(rows) < len(missing) or (len(rows) and not none):
        raise InputError(f"column {name!r} must have a value in every row; row {rows[0]} has none")


def _assemble(
    layout: Layout,
    scores: npt.NDArray[Any],
    values: Mapping[str, npt.NDArray[Any]],
    rows: int,
    class_names: Sequence[str] | None,
) -> Predictions:
    kind, roles = layout.kind, layout.roles
    ids = values.get("id", np.arange(rows))
    labels, predicted = values.get("label"), values.get("prediction")
    if kind == "classes":
        predicted = cast("npt.NDArray[Any]", predicted)
        names = tuple(class_names) if class_names is not None else seen_names(predicted, labels)
        scores = class_indices(predicted, names, roles["prediction"])
    else:
        names = own_or_given(tuple(layout.classes.values()), class_names)
    indices = None if labels is None else class_indices(labels, names, roles["label"])
    try:
        table = Predictions(ids, scores, kind, names, indices, values.get("group"), values.get("split"))
    except InputError as error:
        raise _with_columns(error, layout, scores) from error
    if kind != "classes" and predicted is not None:
        _require_agreement(table, class_indices(predicted, names, roles["prediction"]))
    return table


def _with_columns(error: InputError, layout: Layout, scores: npt.NDArray[Any]) -> InputError:
    """The error, with what the file calls the column that it is about."""
    message = str(error)
    for what, role in _PARTS.items():
        if message.startswith(f"{what} ") and role in layout.roles:
            return InputError(f"column {layout.roles[role]!r}: {message}")
    columns = list(layout.classes)
    for rule, bad in (("finite", lambda block: ~np.isfinite(block)), ("not be negative", lambda block: block < 0)):
        if message.startswith(f"{layout.kind} must {'be ' if rule == 'finite' else ''}{rule}"):
            place = first_cell(scores, bad)
            return error if place is None else InputError(f"{message} (column {columns[place[1]]!r})")
    if message.startswith("probabilities must sum"):
        return InputError(f"{message} (columns {columns[0]!r} to {columns[-1]!r})")
    return error


def _require_agreement(table: Predictions, predicted: IntArray) -> None:
    """A column `prediction` beside scores must point to a highest score; another rule was at work where it does not."""
    inside = (predicted >= 0) & (predicted < table.num_classes)
    chosen = table.scores[np.arange(len(table)), np.where(inside, predicted, 0)]
    wrong = np.flatnonzero(~inside | (chosen < table.scores.max(axis=1)))
    if len(wrong):
        raise InputError(
            f"column 'prediction' must name the class with the highest score where there are scores; row {wrong[0]} "
            f"(id {table.ids[wrong[0]]}) does not. Drop that column, or the scores."
        )


def write_csv(predictions: Predictions, file: BinaryIO) -> None:
    from pyarrow import csv as arrow_csv

    # The decimal digits of a float32 are not those of the float64 that is read back: written wide, they are exact.
    arrow_csv.write_csv(_to_table(predictions, predictions.scores.astype(np.float64)), file)


def write_parquet(predictions: Predictions, file: BinaryIO) -> None:
    from pyarrow import parquet

    parquet.write_table(_to_table(predictions, predictions.scores), file)


def _to_table(predictions: Predictions, scores: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    names = np.array(predictions.class_names, dtype=object)
    columns: dict[str, Any] = {"id": predictions.ids}
    if predictions.labels is not None:
        columns["label"] = names[predictions.labels]
    columns |= {
        role: values
        for role, values in (("group", predictions.groups), ("split", predictions.splits))
        if values is not None
    }
    if predictions.kind == "classes":
        columns["prediction"] = names[predictions.scores]
    else:
        for index, name in enumerate(predictions.class_names):
            columns[f"{PREFIX[predictions.kind]}:{name}"] = scores[:, index]
    return pa.table(columns, metadata={_NAMES_KEY: json.dumps(predictions.class_names)})

"""Files of predictions: .csv and .parquet tables, and .npz arrays. `Predictions.read` documents the layout."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.files import replacing
from robustdistill.predictions import KINDS, IntArray, Kind, Predictions

# The form that is written; a table that has it is read by it alone.
_WRITTEN = re.compile(r"(?P<kind>logit|probability):(?P<name>.*)", re.DOTALL)
_ALSO_READ = re.compile(r"(?P<kind>logit|probability|prob|p)_(?P<name>.+)", re.DOTALL)
_PREFIX: dict[Kind, str] = {"logits": "logit", "probabilities": "probability"}
# A whole number in its one usual spelling: "7", but not "07", which as an id would be another one.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
# Beyond this, a class index without a name is taken for a mistake, such as an id in the wrong column.
_MOST_UNNAMED_CLASSES = 1_000_000
_NAMES_KEY = b"robustdistill.class_names"
# How pyarrow says where a CSV file is wrong; its rows count the header, so they are the file's lines.
_CSV_PLACE = re.compile(r"(In CSV column #(?P<column>\d+): )?(CSV parse error: )?(Row #(?P<line>\d+): )?")

AnyT = TypeVar("AnyT")


def read(path: Path, class_names: Sequence[str] | None = None) -> Predictions:
    """`Predictions.read`."""
    reader = _by_ending(path, {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz})
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        predictions = reader(path, class_names)
        return predictions if class_names is None else predictions.match_classes(class_names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(predictions: Predictions, path: Path) -> Path:
    """`Predictions.write`."""
    writer = _by_ending(path, {".csv": _write_csv, ".parquet": _write_parquet, ".npz": _write_npz})
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer(predictions, file)
    return path


def _by_ending(path: Path, options: Mapping[str, AnyT]) -> AnyT:
    if path.suffix.lower() not in options:
        raise unknown("ending of a predictions file", path.name, [f"*{ending}" for ending in options])
    return options[path.suffix.lower()]


# Tables


def _read_csv(path: Path, class_names: Sequence[str] | None) -> Predictions:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"must be a UTF-8 text file of comma-separated values ({error})") from error
    kind, columns = _score_columns(header)
    texts = [name for name in ("id", "label", "prediction") if name in header]
    types = {name: pa.float64() for name in columns} | {name: pa.string() for name in texts}
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
    arrays = {name: table[name].to_numpy() for name in columns}
    text = {name: np.array(table[name].to_pylist(), dtype=str) for name in texts}
    if "id" in text and len(text["id"]) and all(_WHOLE.fullmatch(value) for value in text["id"].tolist()):
        text["id"] = text["id"].astype(np.int64)
    if "label" in text:
        _require_all_or_none(text["label"] == "", "label")
        if (text["label"] == "").all():
            del text["label"]
    return _assemble(kind, columns, arrays | text, table.num_rows, class_names)


def _csv_problem(message: str, header: Sequence[str]) -> str:
    place = cast("re.Match[str]", _CSV_PLACE.match(message))
    line, column = place["line"], place["column"]
    where = [f"line {line} (row {int(line) - 2})"] if line else []
    if column and int(column) < len(header):
        where.append(f"column {header[int(column)]!r}")
    return ": ".join([", ".join(where) or "not a table", message[place.end() :]])


def _read_parquet(path: Path, class_names: Sequence[str] | None) -> Predictions:
    from pyarrow import parquet

    with _damage_named("parquet"):
        file = parquet.ParquetFile(path)
        header = file.schema_arrow.names
    kind, columns = _score_columns(header)
    others = [name for name in ("id", "label", "prediction") if name in header]
    with _damage_named("parquet"):
        table = file.read(columns=[*columns, *others])
        table.validate(full=True)
        stored = (table.schema.metadata or {}).get(_NAMES_KEY)
        names = class_names if stored is None else [str(name) for name in json.loads(stored)]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in (*columns, *others):
        values = table[name]
        if name == "label" and values.null_count == len(values):
            continue
        _require_all_or_none(values.is_null().to_numpy(), name)
        arrays[name] = _numbers(values, name) if name in columns else _numbers_or_text(values, name)
    return _assemble(kind, columns, arrays, table.num_rows, names)


@contextmanager
def _damage_named(form: str) -> Iterator[None]:
    """Whatever a library says about a file that is not what its ending promises becomes an InputError."""
    try:
        yield
    except Exception as error:  # Arrow, NumPy, zipfile, zlib, json and the codecs have no common base.
        raise InputError(f"not a whole {form} file ({error})") from error


def _numbers(values: Any, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise InputError(f"column {name!r} must hold numbers, got {values.type}")
    return cast("npt.NDArray[Any]", values.to_numpy())


def _numbers_or_text(values: Any, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_integer(values.type):
        return cast("npt.NDArray[Any]", values.to_numpy()).astype(np.int64)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return np.array(values.to_pylist(), dtype=str)
    raise InputError(f"column {name!r} must hold whole numbers or text, got {values.type}")


def _require_all_or_none(missing: npt.NDArray[np.bool_], name: str) -> None:
    rows = np.flatnonzero(missing)
    if 0 < len(rows) < len(missing) or (len(rows) and name != "label"):
        raise InputError(f"column {name!r} must have a value in every row; row {rows[0]} has none")


def _score_columns(header: Sequence[str]) -> tuple[Kind, dict[str, str]]:
    """The kind of table that has this header, and the class name of each score column."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"column names must be distinct; {repeated[0]!r} occurs more than once")
    for form in (_WRITTEN, _ALSO_READ):
        matches = {name: match for name in header if (match := form.fullmatch(name))}
        kinds: set[Kind] = {"logits" if match["kind"] == "logit" else "probabilities" for match in matches.values()}
        if len(kinds) > 1:
            raise InputError("must have columns of logits or of probabilities, got both")
        if kinds:
            return kinds.pop(), {name: match["name"] for name, match in matches.items()}
    if "prediction" in header:
        return "classes", {}
    raise InputError(
        "must have a column for each class named 'logit:CLASS' or 'probability:CLASS', or a column 'prediction'; "
        f"got the columns {', '.join(map(repr, header[:8])) or 'none'}{' ...' if len(header) > 8 else ''}"
    )


def _assemble(
    kind: Kind,
    columns: Mapping[str, str],
    values: Mapping[str, npt.NDArray[Any]],
    rows: int,
    class_names: Sequence[str] | None,
) -> Predictions:
    ids = values.get("id", np.arange(rows))
    labels, predicted = values.get("label"), values.get("prediction")
    if kind == "classes":
        predicted = cast("npt.NDArray[Any]", predicted)
        names = tuple(class_names) if class_names is not None else _seen_names(predicted, labels)
        scores: npt.NDArray[Any] = _class_indices(predicted, names, "prediction")
    else:
        names = _own_or_given(tuple(columns.values()), class_names)
        scores = np.column_stack([values[name] for name in columns])
    table = Predictions(ids, scores, kind, names, None if labels is None else _class_indices(labels, names, "label"))
    if kind != "classes" and predicted is not None:
        _require_agreement(table, _class_indices(predicted, names, "prediction"))
    return table


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


def _own_or_given(own: tuple[str, ...], given: Sequence[str] | None) -> tuple[str, ...]:
    """A file's own class names, unless they are just positions and there are others for them."""
    positions = tuple(map(str, range(len(own))))
    if given is not None and own == positions and len(given) == len(own) and set(given) != set(own):
        return tuple(given)
    return own


def _seen_names(*columns: npt.NDArray[Any] | None) -> tuple[str, ...]:
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


def _class_indices(values: npt.NDArray[Any], names: Sequence[str], column: str) -> IntArray:
    """Indices (N,) from class names, or else from numbers. Whether they are in range is checked later."""
    index_of = {name: index for index, name in enumerate(names)}
    unique, first_rows, inverse = np.unique(values, return_index=True, return_inverse=True)
    texts = [str(value) for value in unique.tolist()]
    if all(text in index_of for text in texts):
        indices = [index_of[text] for text in texts]
    else:
        rows = dict(zip(texts, first_rows.tolist(), strict=True))
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
    return np.array(indices, dtype=np.int64)[inverse.reshape(-1)]


def _to_table(predictions: Predictions, scores: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    names = np.array(predictions.class_names, dtype=object)
    columns: dict[str, Any] = {"id": predictions.ids}
    if predictions.labels is not None:
        columns["label"] = names[predictions.labels]
    if predictions.kind == "classes":
        columns["prediction"] = names[predictions.scores]
    else:
        for index, name in enumerate(predictions.class_names):
            columns[f"{_PREFIX[predictions.kind]}:{name}"] = scores[:, index]
    return pa.table(columns, metadata={_NAMES_KEY: json.dumps(predictions.class_names)})


def _write_csv(predictions: Predictions, file: BinaryIO) -> None:
    from pyarrow import csv as arrow_csv

    # The decimal digits of a float32 are not those of the float64 that is read back: written wide, they are exact.
    arrow_csv.write_csv(_to_table(predictions, predictions.scores.astype(np.float64)), file)


def _write_parquet(predictions: Predictions, file: BinaryIO) -> None:
    from pyarrow import parquet

    parquet.write_table(_to_table(predictions, predictions.scores), file)


# Arrays


def _read_npz(path: Path, class_names: Sequence[str] | None) -> Predictions:
    arrays = _npz_arrays(path, (*KINDS, "ids", "labels", "class_names"))
    kinds = [kind for kind in KINDS if kind in arrays]
    if len(kinds) != 1:
        raise InputError(f"must have exactly one of the arrays {', '.join(KINDS)}; got {', '.join(kinds) or 'none'}")
    (kind,) = kinds
    scores, labels = arrays[kind], arrays.get("labels")
    if scores.ndim != (1 if kind == "classes" else 2):
        raise InputError(
            f"array {kind!r} must have the shape {'(N,)' if kind == 'classes' else '(N, C)'}, got {scores.shape}"
        )
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].reshape(-1).tolist())
    elif class_names is not None:
        names = tuple(class_names)
    elif kind == "classes":
        names = _seen_names(scores, labels)
    else:
        names = tuple(map(str, range(scores.shape[1])))
    if kind == "classes" and scores.dtype.kind == "U":
        scores = _class_indices(scores, names, "classes")
    if labels is not None and labels.dtype.kind == "U":
        labels = _class_indices(labels, names, "labels")
    return Predictions(arrays.get("ids", np.arange(len(scores))), scores, kind, names, labels)


def _npz_arrays(path: Path, wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    with _damage_named("npz"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {}
        for name in (name for name in wanted if name in archive):
            try:
                arrays[name] = archive[name]
            except ValueError as error:
                raise ValueError(f"array {name!r}: {error}") from error
        return arrays


def _write_npz(predictions: Predictions, file: BinaryIO) -> None:
    arrays = {
        "ids": predictions.ids,
        predictions.kind: predictions.scores,
        "class_names": np.array(predictions.class_names),
    }
    if predictions.labels is not None:
        arrays["labels"] = predictions.labels
    np.savez(file, allow_pickle=False, **arrays)

"""Files of predictions: .csv and .parquet tables, and .npz arrays. `Predictions.read` documents the layout."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt

from robustdistill.archives import check_expansion, check_table, text_array
from robustdistill.errors import InputError, unknown
from robustdistill.files import replacing
from robustdistill.prediction_checks import first_cell
from robustdistill.predictions import KINDS, IntArray, Kind, Predictions

# The form that is written; a table that has it is read by it alone.
_WRITTEN = re.compile(r"(?P<kind>logit|probability):(?P<name>.*)", re.DOTALL)
_ALSO_READ = re.compile(r"(?P<kind>logit|probability|prob|p)_(?P<name>.+)", re.DOTALL)
_PREFIX: dict[Kind, str] = {"logits": "logit", "probabilities": "probability"}
# What a table may have besides scores.
_ROLES = ("id", "label", "prediction", "group", "split")
_TEXTS = ("group", "split")
# What messages of `Predictions` begin with, and the role of the column that they are about.
_PARTS = {"ids": "id", "labels": "label", "predicted classes": "prediction", "groups": "group", "splits": "split"}
_BATCH = 8192  # rows of a table that are decoded at once
# A whole number in its one usual spelling: "7", but not "07", which as an id would be another one.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
# Beyond this, a class index without a name is taken for a mistake, such as an id in the wrong column.
_MOST_UNNAMED_CLASSES = 1_000_000
_NAMES_KEY = b"robustdistill.class_names"
# How pyarrow says where a CSV file is wrong; its rows count the header, so they are the file's lines.
_CSV_PLACE = re.compile(r"(In CSV column #(?P<column>\d+): )?(CSV parse error: )?(Row #(?P<line>\d+): )?")

AnyT = TypeVar("AnyT")


def read(path: Path, class_names: Sequence[str] | None = None, columns: Mapping[str, str] | None = None) -> Predictions:
    """`Predictions.read`."""
    reader = _by_ending(path, {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz})
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        predictions = reader(path, class_names, _checked_roles(columns or {}))
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


@dataclass(frozen=True)
class _Layout:
    """What the columns of a table are: the kind of scores, column -> class name, and role -> column."""

    kind: Kind
    classes: dict[str, str]
    roles: dict[str, str]


def _checked_roles(columns: Mapping[str, str]) -> dict[str, str]:
    for role in columns:
        if role not in (*_ROLES, *_PREFIX.values()):
            raise unknown("column", role, (*_ROLES, *_PREFIX.values()))
        if role in _PREFIX.values() and columns[role].count("*") != 1:
            raise InputError(
                f"columns of {role} must be a name with one star that stands for the class, such as 'score_*', "
                f"got {columns[role]!r}"
            )
    if set(_PREFIX.values()) <= columns.keys():
        raise InputError("columns must name those of logits or those of probabilities, got both")
    return dict(columns)


def _layout(header: Sequence[str], columns: Mapping[str, str]) -> _Layout:
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise InputError(f"column names must be distinct; {repeated[0]!r} occurs more than once")
    for role in _ROLES:
        if role in columns and columns[role] not in header:
            raise unknown(f"column for {role}", columns[role], header)
    roles = {role: columns.get(role, role) for role in _ROLES if columns.get(role, role) in header}
    if not _PREFIX.values() & columns.keys():
        kind, classes = _score_columns([name for name in header if name not in roles.values()], "prediction" in roles)
        return _Layout(kind, classes, roles)
    kind = next(kind for kind, prefix in _PREFIX.items() if prefix in columns)
    before, after = columns[_PREFIX[kind]].split("*")
    shape = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    classes = {name: match[1] for name in header if name not in roles.values() and (match := shape.fullmatch(name))}
    if not classes:
        raise InputError(f"no column looks like {columns[_PREFIX[kind]]!r}; got the columns {_shown(header)}")
    return _Layout(kind, classes, roles)


def _shown(header: Sequence[str]) -> str:
    return f"{', '.join(map(repr, header[:8])) or 'none'}{' ...' if len(header) > 8 else ''}"


def _read_csv(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"must be a UTF-8 text file of comma-separated values ({error})") from error
    layout = _layout(header, columns)
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
    if "id" in text and len(text["id"]) and all(map(_is_whole, text["id"].tolist())):
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


def _read_parquet(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
    from pyarrow import parquet

    with _damage_named("parquet"):
        # So a file is decoded page by page: its scores are in memory once, and not also packed as they lie in it.
        file = parquet.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
        header = file.schema_arrow.names
    layout = _layout(header, columns)
    check_table(file.metadata.num_rows, len(layout.classes) + len(layout.roles), path)
    with _damage_named("parquet"):
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
    with _damage_named("parquet"):
        scores = np.empty((rows, len(names)), dtype=common)
    start, batches = 0, iter(file.iter_batches(batch_size=_BATCH, columns=names) if names else ())
    while True:
        with _damage_named("parquet"):
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


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number of 64 bits as it would be written."""
    return _WHOLE.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


@contextmanager
def _damage_named(form: str) -> Iterator[None]:
    """Whatever a library says about a file that is not what its ending promises becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Arrow, NumPy, zipfile, zlib, json and the codecs have no common base.
        raise InputError(f"not a whole {form} file ({error})") from error


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


def _assemble(
    layout: _Layout,
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
        names = tuple(class_names) if class_names is not None else _seen_names(predicted, labels)
        scores = _class_indices(predicted, names, roles["prediction"])
    else:
        names = _own_or_given(tuple(layout.classes.values()), class_names)
    indices = None if labels is None else _class_indices(labels, names, roles["label"])
    try:
        table = Predictions(ids, scores, kind, names, indices, values.get("group"), values.get("split"))
    except InputError as error:
        raise _with_columns(error, layout, scores) from error
    if kind != "classes" and predicted is not None:
        _require_agreement(table, _class_indices(predicted, names, roles["prediction"]))
    return table


def _with_columns(error: InputError, layout: _Layout, scores: npt.NDArray[Any]) -> InputError:
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


def _read_npz(path: Path, class_names: Sequence[str] | None, columns: Mapping[str, str]) -> Predictions:
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
        names = _seen_names(scores, labels)
    else:
        names = tuple(map(str, range(scores.shape[1])))
    if kind == "classes" and scores.dtype.kind == "U":
        scores = _class_indices(scores, names, "classes")
    if labels is not None and labels.dtype.kind == "U":
        labels = _class_indices(labels, names, "labels")
    ids = arrays.get("ids", np.arange(len(scores)))
    return Predictions(ids, scores, kind, names, labels, arrays.get("groups"), arrays.get("splits"))


def _npz_arrays(path: Path, wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    with _damage_named("npz"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        check_expansion(archive, path)
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
    for name in ("labels", "groups", "splits"):
        if (values := getattr(predictions, name)) is not None:
            arrays[name] = values
    np.savez(file, allow_pickle=False, **arrays)

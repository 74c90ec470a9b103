"""Readers of tables of one's own: `parquet:FILE-or-DIR`, and `hub:NAME` through Hugging Face's `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.archives import check_table
from robustdistill.data.formats import Options, Source
from robustdistill.data.pictures import decode_all
from robustdistill.data.raw import PART_NAMES, existing, pictures_or_features, source_of, stack_parts
from robustdistill.errors import InputError

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
ID_COLUMN = "id"


def read_parquet(target: str, options: Options) -> Source:
    """Tables of pictures (a column of bytes, or of {bytes, path} as `datasets` writes) or of features, with labels.

    A directory holds train*.parquet and, if it has them, val*.parquet and test*.parquet, in itself or in `data/`.
    Without a picture column, the floating-point columns are the features; a column `id` is left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = existing(target, "parquet", file=None)
    files = {"train": [path]} if path.is_file() else _parquet_files(path)
    tables = {}
    for part, found in files.items():
        try:
            for file in found:
                about = pq.read_metadata(file)
                check_table(about.num_rows, about.num_columns, file)
            tables[part] = pa.concat_tables([pq.read_table(file) for file in found])
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{found[0]}: truncated, not a parquet file, or unlike its siblings ({error})") from error
    return _from_tables(str(path), tables, options, hub_class_names(tables["train"].schema))


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    for place in (folder, folder / "data"):
        every = sorted(place.glob("*.parquet"))
        files = {part: [file for file in every if file.name.startswith(names)] for part, names in PART_NAMES.items()}
        if files["train"]:
            return {part: found for part, found in files.items() if found}
    found = ", ".join(file.name for file in sorted(folder.rglob("*.parquet"))[:8]) or "no parquet file"
    raise InputError(f"{folder}: expected train*.parquet in it, found {found}")


def hub_class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Class names by column, from the notes that `datasets` leaves in a parquet file; empty where there are none."""
    try:
        notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = notes.get("info", {}).get("features", {})
        return {column: tuple(f["names"]) for column, f in features.items() if isinstance(f, dict) and "names" in f}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, RecursionError):
        return {}


def read_hub(target: str, options: Options) -> Source:
    """A data set of the Hugging Face hub, or a local folder that `datasets` understands. Its code is never run.

    A part whose labels are all negative has had them withheld, and is left out.
    """
    import datasets

    if not target:
        raise InputError("hub: expected the name of a data set, as in 'hub:OWNER/NAME', got nothing")
    try:
        loaded = datasets.load_dataset(target)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"hub:{target}: could not be loaded: {error}") from error
    tables, class_names = {}, {}
    for part, names in PART_NAMES.items():
        split = next((name for name in names if name in loaded), None)
        if split is None:
            continue
        rows = loaded[split]
        tables[part] = rows.with_format("arrow")[:]
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.ClassLabel):
                class_names[column] = tuple(feature.names)
    if "train" not in tables:
        raise InputError(f"hub:{target}: expected a split 'train', got {', '.join(map(str, loaded)) or 'none'}")
    label = _column(tables["train"], options.label_column, LABEL_COLUMNS, "label", f"hub:{target}")
    for part in ("val", "test"):
        if part in tables and tables[part].num_rows and label in tables[part].column_names:
            values = tables[part][label].to_numpy()
            if values.dtype.kind == "i" and (values < 0).all():
                del tables[part]
    return _from_tables(f"hub:{target}", tables, options, class_names, inside=_places_of_hub(target))


def _places_of_hub(target: str) -> tuple[Path, ...]:
    """Where `datasets` puts pictures, or has them of a local folder: nothing else that a table names is opened."""
    import datasets

    local = [Path(target).expanduser()] if Path(target).expanduser().is_dir() else []
    return tuple(Path(place).resolve() for place in (*local, datasets.config.HF_CACHE_HOME))


def _from_tables(
    where: str,
    tables: Mapping[str, Any],
    options: Options,
    class_names: Mapping[str, tuple[str, ...]],
    inside: tuple[Path, ...] = (),
) -> Source:
    train = tables["train"]
    label = _column(train, options.label_column, LABEL_COLUMNS, "label", where)
    wanted = IMAGE_COLUMNS if options.image_column is None else (options.image_column,)
    image = next((name for name in wanted if name in train.column_names), None)
    if image is None and options.image_column is not None:
        image = _column(train, options.image_column, (), "image", where)
    group = None if options.group_column is None else _column(train, options.group_column, (), "group", where)
    for part, table in tables.items():
        missing = [name for name in (image, label, group) if name is not None and name not in table.column_names]
        if missing:
            raise InputError(f"{where}: {part} lacks the column {missing[0]!r} (it has: {_listed(table)})")
    labels = {part: _labels(table[label], f"{where}: {part}, column {label!r}") for part, table in tables.items()}
    if image is not None:
        pictures = {
            part: decode_all(_encoded(table[image], f"{where}: {part}", inside), options.image_size)
            for part, table in tables.items()
        }
        for part, found in pictures.items():
            if not found:
                raise InputError(f"{where}: {part} holds no example")
        inputs: dict[str, npt.NDArray[Any]] = dict(stack_parts(pictures))
    else:
        columns = _feature_columns(train, {label, ID_COLUMN, group}, where)
        inputs = {part: _features(table, columns, f"{where}: {part}") for part, table in tables.items()}
    groups = None if group is None else {part: table[group].to_numpy() for part, table in tables.items()}
    return source_of(where, {part: (inputs[part], labels[part]) for part in tables}, class_names.get(label), groups)


def _labels(column: Any, where: str) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = column.to_numpy()
    except (ValueError, IndexError, TypeError, NotImplementedError) as error:  # of Arrow's types that NumPy has not
        raise InputError(
            f"{where}: labels must be integers or text without gaps, got {column.type} ({error})"
        ) from error
    return found


def _column(table: Any, asked: str | None, usual: tuple[str, ...], kind: str, where: str) -> str:
    for name in usual if asked is None else (asked,):
        if name in table.column_names:
            return name
    expected = f"{asked!r}" if asked is not None else f"{' or '.join(map(repr, usual))}, or {kind}_column= to name it"
    raise InputError(f"{where}: expected the {kind} column {expected}; it has: {_listed(table)}")


def _listed(table: Any) -> str:
    return ", ".join(table.column_names) or "no columns"


def _encoded(column: Any, where: str, inside: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    for row, cell in enumerate(column):
        value = cell.as_py()
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        name = f"{where} row {row}"
        if content is None and path and inside:
            # A path in a table from elsewhere can name any file of this machine; read is what `datasets` put there.
            found = Path(path).resolve()
            if not any(found.is_relative_to(place) for place in inside):
                raise InputError(f"{name}: names the file {path!r}, which is not part of the data set")
            if found.is_file():
                name, content = path, found.read_bytes()
        if not isinstance(content, bytes):
            raise InputError(f"{name}: expected the bytes of a picture, got {type(content).__name__}")
        yield name, content


def _feature_columns(table: Any, others: Set[str | None], where: str) -> list[str]:
    columns = []
    for field in table.schema:
        if field.name in others:
            continue
        if str(field.type) not in ("float", "double", "halffloat"):
            kept = ", ".join(sorted(repr(name) for name in others if name is not None))
            raise InputError(
                f"{where}: without an image column every column but {kept} is a feature and must be floating point; "
                f"{field.name!r} is {field.type}. Cast or drop it, or name the image_column= or group_column="
            )
        columns.append(field.name)
    if not columns:
        raise InputError(f"{where}: neither an image column nor a floating-point one; it has: {_listed(table)}")
    return columns


def _features(table: Any, columns: list[str], where: str) -> npt.NDArray[Any]:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputError(f"{where} lacks the feature column {missing[0]!r}")
    arrays = [table[name].to_numpy().astype(np.float64) for name in columns]  # a null becomes NaN
    return pictures_or_features(np.stack(arrays, axis=1), where)

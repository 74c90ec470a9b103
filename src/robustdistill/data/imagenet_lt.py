"""The reader of ImageNet-LT: the published list of training pictures, joined by name to ImageNet as it lies on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.data.encoded import EncodedPictures, Files, ParquetRows
from robustdistill.data.formats import Options, Part, Source
from robustdistill.data.imagenet import check_imagenet_counts, imagenet_folder, list_imagenet
from robustdistill.data.splits import IntArray
from robustdistill.errors import InputError

LIST = "ImageNet_LT_train.txt"
COUNT = 115_846  # pictures in it

# The hub's tables call n01440764_190.JPEG n01440764_190_n01440764.JPEG: its class once more at the end.
_CLASS_AT_END = re.compile(r"_n\d{8}(?=\.[^.]*$)")


def read_imagenet_lt(root: Path, options: Options) -> Source:
    """ImageNet-LT (Liu et al. 2019): the published list of training pictures of ImageNet; held out as in `imagenet`.

    The list is `options.lists`, a file or the folder of `ImageNet_LT_train.txt`; by default that file in `root` or
    beside the pictures. Its lines are "train/n01440764/n01440764_190.JPEG 0". In class folders that is a path; in
    parquet tables the file name is looked for in the image column's `path`, plain or with its class once more at the
    end, as the hub has it. The published validation and test lists are not used.
    """
    folder = imagenet_folder(root)
    path = _list_file(root, folder, options.lists)
    source = list_imagenet(folder, options)
    kept = _listed_rows(path, folder, source.train)
    if options.verify:
        if len(kept) != COUNT:
            raise InputError(
                f"{path}: the published list has {COUNT:,} pictures, this one {len(kept):,}. "
                "Read it as it is with --no-verify (verify=False)"
            )
        check_imagenet_counts(folder, source, train=False)
    assert source.train.labels is not None
    train = Part(source.train.inputs[kept], source.train.labels[kept], kept)
    return Source(source.class_names, train=train, val=source.val)


def _list_file(root: Path, folder: Path, given: Path | None) -> Path:
    if given is not None:
        path = given / LIST if given.is_dir() else given
        if not path.is_file():
            raise InputError(f"lists: expected the file {LIST} or its folder, found nothing at {given}")
        return path
    for place in (root, folder):
        if (place / LIST).is_file():
            return place / LIST
    raise InputError(f"expected {LIST} in {root} or {folder}; name it, or its folder, with lists=")


@dataclass(frozen=True)
class _Line:
    where: str
    name: str
    label: str


def _lines(path: Path) -> list[_Line]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: no list of pictures ({error})") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not name:
            raise InputError(f"{path} line {number}: expected 'train/WNID/FILE LABEL', got {line!r}")
        lines.append(_Line(f"{path} line {number}", name, label))
    return lines


def _listed_rows(path: Path, folder: Path, train: Part) -> IntArray:
    """The rows of the training part that a list names, sorted."""
    pictures, labels = train.inputs, train.labels
    assert isinstance(pictures, EncodedPictures)
    assert labels is not None
    lines = _lines(path)
    if isinstance(pictures.store, ParquetRows):
        row_of = _rows_of_table(pictures.store, lines)
    else:
        assert isinstance(pictures.store, Files)
        row_of = _rows_of_tree(pictures.store, folder)
    kept = []
    for line in lines:
        row = row_of(line)
        if line.label != str(labels[row]):
            raise InputError(f"{line.where}: {line.name} has the label {line.label}, in {folder} it is {labels[row]}")
        kept.append(row)
    kept_rows: IntArray = np.unique(np.array(kept, dtype=np.int64))
    if len(kept_rows) != len(kept):
        raise InputError(f"{path}: {len(kept) - len(kept_rows)} pictures are listed twice")
    return kept_rows


def _rows_of_tree(store: Files, folder: Path) -> Callable[[_Line], int]:
    rows = {name: row for row, name in enumerate(store.names.tolist())}

    def row_of(line: _Line) -> int:
        row = rows.get(line.name.encode())
        if row is None:
            raise InputError(f"{line.where}: no picture {line.name!r} in {folder} (lines are 'train/WNID/FILE 0')")
        return row

    return row_of


def _rows_of_table(store: ParquetRows, lines: list[_Line]) -> Callable[[_Line], int]:
    # Only of what is listed: a dictionary of a million names would take more than the tables' labels do.
    rows: dict[str, int] = {_file_name(line.name): -1 for line in lines}
    nameless = 0
    for row, name in enumerate(_paths(store)):
        if not name:
            nameless += 1
            continue
        plain = _CLASS_AT_END.sub("", _file_name(name))
        before = rows.get(plain)
        if before is None:
            continue
        if before >= 0:
            places = f"{_place(store, before)} and {_place(store, row)}"
            raise InputError(f"{store.files[0].parent}: {plain!r} must be one picture, and is in {places}")
        rows[plain] = row

    def row_of(line: _Line) -> int:
        name = _file_name(line.name)
        if rows[name] < 0:
            more = f"; {nameless:,} rows have no name" if nameless else ""
            raise InputError(f"{line.where}: no picture {name!r} in the tables of {store.files[0].parent}{more}")
        return rows[name]

    return row_of


def _paths(store: ParquetRows) -> Iterator[str | None]:
    """The name of each row's picture, in order, of tables that have them. Reads no picture."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for file in store.files:
        try:
            with pq.ParquetFile(file) as opened:
                kind: Any = opened.schema_arrow.field(store.column).type
                inner = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
                if inner.get("path") not in (pa.string(), pa.large_string()):
                    raise InputError(
                        f"{file}: the list names files, and the column {store.column!r} does not; expected"
                        f" {{bytes, path}} as `datasets` writes, got {kind}"
                    )
                found = opened.read(columns=[f"{store.column}.path"])[store.column]
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: truncated, or not a parquet file ({error})") from error
        yield from pc.struct_field(found, "path").to_pylist()


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _place(store: ParquetRows, row: int) -> str:
    file, group, at = store.places[row].tolist()
    return f"{store.files[file].name} row group {group} row {at}"

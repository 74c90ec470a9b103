"""Readers of a user's own data: `npz:FILE`, `folder:DIR`, `parquet:FILE-or-DIR` and `hub:NAME`."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustdistill.archives import check_expansion, check_table
from robustdistill.data.formats import Options, Part, Source
from robustdistill.data.pictures import SUFFIXES, decode_all, stack
from robustdistill.data.splits import IntArray
from robustdistill.errors import InputError

# The names that each part goes by, first come first served.
PART_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid", "dev"), "test": ("test",)}
IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
ID_COLUMN = "id"
NPZ_ARRAYS = {f"{part}_{kind}" for part in PART_NAMES for kind in ("images", "labels")} | {"class_names"}

RawParts = dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any] | None]]  # part name -> inputs, labels as stored


def _source(
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


def read_npz(target: str, options: Options) -> Source:
    """`train_images` and `train_labels`, optionally `val_*`, `test_*` and `class_names`, from an .npz file.

    Pictures are uint8 (N, H, W) or (N, H, W, channels); floats of any shape (N, ...) are features, used as they are.
    Labels are 0..C-1 or text; `val_labels` may be missing, then validation is unlabelled.
    """
    path = _existing(target, "npz", file=True)
    try:
        # Opened here, because NumPy leaves the file open where it finds no archive in it.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an .npz archive of named arrays, got a single array")
            with archive:
                check_expansion(archive, path)
                stored = ", ".join(archive.files) or "no arrays"
                arrays = {name: archive[name] for name in archive.files if name in NPZ_ARRAYS}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated, or not an .npz archive of plain arrays ({error})") from error
    parts: RawParts = {}
    for part in ("train", "val", "test"):
        images, labels = arrays.get(f"{part}_images"), arrays.get(f"{part}_labels")
        if images is None:
            if part == "train" or labels is not None:
                raise InputError(f"{path}: expected the array '{part}_images', got {stored}")
            continue
        if labels is None and part != "val":
            raise InputError(f"{path}: expected the array '{part}_labels', got {stored}")
        if labels is not None and labels.shape != images.shape[:1]:
            raise InputError(
                f"{path}: '{part}_labels' must be ({'N' if images.ndim == 0 else len(images)},), one for each of"
                f" '{part}_images' (N, ...), got {labels.shape} for {images.shape}"
            )
        parts[part] = (pictures_or_features(images, f"{path}: {part}_images"), labels)
    names = arrays.get("class_names")
    if names is not None and names.ndim != 1:
        raise InputError(f"{path}: 'class_names' must be (C,) names, got {names.shape}")
    return _source(str(path), parts, None if names is None else tuple(str(name) for name in names.tolist()))


def read_folder(target: str, options: Options) -> Source:
    """Pictures in DIR/train/CLASS/, with DIR/val/ and DIR/test/ where they exist, or in DIR/CLASS/.

    Classes are the sub-folders of the training part, sorted; pictures are found at any depth below them and numbered
    in the order of their paths. If any picture is in colour, the grey ones become colour.
    """
    root = _existing(target, "folder", file=False)
    folders = {part: _first([root / name for name in names]) for part, names in PART_NAMES.items()}
    train = folders["train"]
    if train is None:
        present = [str(folder) for folder in folders.values() if folder is not None]
        if present:
            raise InputError(f"{root}: expected the folder 'train' beside {', '.join(present)}")
        folders["train"] = train = root
    names = tuple(_subfolders(train))
    if not names:
        raise InputError(f"{train}: expected a sub-folder of pictures for each class, found none")
    parts, labels = {}, {}
    for part, folder in folders.items():
        if folder is None:
            continue
        strange = [name for name in _subfolders(folder) if name not in names]
        if strange:
            raise InputError(f"{folder / strange[0]}: no class of train has this name (one of: {', '.join(names)})")
        files = [(path, j) for j, name in enumerate(names) for path in _picture_files(folder / name)]
        if not files:
            raise InputError(f"{folder}: no picture in CLASS/ sub-folders of it ({', '.join(SUFFIXES)})")
        parts[part] = decode_all(((str(path), path.read_bytes()) for path, _ in files), options.image_size)
        labels[part] = np.array([j for _, j in files], dtype=np.int64)
    arrays = _stack_parts(parts)
    return _source(str(root), {part: (arrays[part], labels[part]) for part in arrays}, names)


def _first(folders: list[Path]) -> Path | None:
    return next((folder for folder in folders if folder.is_dir()), None)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _picture_files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _stack_parts(parts: Mapping[str, list[npt.NDArray[np.uint8]]]) -> dict[str, npt.NDArray[np.uint8]]:
    channels = max(picture.shape[2] for pictures in parts.values() for picture in pictures)
    return {part: stack(pictures, channels) for part, pictures in parts.items()}


def read_parquet(target: str, options: Options) -> Source:
    """Tables of pictures (a column of bytes, or of {bytes, path} as `datasets` writes) or of features, with labels.

    A directory holds train*.parquet and, if it has them, val*.parquet and test*.parquet, in itself or in `data/`.
    Without a picture column, the floating-point columns are the features; a column `id` is left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _existing(target, "parquet", file=None)
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


def is_remote(name: str) -> bool:
    """Whether reading the data of this name asks another machine for them."""
    kind, _, target = name.partition(":")
    return kind == "hub" and not Path(target).expanduser().is_dir()


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
        inputs: dict[str, npt.NDArray[Any]] = dict(_stack_parts(pictures))
    else:
        columns = _feature_columns(train, {label, ID_COLUMN, group}, where)
        inputs = {part: _features(table, columns, f"{where}: {part}") for part, table in tables.items()}
    groups = None if group is None else {part: table[group].to_numpy() for part, table in tables.items()}
    return _source(where, {part: (inputs[part], labels[part]) for part in tables}, class_names.get(label), groups)


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


def _existing(target: str, kind: str, *, file: bool | None) -> Path:
    """The path after `kind:`; `file` says whether it must be a file (True), a folder (False) or either (None)."""
    path = Path(target).expanduser()
    expected = {True: "a file", False: "a folder", None: "a file or folder"}[file]
    if not target or not path.exists() or (file is not None and path.is_file() != file):
        what = "nothing there" if not path.exists() else "a folder" if path.is_dir() else "a file"
        raise InputError(f"{kind}:{target}: expected {expected} at {str(path.absolute())!r}, found {what}")
    return path


READERS: dict[str, Callable[[str, Options], Source]] = {
    "npz": read_npz,
    "folder": read_folder,
    "parquet": read_parquet,
    "hub": read_hub,
}
# The arguments of `load` that only some of them take.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "parquet": ("image_column", "label_column", "group_column"),
    "hub": ("image_column", "label_column", "group_column"),
}

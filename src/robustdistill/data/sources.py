"""Readers of a user's own data by the kind of place: `npz:FILE`, `folder:DIR`, `parquet:FILE-or-DIR`, `hub:NAME`.

Files of arrays and folders of pictures are read here, tables in `tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from robustdistill.archives import DAMAGED, check_expansion
from robustdistill.data.formats import Options, Source
from robustdistill.data.pictures import SUFFIXES, decode_all
from robustdistill.data.raw import PART_NAMES, RawParts, existing, pictures_or_features, source_of, stack_parts
from robustdistill.data.tables import read_hub, read_parquet
from robustdistill.errors import InputError

NPZ_ARRAYS = {f"{part}_{kind}" for part in PART_NAMES for kind in ("images", "labels")} | {"class_names"}


def read_npz(target: str, options: Options) -> Source:
    """`train_images` and `train_labels`, optionally `val_*`, `test_*` and `class_names`, from an .npz file.

    Pictures are uint8 (N, H, W) or (N, H, W, channels); floats of any shape (N, ...) are features, used as they are.
    Labels are 0..C-1 or text; `val_labels` may be missing, then validation is unlabelled.
    """
    path = existing(target, "npz", file=True)
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
    except (*DAMAGED, AttributeError) as error:
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
    return source_of(str(path), parts, None if names is None else tuple(str(name) for name in names.tolist()))


def read_folder(target: str, options: Options) -> Source:
    """Pictures in DIR/train/CLASS/, with DIR/val/ and DIR/test/ where they exist, or in DIR/CLASS/.

    Classes are the sub-folders of the training part, sorted; pictures are found at any depth below them and numbered
    in the order of their paths. If any picture is in colour, the grey ones become colour.
    """
    root = existing(target, "folder", file=False)
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
    arrays = stack_parts(parts)
    return source_of(str(root), {part: (arrays[part], labels[part]) for part in arrays}, names)


def _first(folders: list[Path]) -> Path | None:
    return next((folder for folder in folders if folder.is_dir()), None)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _picture_files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def is_remote(name: str) -> bool:
    """Whether reading the data of this name asks another machine for them."""
    kind, _, target = name.partition(":")
    return kind == "hub" and not Path(target).expanduser().is_dir()


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
